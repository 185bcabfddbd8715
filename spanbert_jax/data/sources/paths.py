"""Paths of a source, local or remote (gs://, s3://, hf://, memory://, ...: what fsspec knows), behind four functions.

A local path is opened by Python itself and named as the user wrote it; fsspec is imported only when there is a scheme.
"""

import contextlib
import glob
import logging
import os
from pathlib import Path

from spanbert_jax.errors import InputError

WANTED = "give 'embedded', 'tfds:name', or paths or globs of files separated by commas"
PACKAGES = {"gs": "pip install 'spanbert_jax[gcs]'", "gcs": "pip install 'spanbert_jax[gcs]'", "s3": "pip install s3fs"}


def find_files(source: str) -> list[str]:
    """Files that the comma-separated paths and globs of `source` name, each once, a glob's in sorted order; InputError for none."""
    patterns = [pattern.strip() for pattern in source.split(",") if pattern.strip()]
    if not patterns:
        raise InputError(f"corpus: data.source is empty; {WANTED}")
    found = {}
    for pattern in patterns:
        files = (remote_files if is_remote(pattern) else local_files)(pattern)
        if not files:
            raise InputError(f"corpus: no file matches {pattern}; {WANTED}")
        found |= dict.fromkeys(files)
    return list(found)


def is_remote(path: str) -> bool:
    """Whether the path has a scheme, as in gs://bucket/file."""
    return "://" in path


def local_files(pattern: str) -> list[str]:
    """Sorted files that a local path or glob (also with **) names. Raises InputError for a folder."""
    path = Path(pattern)
    if path.is_dir():
        raise InputError(f"corpus: {pattern} is a folder; name the files in it, as in {path / '*.txt'}")
    matches = [pattern] if path.exists() else sorted(glob.glob(pattern, recursive=True))
    return [str(Path(match)) for match in matches if not Path(match).is_dir()]


def remote_files(pattern: str) -> list[str]:
    """Sorted files that a remote path or glob names. Raises InputError for a folder, and when the store cannot be asked."""
    with remote_errors(pattern):
        files, path = file_system(pattern)
        if glob.has_magic(path):
            found = [name for name, about in files.glob(path, detail=True).items() if about["type"] == "file"]
        else:
            found = [path] if (kind := remote_kind(files, path)) else []
            if kind == "directory":
                raise InputError(
                    f"corpus: {pattern} is a folder; name the files in it, as in {pattern.rstrip('/')}/*.txt"
                )
        return [files.unstrip_protocol(name) for name in sorted(found)]


def remote_kind(files, path: str) -> str:
    """ "file", "directory", or "" where there is nothing. Unlike isfile() and isdir(), it raises when the store cannot be asked."""
    try:
        return files.info(path)["type"]
    except FileNotFoundError:
        return ""


def size_and_stamp(path: str) -> tuple[int, str]:
    """Bytes of a file, and a string that changes when the file is written again. Raises InputError when it cannot be asked."""
    if is_remote(path):
        with remote_errors(path):
            files, name = file_system(path)
            return files.size(name), str(files.ukey(name))
    try:
        status = os.stat(path)
    except OSError as error:
        raise InputError(f"corpus: cannot read {path} ({error.strerror or error})") from error
    return status.st_size, str(status.st_mtime_ns)


@contextlib.contextmanager
def open_bytes(path: str):
    """The file as it lies there, for reading. What goes wrong in opening or reading becomes an InputError."""
    if is_remote(path):
        with remote_errors(path):
            files, name = file_system(path)
            with files.open(name, "rb") as file:
                yield file
        return
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise InputError(f"corpus: cannot read {path} ({error.strerror or error})") from error


def file_system(path: str):
    """(fsspec file system, path in it) of a remote path."""
    import fsspec

    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # else it prints a traceback of each error that it raises
    return fsspec.core.url_to_fs(path)


@contextlib.contextmanager
def remote_errors(path: str):
    """Makes one line of whatever the library of a remote store raises."""
    try:
        yield
    except InputError:
        raise
    except ImportError as error:
        scheme = path.split("://")[0]
        raise InputError(
            f"corpus: cannot read {path}: {error}; {PACKAGES.get(scheme, f'install the fsspec package of {scheme}://')}"
        ) from error
    except Exception as error:  # each store has errors of its own: no bucket, no network, no rights, ...
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"corpus: cannot read {path} ({said[:300]}); check the path, the network and your rights to it"
        ) from error

"""Paths of a source, local or remote (gs://, s3://, hf://, memory://, ...: whatever fsspec knows).

A local path is opened by Python itself and named as the user wrote it; fsspec is imported for paths with a scheme only.
"""

import contextlib
import glob
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from spanbert_jax.errors import InputError

USAGE = "give 'embedded', 'tfds:name', or paths or globs of files separated by commas"
INSTALL = {"gs": "pip install 'spanbert_jax[gcs]'", "gcs": "pip install 'spanbert_jax[gcs]'", "s3": "pip install s3fs"}


def find_files(source: str) -> list[str]:
    """Returns the files that comma-separated paths and globs name; the matches of a glob are sorted.

    A file that is named several times is returned once, under its first name.

    Raises:
      InputError: a path or glob names no file, or a folder, or cannot be looked up.
    """
    patterns = [pattern.strip() for pattern in source.split(",") if pattern.strip()]
    if not patterns:
        raise InputError(f"corpus: the input is empty; {USAGE}", "input")
    found: dict[str, str] = {}  # identity -> as it was named first
    for pattern in patterns:
        files = remote_files(pattern) if is_remote(pattern) else local_files(pattern)
        if not files:
            raise InputError(f"corpus: no file matches {pattern}; {USAGE}", "input")
        for file in files:
            found.setdefault(identity(file), file)
    return list(found.values())


def identity(path: str) -> str:
    """Returns what all names of a file have in common: the path without links, "." and "..", for a local one."""
    return path if is_remote(path) else os.path.realpath(path)


def is_remote(path: str) -> bool:
    """Returns whether the path has a scheme, as in gs://bucket/file."""
    return "://" in path


def local_files(pattern: str) -> list[str]:
    """Returns the sorted files that a local path or glob (** included) names. Raises InputError for a folder."""
    path = Path(pattern)
    if path.is_dir():
        raise InputError(f"corpus: {pattern} is a folder; name the files in it, as in {path / '*.txt'}")
    matches = [pattern] if path.exists() else sorted(glob.glob(pattern, recursive=True))
    return [str(Path(match)) for match in matches if not Path(match).is_dir()]


def remote_files(pattern: str) -> list[str]:
    """Returns the sorted files that a remote path or glob names. Raises InputError for a folder or a failed lookup."""
    with remote_errors(pattern):
        files, path = file_system(pattern)
        if glob.has_magic(path):
            found = [name for name, info in files.glob(path, detail=True).items() if info["type"] == "file"]
        else:
            kind = remote_kind(files, path)
            if kind == "directory":
                example = f"{pattern.rstrip('/')}/*.txt"
                raise InputError(f"corpus: {pattern} is a folder; name the files in it, as in {example}")
            found = [path] if kind else []
        return [files.unstrip_protocol(name) for name in sorted(found)]


def remote_kind(files, path: str) -> str:
    """Returns "file", "directory", or "" for neither. Unlike isfile() and isdir(), it raises when the lookup fails."""
    try:
        return files.info(path)["type"]
    except FileNotFoundError:
        return ""


def size_and_stamp(path: str) -> tuple[int, str]:
    """Returns a file's bytes and a string that changes when it is written again. Raises InputError if that fails."""
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
def open_bytes(path: str, block_bytes: int | None = None) -> Iterator[IO[bytes]]:
    """Opens a file for reading its bytes as they are stored. Errors of opening or reading become InputErrors.

    `block_bytes`: how much of a remote file is read at a time; None: as its file system sees fit.
    """
    if is_remote(path):
        with remote_errors(path):
            files, name = file_system(path)
            with files.open(name, "rb", block_size=block_bytes) as file:
                yield file
        return
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise InputError(f"corpus: cannot read {path} ({error.strerror or error})") from error


def file_system(path: str) -> tuple[Any, str]:
    """Returns (fsspec file system, path in it) for a remote path."""
    import fsspec

    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # otherwise it prints a traceback for each error it raises
    return fsspec.core.url_to_fs(path)


@contextlib.contextmanager
def remote_errors(path: str) -> Iterator[None]:
    """Turns any error of a remote file system's library into an InputError of one line."""
    try:
        yield
    except InputError:
        raise
    except ImportError as error:
        scheme = path.split("://")[0]
        advice = INSTALL.get(scheme, f"install the fsspec package of {scheme}://")
        raise InputError(f"corpus: cannot read {path}: {error}; {advice}") from error
    except Exception as error:  # each library has its own errors: no bucket, no network, no permission, ...
        message = (" ".join(str(error).split()) or type(error).__name__)[:300]
        advice = "check the path, the network and your permissions"
        raise InputError(f"corpus: cannot read {path} ({message}); {advice}") from error

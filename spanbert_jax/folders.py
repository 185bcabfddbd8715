"""Atomic writes: a file or folder appears under its name complete, or not at all.

It is written under a temporary name beside its target, and gets its own name when it is complete.
"""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal

from spanbert_jax.errors import InputError


@contextlib.contextmanager
def temporary_folder(folder: Path) -> Iterator[None]:
    """Makes a folder and its parents. Those that were made here and are still empty are removed when the block ends.

    Raises:
      OSError: the folder cannot be made.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        with contextlib.suppress(OSError):  # at the first folder that is not empty: its parents are not empty either
            for path in made:
                path.rmdir()


@contextlib.contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder that is renamed to `folder` when the block ends, or removed when the block raises.

    Raises:
      InputError: `folder` exists and is not an empty folder, or it cannot be written.
    """
    folder = folder.absolute()  # "." has no name from which to derive a temporary one
    temporary = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
    refuse_existing(folder)
    try:
        with temporary_folder(folder.parent):
            try:
                temporary.mkdir()
                yield temporary
                temporary.rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        refuse_existing(folder)
        raise InputError(f"{folder}: cannot write it ({error.strerror or error})") from error


def refuse_existing(folder: Path) -> None:
    """Raises InputError when the path exists and is not an empty folder."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder}: there is something at this path already; remove it or choose another one")


@contextlib.contextmanager
def atomic_file(path: Path, mode: Literal["w", "wb"] = "w") -> Iterator[IO]:
    """Opens an output that the user named: as replace_file does, but with an error for the user.

    A path that is not a regular file, such as /dev/stdout, is written in place.

    Raises:
      InputError: the file cannot be opened. This is raised before the block begins.
    """
    is_regular = not path.is_symlink() and (path.is_file() or not path.exists())
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(replace_file(path, mode) if is_regular else _open(path, mode))
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}") from None
        yield file


@contextlib.contextmanager
def replace_file(path: Path, mode: Literal["w", "wb"] = "w", unique: bool = True) -> Iterator[IO]:
    """Opens a temporary file that replaces `path` when the block ends, or is removed when the block raises.

    Args:
      path: target of the rename.
      mode: "w" for text in UTF-8, "wb" for bytes.
      unique: gives each writer a temporary name of its own, so that several may write the same file at once. False for
        a file with one writer: its temporary name is always ".NAME", so that what a killed writer left is overwritten.

    Raises:
      OSError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}" if unique else f".{path.name}")
    try:
        with _open(temporary, mode) as file:
            yield file
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def publish_file(temporary: Path, path: Path) -> None:
    """Gives a finished file its name, or removes it if there is a file of that name: the first writer wins.

    A file that other processes may be reading is not replaced, since on a network file system they could not go on.

    Raises:
      OSError: the file cannot get its name; `temporary` is removed.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError:  # the file system has no hard links
        if not path.exists():
            temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def _open(path: Path, mode: Literal["w", "wb"]) -> IO:
    return path.open(mode, encoding="utf-8" if mode == "w" else None)

"""Folders and files made for something, and not left behind when nothing comes of it."""

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from spanbert_jax.errors import InputError


@contextlib.contextmanager
def made_for_now(folder: Path) -> Iterator[None]:
    """Makes a folder and its parents; on leaving, those that were made here and are still empty are removed again.

    Raises:
      OSError: it cannot be made.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        with contextlib.suppress(OSError):  # one that is not empty, and with it its parents
            for path in made:
                path.rmdir()


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder to write into, beside `folder`, which it becomes by one rename when the block ends well; else it is removed.

    Raises:
      InputError: there is something at `folder` other than an empty folder, or it cannot be written.
    """
    folder = folder.absolute()  # "." has no name to put a temporary one beside
    temporary = folder.parent / f".{folder.name}.{uuid.uuid4().hex}"
    refuse_taken(folder)
    try:
        with made_for_now(folder.parent):
            try:
                temporary.mkdir()
                yield temporary
                temporary.rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        refuse_taken(folder)
        raise InputError(f"{folder}: cannot write it ({error.strerror or error})") from error


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[IO[str]]:
    """A temporary text file to write into, beside `path`, which it becomes when the block ends well; else it is removed.

    What is no plain file, as /dev/stdout, is written to where it is.

    Raises:
      InputError: it cannot be written; said before the block begins.
    """
    plain = not path.is_symlink() and (path.is_file() or not path.exists())
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}") if plain else path
    try:
        file = temporary.open("w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None
    try:
        with file:
            yield file
        if plain:
            temporary.replace(path)
    finally:
        if plain:
            temporary.unlink(missing_ok=True)


def refuse_taken(folder: Path) -> None:
    """Raises InputError when there is anything at the path but an empty folder."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder}: there is something at this path already; remove it or choose another one")

"""Stores that lie elsewhere (gs://, s3://, ...): their files come to this machine one by one, when they are first used.

They go to $XDG_CACHE_HOME/spanbert_jax/stores (or ~/.cache/...), in a folder named by the content of the store, so that a store made anew
is fetched anew. A file appears there complete or not at all, and several processes may fetch the same one at the same time.
"""

import os
import shutil
import uuid
from pathlib import Path

from spanbert_jax.data.sources.paths import open_bytes
from spanbert_jax.errors import InputError


def cache_folder(fingerprint: str) -> Path:
    """Where the files of the store with this fingerprint are kept. Raises InputError when it cannot be made."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = root / "spanbert_jax" / "stores" / fingerprint[:32]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot make it, to keep a remote store in ({error.strerror});"
            " set XDG_CACHE_HOME to another place"
        ) from error
    return folder


def fetch(url: str, path: Path) -> Path:
    """The file at `path`, copied from `url` if it is not there yet. Raises InputError when it cannot be read or written."""
    if path.is_file():
        return path
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open_bytes(url) as source, open(temporary, "wb") as target:
            shutil.copyfileobj(source, target, 1 << 22)
        temporary.replace(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot write it ({error.strerror or error}); make room, or set XDG_CACHE_HOME to another place"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path

"""Compressed files (.gz, .bz2, .xz, .zst): known by their suffix, in small or capital letters, and read as a stream."""

import bz2
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import IO, Any

from spanbert_jax.data.sources.paths import open_bytes
from spanbert_jax.errors import InputError

CHUNK_BYTES = 1 << 20


def open_zst(file: IO[bytes]) -> io.BufferedReader:
    """Returns a reader of a .zst file: pyarrow's, as it reports truncated files. Raises InputError without pyarrow."""
    try:
        import pyarrow
    except ImportError as error:
        raise InputError("corpus: reading .zst needs pyarrow; pip install 'spanbert_jax[prepare]'") from error
    return io.BufferedReader(pyarrow.CompressedInputStream(file, "zstd"), CHUNK_BYTES)


DECOMPRESSORS: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": open_zst,
}


def split_suffix(path: str) -> tuple[str, str]:
    """Returns (suffix without that of a compression, suffix of the compression), both in small letters.

    "a.JSON.gz" has (".json", ".gz"), "a.txt" has (".txt", ""), and "wiki_00.bz2" has ("", ".bz2").
    """
    name = PurePosixPath(path.lower())
    if name.suffix in DECOMPRESSORS:
        return PurePosixPath(name.stem).suffix, name.suffix
    return name.suffix, ""


def num_byte_offsets(path: str, size: int) -> int:
    """Returns how many offsets a range of the file may begin at: its `size` bytes, or 1 if it is compressed."""
    return 1 if split_suffix(path)[1] else size


@contextlib.contextmanager
def open_decompressed(path: str, block_bytes: int | None = None) -> Iterator[IO[bytes]]:
    """Opens a file and decompresses it. Errors of opening or decompressing become InputErrors.

    `block_bytes`: how much of a remote file is read at a time; None: as its file system sees fit.
    """
    suffix = split_suffix(path)[1]
    with open_bytes(path, block_bytes) as raw:
        if not suffix:
            yield raw
            return
        try:
            with DECOMPRESSORS[suffix](raw) as file:
                yield file
        except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
            if getattr(error, "errno", None):  # an error of the disk, not of the archive
                raise
            advice = "get it again or remove it"
            raise InputError(f"corpus: {path} is a damaged {suffix} archive ({error}); {advice}") from error

"""Lines of a text file, plain or compressed (.gz, .bz2, .xz, .zst), from any byte on; errors name their line."""

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

MAX_LINE_BYTES = 1 << 24  # a longer line is refused: a whole corpus on one line would not fit in memory
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


def compression(path: str) -> str:
    """Returns the suffix of a compressed file (".gz"), "" for a plain one."""
    suffix = PurePosixPath(path).suffix
    return suffix if suffix in DECOMPRESSORS else ""


def num_byte_offsets(path: str, size: int) -> int:
    """Returns how many offsets a range of the file may begin at: its `size` bytes, or 1 if it is compressed."""
    return 1 if compression(path) else size


def lines(path: str, begin: int = 0) -> Iterator[tuple[int, str]]:
    """Yields (offset, stripped text) of each line that begins at byte `begin` of the decompressed file or later.

    Raises:
      InputError: the file is not UTF-8 text (file, line and byte are named), or the archive is damaged.
    """
    with open_decompressed(path) as file:
        offset = begin
        if begin:  # skip the rest of the line that contains byte begin - 1
            file.seek(begin - 1)
            offset -= 1
            while data := file.readline(CHUNK_BYTES):
                offset += len(data)
                if data.endswith(b"\n"):
                    break
        while data := file.readline(MAX_LINE_BYTES):
            yield offset, decode_line(data, path, offset).strip()
            offset += len(data)


@contextlib.contextmanager
def open_decompressed(path: str) -> Iterator[IO[bytes]]:
    """Opens a file and decompresses it. Errors of opening or decompressing become InputErrors."""
    suffix = compression(path)
    with open_bytes(path) as raw:
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


def line_number(path: str, offset: int) -> int:
    """Returns the number, from 1, of the line that contains byte `offset` of the decompressed file.

    Reads everything before that byte, so it is for error messages only.
    """
    number = 1
    with open_decompressed(path) as file:
        while offset > 0 and (data := file.read(min(CHUNK_BYTES, offset))):
            number += data.count(b"\n")
            offset -= len(data)
    return number


def decode_line(data: bytes, path: str, offset: int) -> str:
    """Returns the text of a line that begins at byte `offset` of a file. Raises InputError if it is not UTF-8."""
    if len(data) == MAX_LINE_BYTES and not data.endswith(b"\n"):
        where = f"{path}, line {line_number(path, offset)}"
        limit = f"longer than {MAX_LINE_BYTES >> 20} MiB"
        raise InputError(f"corpus: {where}: {limit}; put one sentence, paragraph or record on each line")
    if b"\0" in data:
        where = f"{path}, line {line_number(path, offset)}, byte {offset + data.index(0)}"
        raise InputError(f"corpus: {where}: zero byte, so this is not UTF-8 text; convert or remove the file")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        where = f"{path}, line {line_number(path, offset)}, byte {offset + error.start}"
        advice = "convert the file (iconv -t UTF-8)"
        raise InputError(f"corpus: {where}: 0x{data[error.start]:02x} is not UTF-8; {advice}") from error
    return text.removeprefix("\ufeff") if offset == 0 else text

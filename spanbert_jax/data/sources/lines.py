"""Lines of a text file, plain or packed (.gz, .bz2, .xz, .zst), from any byte on; and the words for what is wrong in one."""

import bz2
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath

from spanbert_jax.data.sources.paths import open_bytes
from spanbert_jax.errors import InputError

MAX_LINE_BYTES = (
    1 << 24
)  # a longer line is taken for a mistake: a whole corpus on one line would have to be held in memory
CHUNK = 1 << 20


def open_zst(raw):
    """A .zst file, unpacked: pyarrow's reader, unlike others, says so when the file is cut short. Raises InputError without pyarrow."""
    try:
        import pyarrow
    except ImportError as error:
        raise InputError("corpus: reading .zst needs pyarrow; pip install 'spanbert_jax[prepare]'") from error
    return io.BufferedReader(pyarrow.CompressedInputStream(raw, "zstd"), CHUNK)


PACKED = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": open_zst}


def packing(path: str) -> str:
    """Suffix of a packed file (".gz"), "" of a plain one."""
    suffix = PurePosixPath(path).suffix
    return suffix if suffix in PACKED else ""


def lines(path: str, begin: int = 0) -> Iterator[tuple[int, str]]:
    """(byte at which it begins, stripped text) of each line that begins at byte `begin` of the unpacked file, or after it.

    Raises InputError with file, line and byte where the file is not UTF-8 text, and for a damaged archive.
    """
    with readable(path) as file:
        address = begin
        if begin:
            file.seek(begin - 1)
            address -= 1
            while data := file.readline(CHUNK):  # to the end of the line in which byte begin - 1 lies
                address += len(data)
                if data.endswith(b"\n"):
                    break
        while data := file.readline(MAX_LINE_BYTES):
            yield address, decode_line(data, path, address).strip()
            address += len(data)


@contextlib.contextmanager
def readable(path: str):
    """The file's bytes, unpacked; what goes wrong in opening or unpacking becomes an InputError."""
    suffix = packing(path)
    with open_bytes(path) as raw:
        if not suffix:
            yield raw
            return
        try:
            with PACKED[suffix](raw) as file:
                yield file
        except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
            if getattr(error, "errno", None):  # of the disk, not of the archive
                raise
            raise InputError(
                f"corpus: {path} is a damaged {suffix} archive ({error}); get it again or remove it"
            ) from error


def line_number(path: str, address: int) -> int:
    """Number, from 1, of the line in which byte `address` of the unpacked file lies. Reads all before it: only for messages."""
    number = 1
    with readable(path) as file:
        while address > 0 and (data := file.read(min(CHUNK, address))):
            number += data.count(b"\n")
            address -= len(data)
    return number


def decode_line(data: bytes, path: str, address: int) -> str:
    """Text of a line that begins `address` bytes into the (unpacked) file. Raises InputError for what is not UTF-8 text."""
    if len(data) == MAX_LINE_BYTES and not data.endswith(b"\n"):
        where = f"{path}, line {line_number(path, address)}"
        raise InputError(
            f"corpus: {where}: longer than {MAX_LINE_BYTES >> 20} MiB; put a sentence, paragraph or record on each line"
        )
    if b"\0" in data:
        where = f"{path}, line {line_number(path, address)}, byte {address + data.index(0)}"
        raise InputError(f"corpus: {where}: zero, so this is not UTF-8 text; convert or remove it")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        where = f"{path}, line {line_number(path, address)}, byte {address + error.start}"
        raise InputError(
            f"corpus: {where}: 0x{data[error.start]:02x} is not UTF-8; convert the file (iconv -t UTF-8)"
        ) from error
    return text.removeprefix("\ufeff") if address == 0 else text

"""Text to documents: the embedded corpus, or files with a sentence or paragraph a line and a blank line between documents.

Files are read line by line (.gz and .xz unpacked on the way), so memory is bounded by the largest document. Whatever is wrong with a file
is said with its name, line and byte.
"""

import contextlib
import glob
import gzip
import hashlib
import importlib.resources
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path

from spanbert_jax.errors import InputError

EMBEDDED = "embedded"
SPLITS = ("train", "valid")
MAX_LINE_BYTES = 1 << 24  # a longer line is taken for a mistake: a whole corpus on one line would have to be held in memory
OPENERS = {".gz": gzip.open, ".xz": lzma.open}


def read_documents(source: str, split: str, valid_fraction: float) -> Iterator[list[str]]:
    """Documents of a split ("train" or "valid"), each a non-empty list of stripped, non-empty lines.

    `source` is "embedded" (which has a split of its own) or paths and globs separated by commas. There, a document is held out when a
    hash of its text falls below `valid_fraction`: the choice depends on nothing but the text. Raises InputError when no file matches, a
    file is empty, binary, damaged or not UTF-8, and when a split that should have documents gets none.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is not one of {SPLITS}")
    if source == EMBEDDED:
        path = importlib.resources.files("spanbert_jax.data").joinpath("assets", "corpus", f"{split}.txt.xz")
        return file_documents(path, str(path))
    paths = find_files(source)
    return split_documents(paths, source, split, valid_fraction)


def find_files(source: str) -> list[Path]:
    """Files that the comma-separated paths and globs of `source` name, each once, a glob's in sorted order; InputError for none."""
    patterns = [pattern.strip() for pattern in source.split(",") if pattern.strip()]
    if not patterns:
        raise InputError("corpus: data.source is empty; give 'embedded', or paths or globs of text files separated by commas")
    found = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            raise InputError(f"corpus: {pattern} is a folder; name the files in it, as in {path / '*.txt'}")
        matches = [pattern] if path.exists() else sorted(glob.glob(pattern, recursive=True))
        files = [Path(match) for match in matches if not Path(match).is_dir()]
        if not files:
            raise InputError(f"corpus: no file matches {pattern}; give 'embedded', or paths or globs of text files separated by commas")
        found |= dict.fromkeys(files)
    return list(found)


def split_documents(paths: list[Path], source: str, split: str, valid_fraction: float) -> Iterator[list[str]]:
    """Documents of the files that belong to the split. Raises InputError when there are some but none for a split that is wanted."""
    seen = given = 0
    for path in paths:
        for document in file_documents(path, str(path)):
            seen += 1
            if is_held_out(document, valid_fraction) == (split == "valid"):
                given += 1
                yield document
    wanted = split == "train" or valid_fraction > 0
    if wanted and not given:
        change = "raise data.valid_fraction, or set it to 0 to hold none out" if split == "valid" else "lower data.valid_fraction"
        raise InputError(
            f"corpus: none of the {seen} documents of {source} fell into the {split} split (data.valid_fraction={valid_fraction}); {change}"
            " (documents are separated by blank lines)"
        )


def is_held_out(document: list[str], valid_fraction: float) -> bool:
    """Whether the document belongs to the validation split: a function of its text alone, so equal documents stay together."""
    digest = hashlib.blake2b("\n".join(document).encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < valid_fraction * 2**64


def file_documents(path, name: str) -> Iterator[list[str]]:
    """All documents of one file; its end ends the last one. Raises InputError, naming the file, when there is none."""
    document = []
    empty = True
    for line in file_lines(path, name):
        if line:
            document.append(line)
            empty = False
        elif document:
            yield document
            document = []
    if document:
        yield document
    if empty:
        raise InputError(f"corpus: {name} holds no text; remove it from data.source")


def file_lines(path, name: str) -> Iterator[str]:
    """Stripped lines of one file. Raises InputError with file, line and byte where it is not UTF-8 text, and for a damaged archive."""
    with readable(path, name) as file:
        number, address = 0, 0
        while data := file.readline(MAX_LINE_BYTES):
            number += 1
            yield decode_line(data, name, number, address).strip()
            address += len(data)


@contextlib.contextmanager
def readable(path, name: str):
    """The file's bytes, unpacked; what goes wrong in opening or unpacking becomes an InputError."""
    opener = OPENERS.get(Path(name).suffix, lambda raw: contextlib.nullcontext(raw))
    try:
        with path.open("rb") as raw, opener(raw) as file:
            yield file
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise InputError(f"corpus: {name} is a damaged {Path(name).suffix} archive ({error}); get it again or remove it") from error
    except OSError as error:
        raise InputError(f"corpus: cannot read {name} ({error.strerror or error})") from error


def decode_line(data: bytes, name: str, number: int, address: int) -> str:
    """Text of a line that begins `address` bytes into the (unpacked) file. Raises InputError for what is not UTF-8 text."""
    if len(data) == MAX_LINE_BYTES and not data.endswith(b"\n"):
        raise InputError(f"corpus: {name}, line {number}: longer than {MAX_LINE_BYTES >> 20} MiB; put a sentence or paragraph on each line")
    if b"\0" in data:
        at = data.index(b"\0")
        raise InputError(f"corpus: {name}, line {number}, byte {address + at}: zero, so this is not UTF-8 text; convert or remove it")
    try:
        return data.decode("utf-8-sig" if address == 0 else "utf-8")
    except UnicodeDecodeError as error:
        at = address + error.start + (3 if address == 0 and data.startswith(b"\xef\xbb\xbf") else 0)
        raise InputError(
            f"corpus: {name}, line {number}, byte {at}: 0x{data[at - address]:02x} is not UTF-8; convert the file (iconv -t UTF-8)"
        ) from error

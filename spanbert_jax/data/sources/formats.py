"""Formats of files, and which of them a file has: by its suffix, checked by a look at its first bytes."""

import codecs
import concurrent.futures
import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence

from spanbert_jax.data.sources import json_array, jsonl, parquet, text, wiki
from spanbert_jax.data.sources.compression import num_byte_offsets, open_decompressed, split_suffix
from spanbert_jax.data.sources.problems import Report
from spanbert_jax.data.sources.units import Document
from spanbert_jax.errors import InputError

AUTO, TEXT = "auto", "text"
HEAD_BYTES = 1 << 12
BLOCK_BYTES = 1 << 16  # of a remote file, read for its head
LOOKS_AT_ONCE = 16  # most of the time of a look at a remote file is spent waiting
NAMES_SHOWN = 3
MAX_ZEROS = 0.05  # share of zero bytes in a head from which it is binary data, not text with a bad byte


@dataclasses.dataclass(frozen=True)
class Format:
    """How the files of one format are known, divided into ranges and read.

    Attributes:
      num_offsets: (path, bytes) -> number of offsets at which a range of the file may begin; 1 if it cannot be divided.
      documents: (path, begin, end, field, report) -> documents of the range begin..end of offsets; `end` None: the end
        of the file. `report` is called with each problem (see problems.py).
      offsets: what the offsets count, for messages.
      suffixes: of files, in small letters.
    """

    num_offsets: Callable[[str, int], int]
    documents: Callable[[str, int, int | None, str, Report], Iterator[Document]]
    offsets: str = "bytes"
    suffixes: tuple[str, ...] = ()


def undivided(path: str, size: int) -> int:
    """Returns 1, the number of offsets of a file that is read as a whole."""
    return 1


FORMATS = {
    "jsonl": Format(num_byte_offsets, jsonl.documents, suffixes=(".jsonl", ".ndjson", ".json")),
    "json": Format(undivided, json_array.documents),
    "parquet": Format(parquet.num_row_groups, parquet.documents, "row groups", (".parquet",)),
    "wiki": Format(num_byte_offsets, wiki.documents),
}
TEXT_FORMATS = {  # of the format "text", by what a document is
    "blank": Format(num_byte_offsets, text.documents_between_blank_lines),
    "line": Format(num_byte_offsets, text.documents_per_line),
    "file": Format(undivided, text.document_per_file),
}


@dataclasses.dataclass(frozen=True)
class NotText:
    """Why a file cannot be read as it is: what it is, and what to do."""

    reason: str
    format: str = TEXT  # that it may have all the same

    @property
    def advice(self) -> str:
        """The reason, and that the user can name the format."""
        condition = "if it is plain text all the same, " if self.format == TEXT else ""
        return f"{self.reason}; {condition}give its format, {self.format}"


# What files with these suffixes are, and what to do: they are never plain text.
NOT_TEXT = {
    "a table; write its column of text to JSON Lines or Parquet": ".csv .tsv .xls .xlsx .ods",
    "an archive; unpack it": ".zip .tar .tgz .tbz .tbz2 .txz .7z .rar",
    "compressed in an unknown way; decompress it, or use .gz, .bz2, .xz or .zst": ".z .lz .lz4 .lzma .lzo .br .sz",
    "a formatted document; extract its text": ".pdf .ps .djvu .doc .docx .odt .rtf .epub .mobi .ppt .pptx",
    "markup; extract its text (of a dump of Wikipedia, with WikiExtractor)": ".html .htm .xhtml .xml .sgml .warc",
    "an image, sound or film; leave it out": ".png .jpg .jpeg .gif .bmp .tif .tiff .webp .svg .ico .mp3 .wav .flac "
    ".ogg .mp4 .avi .mkv .mov",
    "binary data; write its text to JSON Lines, Parquet or plain text": ".bin .npy .npz .pt .pth .ckpt .safetensors "
    ".h5 .hdf5 .pkl .pickle .arrow .feather .avro .orc .tfrecord .tfrecords .array_record .msgpack .mat .db .sqlite "
    ".pyc .so .exe",
}
SUFFIXES = {suffix: NotText(reason) for reason, suffixes in NOT_TEXT.items() for suffix in suffixes.split()}

# How a file begins that is not plain text.
BEGINNINGS = [
    (re.compile(beginning, re.IGNORECASE), not_text)
    for beginning, not_text in (
        (rb'\{\s*"(?:[^"\\]|\\.)*"\s*:', NotText("JSON Lines, not plain text", "jsonl")),
        (rb'\[\s*\{\s*"', NotText("a JSON array, not plain text", "json")),
        (rb"<doc id=", NotText("output of WikiExtractor, not plain text", "wiki")),
        (rb"PAR1", NotText("Parquet, not plain text", "parquet")),
        (rb"<\?xml|<!doctype|<html", NotText("markup; extract its text")),
        (rb"%PDF", NotText("a PDF; extract its text")),
        (rb"PK\x03\x04", NotText("a ZIP archive; unpack it")),
        (
            rb"\x1f\x8b|BZh\d1AY|\xfd7zXZ|\x28\xb5\x2f\xfd",
            NotText("compressed; add .gz, .bz2, .xz or .zst to its name"),
        ),
        (rb"\xff\xfe|\xfe\xff", NotText("UTF-16; convert it (iconv -f UTF-16 -t UTF-8)")),
    )
]


def format_names() -> tuple[str, ...]:
    """Returns the names that a user can give."""
    return AUTO, TEXT, *FORMATS


def named(name: str) -> Format:
    """Returns the format with a name that `formats_of` returns."""
    return FORMATS[name] if name in FORMATS else TEXT_FORMATS[name]


def formats_of(paths: Sequence[str], format: str, documents: str) -> list[str]:
    """Returns the name of each file's format: a key of FORMATS or TEXT_FORMATS.

    Args:
      paths: the files.
      format: of `format_names`; "auto": that of each file's suffix, which its first bytes must not contradict.
      documents: a key of TEXT_FORMATS: that of plain text.

    Raises:
      InputError: files cannot be read, or have no format that is known; all of them are named.
    """
    if format != AUTO:
        return [documents if format == TEXT else format] * len(paths)

    def look(path: str) -> str | NotText | InputError:
        try:
            return format_of(path, documents)
        except InputError as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(LOOKS_AT_ONCE) as pool:
        looks = list(pool.map(look, paths))
    if errors := dict.fromkeys(str(found) for found in looks if isinstance(found, InputError)):
        raise InputError("\n".join(errors))
    refused: dict[NotText, list[str]] = {}
    for path, found in zip(paths, looks, strict=True):
        if isinstance(found, NotText):
            refused.setdefault(found, []).append(path)
    if refused:
        lines = (f"corpus: {listed(paths)}: {found.advice}" for found, paths in refused.items())
        raise InputError("\n".join(lines), "format")
    return [found for found in looks if isinstance(found, str)]


def listed(paths: list[str]) -> str:
    """Returns the first of some paths, and the number of the others."""
    more = f" and {len(paths) - NAMES_SHOWN} more" if len(paths) > NAMES_SHOWN else ""
    return ", ".join(paths[:NAMES_SHOWN]) + more


def format_of(path: str, documents: str) -> str | NotText:
    """Returns the name of a file's format by its suffix and first bytes. Raises InputError if it cannot be read."""
    suffix, _ = split_suffix(path)
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    name = next((name for name, format in FORMATS.items() if suffix in format.suffixes), TEXT)
    if name == "jsonl":
        return format_of_json(head(path))
    if name != TEXT:
        return name
    beginning = head(path)
    for pattern, not_text in BEGINNINGS:
        if pattern.match(beginning):
            return not_text
    if beginning.count(0) > MAX_ZEROS * len(beginning):
        return NotText("binary data; leave it out")
    return documents


def format_of_json(beginning: bytes) -> str | NotText:
    """Returns the name of the format of a file whose suffix says JSON."""
    if re.match(rb"\[\s*(\{|\]|$)", beginning):
        return "json"
    if re.match(rb"\{[ \t\r]*\n", beginning):
        return NotText("a record over several lines; put one record on each line (jq -c .)")
    return "jsonl"


def head(path: str) -> bytes:
    """Returns the first bytes of a decompressed file, without a byte order mark and blanks before its text."""
    with open_decompressed(path, BLOCK_BYTES) as file:
        return file.read(HEAD_BYTES).removeprefix(codecs.BOM_UTF8).lstrip()

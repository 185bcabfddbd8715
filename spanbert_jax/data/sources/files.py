"""File sources: small files are grouped into units, large files are divided into ranges."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from spanbert_jax.data.sources import jsonl, parquet, text
from spanbert_jax.data.sources.lines import compression, num_byte_offsets
from spanbert_jax.data.sources.paths import find_files, size_and_stamp
from spanbert_jax.data.sources.units import Document, digest, even_ranges, group, unit_size
from spanbert_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Format:
    """How the files of one format are divided into ranges and read.

    Attributes:
      num_offsets: (path, bytes) -> number of offsets at which a range of the file may begin; 1 if it cannot be divided.
      documents: (path, begin, end, field) -> documents of the range begin..end of offsets; `end` None: end of the file.
      offsets: what the offsets count, for messages.
    """

    num_offsets: Callable[[str, int], int]
    documents: Callable[[str, int, int | None, str], Iterator[Document]]
    offsets: str


JSONL = Format(num_byte_offsets, jsonl.documents, "bytes")
FORMATS = {  # by file suffix
    ".jsonl": JSONL,
    ".ndjson": JSONL,
    ".parquet": Format(parquet.num_row_groups, parquet.documents, "row groups"),
}
TEXT_FORMATS = {  # of all other files, by what a document is
    "blank": Format(num_byte_offsets, text.documents_between_blank_lines, "bytes"),
    "line": Format(num_byte_offsets, text.documents_per_line, "bytes"),
    "file": Format(lambda path, size: 1, text.document_per_file, "bytes"),
}


def format_of(path: str, documents: str) -> Format:
    """Returns the format of a file by its suffix, ignoring that of a compression: "a.jsonl.gz" is JSON Lines.

    `documents`, a key of TEXT_FORMATS, selects the format of plain text.
    """
    suffix = PurePosixPath(path.removesuffix(compression(path))).suffix
    return FORMATS.get(suffix, TEXT_FORMATS[documents])


@dataclasses.dataclass(frozen=True)
class Span:
    """A file, or a range of its offsets. The names of this class and its fields enter fingerprints: see `digest`."""

    path: str
    begin: int
    end: int | None  # None: the end of the file
    size: int  # bytes
    stamp: str  # changes when the file is written again
    text: str  # a key of TEXT_FORMATS

    @property
    def whole(self) -> bool:
        """Whether this is the whole file."""
        return self.begin == 0 and self.end is None

    @property
    def format(self) -> Format:
        """The format of the file."""
        return format_of(self.path, self.text)

    def documents(self, field: str) -> Iterator[Document]:
        """Yields the documents. Raises InputError if they cannot be read, or if a whole file has none."""
        empty = True
        for document in self.format.documents(self.path, self.begin, self.end, field):
            empty = False
            yield document
        if empty and self.whole:
            raise InputError(f"corpus: {self.path} has no text; remove it from the input")


@dataclasses.dataclass(frozen=True)
class FileUnit:
    """Neighbouring files, or ranges of files."""

    spans: tuple[Span, ...]
    field: str  # of JSON Lines and Parquet
    held_out = None

    @property
    def name(self) -> str:
        """See `Unit`."""
        first, last = self.spans[0], self.spans[-1]
        name = first.path if first.whole else f"{first.path} {first.format.offsets} {first.begin}-{first.end}"
        return f"{name} to {last.path} ({len(self.spans)} parts)" if len(self.spans) > 1 else name

    @property
    def size(self) -> int:
        """See `Unit`."""
        return sum(span.size for span in self.spans)

    @property
    def fingerprint(self) -> str:
        """See `Unit`."""
        return digest(self)

    def documents(self) -> Iterator[Document]:
        """See `Unit`."""
        for span in self.spans:
            yield from span.documents(self.field)


def file_units(source: str, field: str, documents: str) -> list[FileUnit]:
    """Returns the units of comma-separated paths and globs; the arguments are those of `find_units`.

    Raises:
      InputError: no file is found, a file is empty, or a Parquet file is unreadable.
    """
    found = [(path, *size_and_stamp(path)) for path in find_files(source)]
    for path, size, _ in found:
        if not size:
            raise InputError(f"corpus: {path} is empty; remove it from the input")
    target = unit_size(sum(size for _, size, _ in found))
    spans = [span for path, size, stamp in found for span in file_spans(path, size, stamp, documents, target)]
    return [FileUnit(neighbours, field) for neighbours in group(spans, target)]


def file_spans(path: str, size: int, stamp: str, documents: str, target: int) -> list[Span]:
    """Returns even ranges of at most about `target` bytes, or the whole file if it is small or cannot be divided."""
    count = -(-size // target)
    ranges = even_ranges(format_of(path, documents).num_offsets(path, size), count) if count > 1 else []
    if len(ranges) < 2:
        return [Span(path, 0, None, size, stamp, documents)]
    return [Span(path, begin, end, size // len(ranges), stamp, documents) for begin, end in ranges]

"""Files as units: small ones together, large ones in ranges."""

import dataclasses
from collections.abc import Iterator
from pathlib import PurePosixPath

from spanbert_jax.data.sources import jsonl, parquet, text, text_files, text_lines
from spanbert_jax.data.sources.lines import packing
from spanbert_jax.data.sources.paths import find_files, size_and_stamp
from spanbert_jax.data.sources.units import Document, cut, digest, pack, unit_size
from spanbert_jax.errors import InputError

# A format is a module with steps(path, size): in how many places a file may be cut, and documents(path, begin, end, field): those of a
# range of these steps.
FORMATS = {".jsonl": jsonl, ".ndjson": jsonl, ".parquet": parquet}
TEXTS = {
    "blank": text,
    "line": text_lines,
    "file": text_files,
}  # all other files are plain text: what ends a document there


def format_of(path: str, documents: str):
    """The module that reads a file, by its suffix under that of a packed one: "a.jsonl.gz" is JSON Lines. `documents`: of TEXTS."""
    suffixes = PurePosixPath(path.removesuffix(packing(path))).suffix
    return FORMATS.get(suffixes, TEXTS[documents])


@dataclasses.dataclass(frozen=True)
class Span:
    """A file or a range of its steps; `stamp` tells one writing of the file from the next."""

    path: str
    begin: int
    end: int | None  # None: to the end of the file
    size: int  # bytes
    stamp: str
    text: str  # of TEXTS

    @property
    def whole(self) -> bool:
        """Whether it is all of the file."""
        return self.begin == 0 and self.end is None

    @property
    def format(self):
        """The module that reads it."""
        return format_of(self.path, self.text)

    def documents(self, field: str) -> Iterator[Document]:
        """As of a unit. Raises InputError also when a whole file has none."""
        empty = True
        for document in self.format.documents(self.path, self.begin, self.end, field):
            empty = False
            yield document
        if empty and self.whole:
            raise InputError(f"corpus: {self.path} holds no text; remove it from data.source")


@dataclasses.dataclass(frozen=True)
class FileUnit:
    """Neighbouring files or ranges of files."""

    spans: tuple[Span, ...]
    field: str  # of JSON Lines and Parquet
    held_out = None

    @property
    def name(self) -> str:
        """As of `Unit`."""
        first = self.spans[0]
        steps = "row groups" if first.format is parquet else "bytes"
        what = first.path if first.whole else f"{first.path} {steps} {first.begin}-{first.end}"
        return f"{what} to {self.spans[-1].path} ({len(self.spans)} parts)" if len(self.spans) > 1 else what

    @property
    def size(self) -> int:
        """As of `Unit`."""
        return sum(span.size for span in self.spans)

    @property
    def fingerprint(self) -> str:
        """As of `Unit`."""
        return digest(self)

    def documents(self) -> Iterator[Document]:
        """As of `Unit`."""
        for span in self.spans:
            yield from span.documents(self.field)


def file_units(source: str, field: str, documents: str) -> list[FileUnit]:
    """Units of comma-separated paths and globs; see find_units. Raises InputError when there is none, for an empty file and an unreadable Parquet file."""
    found = [(path, *size_and_stamp(path)) for path in find_files(source)]
    for path, size, _ in found:
        if not size:
            raise InputError(f"corpus: {path} is empty; remove it from data.source")
    target = unit_size(sum(size for _, size, _ in found))
    spans = [span for path, size, stamp in found for span in file_spans(path, size, stamp, documents, target)]
    return [FileUnit(run, field) for run in pack(spans, target)]


def file_spans(path: str, size: int, stamp: str, documents: str, target: int) -> list[Span]:
    """The file, cut into even ranges of at most about `target` bytes where it can be."""
    parts = -(-size // target)
    ranges = cut(format_of(path, documents).steps(path, size), parts) if parts > 1 else []
    if len(ranges) < 2:
        return [Span(path, 0, None, size, stamp, documents)]
    return [Span(path, begin, end, size // len(ranges), stamp, documents) for begin, end in ranges]

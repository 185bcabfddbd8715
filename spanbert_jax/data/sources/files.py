"""File sources: small files are grouped into units, large files are divided into ranges."""

import dataclasses
from collections.abc import Iterator

from spanbert_jax.data.sources.formats import Format, formats_of, named
from spanbert_jax.data.sources.paths import find_files, size_and_stamp
from spanbert_jax.data.sources.problems import HARMLESS, Problem, Report, refuse
from spanbert_jax.data.sources.units import Document, digest, even_ranges, group, unit_size


@dataclasses.dataclass(frozen=True)
class Span:
    """A file, or a range of its offsets. The names of this class and its fields enter fingerprints: see `digest`."""

    path: str
    begin: int
    end: int | None  # None: the end of the file
    size: int  # bytes
    stamp: str  # changes when the file is written again
    format_name: str

    @property
    def whole(self) -> bool:
        """Whether this is the whole file."""
        return self.begin == 0 and self.end is None

    @property
    def format(self) -> Format:
        """The format of the file."""
        return named(self.format_name)

    def documents(self, field: str, report: Report) -> Iterator[Document]:
        """Yields the documents. Problems are reported; that a whole file has no text is one, unless it has others."""
        found = False

        def report_and_note(problem: Problem) -> None:
            nonlocal found
            found = found or problem.kind != HARMLESS
            report(problem)

        for document in self.format.documents(self.path, self.begin, self.end, field, report_and_note):
            found = True
            yield document
        if self.whole and not found:
            report(
                Problem(
                    "empty",
                    self.path,
                    None,
                    "it has no text" if self.size else "it is empty",
                    "remove it from the input",
                )
            )


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

    def documents(self, report: Report = refuse) -> Iterator[Document]:
        """See `Unit`."""
        for span in self.spans:
            yield from span.documents(self.field, report)


def file_units(source: str, field: str, documents: str, format: str) -> list[FileUnit]:
    """Returns the units of comma-separated paths and globs; the arguments are those of `find_units`.

    Raises:
      InputError: no file is found, files cannot be read, or their format is not known.
    """
    paths = find_files(source)
    formats = formats_of(paths, format, documents)
    files = [Span(path, 0, None, *size_and_stamp(path), name) for path, name in zip(paths, formats, strict=True)]
    target = unit_size(sum(file.size for file in files))
    spans = (span for file in files for span in divided(file, target))
    return [FileUnit(neighbours, field) for neighbours in group(spans, target)]


def divided(file: Span, target: int) -> list[Span]:
    """Returns even ranges of at most about `target` bytes, or the whole file if it is small or cannot be divided."""
    count = -(-file.size // target)
    ranges = even_ranges(file.format.num_offsets(file.path, file.size), count) if count > 1 else []
    if len(ranges) < 2:
        return [file]
    size = file.size // len(ranges)
    return [dataclasses.replace(file, begin=begin, end=end, size=size) for begin, end in ranges]

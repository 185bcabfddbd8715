"""Units: tokens of a source that are read apart, each by one worker, alone and in order.

How a source is cut follows from the source alone (paths, sizes, order), never from who reads it: so shards that are made unit by unit are
the same whatever the number of workers.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Protocol

Document = list[str]  # its stripped, non-empty lines; at least one

MOST_UNITS = 256  # about so many in a large source: enough to keep many cores busy to the end
SMALLEST, LARGEST = 4 << 20, 1 << 30  # bytes of a unit, as they lie on disk


class Unit(Protocol):
    """A part of a source. Units are frozen dataclasses: equal by content, and they go through pickle."""

    @property
    def name(self) -> str:
        """What is read, for a person: "novels/emma.txt bytes 0-4194304"."""

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) over all that decides what is read, as far as it can be told without reading: it changes when a file does."""

    @property
    def size(self) -> int:
        """About how many bytes are read (packed ones, of an archive)."""

    @property
    def held_out(self) -> bool | None:
        """Whether its documents are validation text, in a source that has its own such part; None in one that has not."""

    def documents(self) -> Iterator[Document]:
        """The documents, in their order in the source; memory is bounded by the largest. Raises InputError where one cannot be read."""


def unit_size(total: int) -> int:
    """Bytes that a unit of a source of `total` bytes should have."""
    return min(max(total // MOST_UNITS, SMALLEST), LARGEST)


def cut(length: int, parts: int) -> list[tuple[int, int]]:
    """(begin, end) of `parts` even ranges of `length` steps, none of them empty: fewer where there are fewer steps."""
    parts = max(min(parts, length), 1)
    edges = [length * i // parts for i in range(parts + 1)]
    return list(zip(edges[:-1], edges[1:], strict=True))


def pack(spans: Iterable, target: int) -> Iterator[tuple]:
    """Runs of neighbouring spans whose .size adds up to at most `target`; a larger span stands alone."""
    run, size = [], 0
    for span in spans:
        if run and size + span.size > target:
            yield tuple(run)
            run, size = [], 0
        run.append(span)
        size += span.size
    if run:
        yield tuple(run)


def digest(unit) -> str:
    """sha256 (hex) of a dataclass's fields."""
    return hashlib.sha256(repr(unit).encode("utf-8", "surrogateescape")).hexdigest()


def text_lines(text: str) -> Document:
    """Stripped, non-empty lines of a text that is a whole document; [] of a blank one."""
    return [line for part in text.split("\n") if (line := part.strip())]

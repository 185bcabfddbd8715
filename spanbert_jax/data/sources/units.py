"""Units: the items of work that a source is divided into. One worker reads a unit, alone and in order.

How a source is divided depends on the source alone (paths, sizes, order), never on who reads it. Shards that are
written unit by unit are therefore the same for any number of workers.
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from spanbert_jax.data.sources.problems import Report, refuse

Document = list[str]  # stripped, non-empty lines; at least one

TARGET_UNITS = 256  # approximate number of units of a large source: enough to keep many cores busy until the end
MIN_UNIT_BYTES, MAX_UNIT_BYTES = 4 << 20, 1 << 30  # size on disk


class Unit(Protocol):
    """A unit of a source. Units are frozen dataclasses: they compare by content and can be pickled."""

    @property
    def name(self) -> str:
        """A readable name of what is read: "novels/emma.txt bytes 0-4194304"."""

    @property
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of what decides the text and is known without reading; it changes when a file changes."""

    @property
    def size(self) -> int:
        """Approximate number of bytes read (compressed bytes of a compressed file)."""

    @property
    def held_out(self) -> bool | None:
        """Whether the documents belong to the split "valid", for a source with splits of its own; else None."""

    def documents(self, report: Report = refuse) -> Iterator[Document]:
        """Yields the documents in the order of the source; the largest document bounds the memory.

        Args:
          report: is called with each problem; the document or file that has it is skipped if that returns.

        Raises:
          InputError: a file cannot be read.
        """


class _Sized(Protocol):
    @property
    def size(self) -> int: ...


SizedT = TypeVar("SizedT", bound=_Sized)


def unit_size(total: int) -> int:
    """Returns the target size of a unit, in bytes, for a source of `total` bytes."""
    return min(max(total // TARGET_UNITS, MIN_UNIT_BYTES), MAX_UNIT_BYTES)


def even_ranges(length: int, count: int) -> list[tuple[int, int]]:
    """Returns (begin, end) of `count` even, non-empty ranges that cover 0..length; at most `length` of them."""
    count = max(min(count, length), 1)
    edges = [length * i // count for i in range(count + 1)]
    return list(itertools.pairwise(edges))


def group(items: Iterable[SizedT], target: int) -> Iterator[tuple[SizedT, ...]]:
    """Yields groups of neighbouring items whose sizes sum to at most `target`; a larger item forms its own group."""
    members: list[SizedT] = []
    size = 0
    for item in items:
        if members and size + item.size > target:
            yield tuple(members)
            members, size = [], 0
        members.append(item)
        size += item.size
    if members:
        yield tuple(members)


def digest(unit: object) -> str:
    """Returns the hexadecimal SHA-256 of a dataclass's name and fields, as `repr` writes them.

    Renaming a class or field of a unit changes its fingerprint: a preparation begun before that cannot be continued.
    """
    return hashlib.sha256(repr(unit).encode("utf-8", "surrogateescape")).hexdigest()


def document_lines(text: str) -> Document:
    """Returns the stripped, non-empty lines of a text that is one document; [] for a blank text."""
    stripped = (line.strip() for line in text.split("\n"))
    return [line for line in stripped if line]

"""What a source has in place of text, such as a bad byte or an empty file: it is skipped and counted, or refused.

Readers report each problem to a function, and go on if that returns: `Skipped` counts them, `refuse` raises.
"""

import dataclasses
from collections.abc import Callable, Iterable

from spanbert_jax.data.sources.compression import CHUNK_BYTES, open_decompressed
from spanbert_jax.errors import InputError

# Kind of a problem -> what is skipped for it, one and many.
KINDS = {
    "blank": ("record with null or blank text", "records with null or blank text"),
    "empty": ("file without text", "files without text"),
    "encoding": ("document that is not UTF-8", "documents that are not UTF-8"),
    "field": ("record without the field of the text", "records without the field of the text"),
    "long": ("document with too long a line", "documents with too long a line"),
    "record": ("broken record", "broken records"),
}
HARMLESS = "blank"  # not refused: a record may have nothing to say
PLACES = 3  # of each kind that are named


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something in a source that is no text.

    Attributes:
      kind: a key of KINDS.
      where: the file, and the record in it where records are numbered.
      offset: of the decompressed file: the byte at which the problem, or the line with it, begins; None: no such byte.
      what: what is wrong.
      advice: what to do.
      setting: see InputError.
    """

    kind: str
    where: str
    offset: int | None
    what: str
    advice: str
    setting: str = ""

    def message(self) -> str:
        """Returns "file, line 3: what is wrong"; to count the lines, the file is read again."""
        return message(self.where, self.offset, self.what)


Report = Callable[[Problem], None]


def refuse(problem: Problem) -> None:
    """Raises the InputError of a problem, unless it is harmless."""
    if problem.kind != HARMLESS:
        raise InputError(f"corpus: {problem.message()}; {problem.advice}", problem.setting)


class Skipped:
    """Counts problems by kind, and keeps the first of each; raises the first that is not harmless if it is strict.

    Attributes:
      counts: number of problems by kind.
      first: at most PLACES problems of each kind.
    """

    def __init__(self, strict: bool = False):
        self.strict = strict
        self.counts: dict[str, int] = {}
        self.first: dict[str, list[Problem]] = {}

    def __call__(self, problem: Problem) -> None:
        """Counts a problem."""
        if self.strict:
            refuse(problem)
        self.counts[problem.kind] = self.counts.get(problem.kind, 0) + 1
        first = self.first.setdefault(problem.kind, [])
        if len(first) < PLACES:
            first.append(problem)

    def to_json(self) -> dict:
        """Returns {kind: {"count": number, "first": [[where, offset, what], ...]}}. No line is counted for it."""
        return {
            kind: {
                "count": count,
                "first": [[problem.where, problem.offset, problem.what] for problem in self.first[kind]],
            }
            for kind, count in self.counts.items()
        }


def summed(parts: Iterable[dict]) -> dict:
    """Returns what all parts skipped: {kind: {"count": number, "first": [message, ...]}} in the order of KINDS.

    Args:
      parts: of a source, in order, as `Skipped.to_json` returns them.
    """
    counts = dict.fromkeys(KINDS, 0)
    first: dict[str, list] = {kind: [] for kind in KINDS}
    for part in parts:
        for kind, entry in part.items():
            counts[kind] += entry["count"]
            first[kind] += entry["first"]
    return {
        kind: {"count": counts[kind], "first": [message(*place) for place in first[kind][:PLACES]]}
        for kind in KINDS
        if counts[kind]
    }


def skipped_lines(total: dict) -> list[str]:
    """Returns a line for people on each kind that `summed` counts."""
    lines = []
    for kind, entry in total.items():
        one, many = KINDS[kind]
        count, places = entry["count"], entry["first"]
        more = f"; and {count - len(places):,} more" if count > len(places) else ""
        lines.append(f"skipped {count:,} {one if count == 1 else many}: {'; '.join(places)}{more}")
    return lines


def message(where: str, offset: int | None, what: str) -> str:
    """Returns "where, line N: what", without the line if there is no offset. The file is read up to the offset."""
    line = "" if offset is None else f", line {line_number(where, offset)}"
    return f"{where}{line}: {what}"


def line_number(path: str, offset: int) -> int:
    """Returns the number, from 1, of the line that contains byte `offset` of the decompressed file."""
    number = 1
    with open_decompressed(path) as file:
        while offset > 0 and (data := file.read(min(CHUNK_BYTES, offset))):
            number += data.count(b"\n")
            offset -= len(data)
    return number

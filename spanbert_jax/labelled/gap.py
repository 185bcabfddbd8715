"""GAP: a pronoun and two names in a text, each of which it may stand for (Webster et al., TACL 2018)."""

import dataclasses

from spanbert_jax.labelled.files import Paths, find_files, reported_together, text_lines

COLUMNS = ("ID", "Text", "Pronoun", "Pronoun-offset", "A", "A-offset", "A-coref", "B", "B-offset", "B-coref")
TRUTH = {"TRUE": True, "FALSE": False}
Place = tuple[str, int]  # text and its first character


@dataclasses.dataclass(frozen=True)
class Gap:
    """An example: the pronoun and the names with their first characters, and whether the pronoun stands for each."""

    id: str
    text: str
    pronoun: Place
    a: Place
    b: Place
    is_a: bool
    is_b: bool


def read_gap(path: Paths) -> list[Gap]:
    """Returns the examples of GAP's TSV files, with or without the header.

    Raises:
      InputError: files are missing or malformed, or a name does not stand at its offset.
    """
    found: list[Gap] = []
    with reported_together() as problems:
        for file in find_files(path):
            before = len(found)
            for number, line in text_lines(file, problems):
                cells = line.split("\t")
                if not line.strip() or cells[0] == COLUMNS[0]:
                    continue
                gap = _gap(cells)
                if isinstance(gap, Gap):
                    found.append(gap)
                else:
                    problems.add(f"{file}, line {number}", gap, "get GAP's files again")
            if len(found) == before and not problems.lines:
                problems.add(file, "it has no examples", "remove it from the input")
    return found


def _gap(cells: list[str]) -> Gap | str:
    """Returns the example of a line, or what is wrong with it."""
    if len(cells) < len(COLUMNS):
        return f"{len(cells)} columns, not {', '.join(COLUMNS)} (and URL)"
    row = dict(zip(COLUMNS, cells))
    names = ("Pronoun", "A", "B")
    if wrong := [f"{name}-offset" for name in names if not row[f"{name}-offset"].isdecimal()]:
        return f"{wrong[0]} {row[wrong[0]]!r} is no number"
    if wrong := [f"{name}-coref" for name in names[1:] if row[f"{name}-coref"].upper() not in TRUTH]:
        return f"{wrong[0]} {row[wrong[0]]!r} is not TRUE or FALSE"
    places = [(row[name], int(row[f"{name}-offset"])) for name in names]
    texts = [row["Text"]]
    if row["Text"].startswith('"') and row["Text"].endswith('"'):  # written with quotes by some programs
        texts.append(row["Text"][1:-1].replace('""', '"'))
    for text in texts:
        if all(text.startswith(*place) for place in places):
            is_a, is_b = (TRUTH[row[f"{name}-coref"].upper()] for name in names[1:])
            return Gap(row["ID"], text, places[0], places[1], places[2], is_a, is_b)
    wrong = [f"{name!r} does not stand at {start}" for name, start in places if not texts[0].startswith(name, start)]
    return f"{' and '.join(wrong)} of its text"

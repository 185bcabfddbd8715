"""Tables of one or two texts and a label a row: TSV, CSV, JSON Lines and Parquet, and files of one label each.

GLUE has the layouts of the files that gluebenchmark.com gives (Wang et al., ICLR 2019).
"""

import csv
import dataclasses
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from spanbert_jax.data.sources.compression import DECOMPRESSORS, open_decompressed, split_suffix
from spanbert_jax.errors import InputError
from spanbert_jax.labelled.files import (
    Paths,
    Problems,
    errors_of_examples,
    find_files,
    records,
    reported_together,
    text_lines,
)

Column = str | int  # its name, or its position from 0 (or from -1, the last, backwards)
# What the column of labels is called, in small letters: a first line that has it is a header.
NAMES_OF_LABELS = ("label", "labels", "gold_label", "class", "category", "target", "score", "sentiment", "quality")


@dataclasses.dataclass(frozen=True)
class Row:
    """One or two texts, and their label: a string, a number (regression), or None where the file has none."""

    id: str
    texts: tuple[str, ...]
    label: str | float | None


@dataclasses.dataclass(frozen=True)
class Table:
    """Where texts and labels stand in a table: see `read_table`."""

    text: tuple[Column, ...]
    label: Column | None
    header: bool | Literal["auto"] = "auto"
    labels_are_numbers: bool = False
    quoting: bool | None = None  # None: in CSV, not in TSV

    @property
    def columns(self) -> list[Column]:
        """All columns that are read."""
        return [*self.text, *([] if self.label is None else [self.label])]


def read_table(
    path: Paths,
    text: Sequence[Column] = ("text",),
    label: Column | None = "label",
    header: bool | Literal["auto"] = "auto",
    labels_are_numbers: bool = False,
    quoting: bool | None = None,
    skipped: list[str] | None = None,
    filled: bool = False,
) -> list[Row]:
    """Returns the rows of files, in order, numbered from 0 through all files.

    The suffix decides on the format: .tsv (also .txt and what else has tabs), .csv, .jsonl or .json, .parquet.

    Args:
      path: of the files.
      text: one or two columns.
      label: the column of labels; None: there are none.
      header: whether the first line of TSV or CSV names the columns. "auto": it does when columns are named here, or
        when the column of labels begins with one of NAMES_OF_LABELS, or with no number where labels are numbers.
      labels_are_numbers: for regression.
      quoting: whether fields of TSV or CSV may be in double quotes. None: those of CSV.
      skipped: gets a message for each line with more or fewer columns than the first, which is then left out; None:
        such lines are refused.
      filled: whether blank texts are refused.

    Raises:
      InputError: files are missing or malformed, or lack a column.
    """
    table = Table(tuple(text), label, header, labels_are_numbers, quoting)
    if len(table.text) not in (1, 2):
        raise InputError(f"examples: {len(table.text)} columns of text; give one or two")
    rows: list[Row] = []
    with reported_together() as problems:
        for file in find_files(path):
            before = len(rows)
            is_records = split_suffix(file)[0] in (".jsonl", ".ndjson", ".json", ".parquet")
            found = _from_records(file, table, problems) if is_records else _from_lines(file, table, problems, skipped)
            for where, values in found:
                value = None if table.label is None else _label(values[-1], table, where, problems)
                if blank := [column for column, cell in zip(table.text, values) if filled and not str(cell).strip()]:
                    problems.add(where, f"column {blank[0]!r} is empty", "correct or remove it")
                rows.append(Row(str(len(rows)), tuple(map(str, values[: len(table.text)])), value))
            if len(rows) == before and not problems.lines:
                problems.add(file, "it has no rows", "remove it from the input")
    return rows


def _label(value: Any, table: Table, where: str, problems: Problems) -> str | float | None:
    if not table.labels_are_numbers:
        if value == "":
            problems.add(where, "the label is empty", "give it one; read test data with no column of labels")
        return str(value)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        problems.add(where, f"label {value!r} is not a finite number", "correct it, or read the labels as names")
    return number


def _from_records(file: str, table: Table, problems: Problems) -> Iterator[tuple[str, list[Any]]]:
    """Yields (where it stands, values of the columns) of the records of a file."""
    if positions := [column for column in table.columns if not isinstance(column, str)]:
        raise InputError(f"{file}: its records have names, not positions such as {positions[0]}; name the columns")
    for where, record in records(file, problems):
        missing = [f"'{column}'" for column in table.columns if record.get(str(column)) is None]
        if missing:
            problems.add(where, f"no field {', '.join(missing)} (it has {_named(record)})", "name other columns")
            continue
        values = [record[str(column)] for column in table.columns]
        wrong = [column for column, value in zip(table.text, values) if not isinstance(value, str)]
        if wrong:
            problems.add(where, f"field '{wrong[0]}' is no text", "name the column of the text")
            continue
        yield where, values


def _from_lines(
    file: str, table: Table, problems: Problems, skipped: list[str] | None
) -> Iterator[tuple[str, list[str]]]:
    """Yields (where it stands, values of the columns) of the lines of TSV or CSV."""
    lines = _cells(file, table, problems)
    first_where, first = next(lines, ("", []))
    if not first:
        return
    if _has_header(first, table):
        places = [_place(column, first, f"{first_where}: no column", problems) for column in table.columns]
    else:
        if names := [column for column in table.columns if isinstance(column, str)]:
            raise InputError(f"{file}: without a header, '{names[0]}' names no column; give positions from 0")
        lines = itertools.chain([(first_where, first)], lines)
        places = [_place(column, first, f"{first_where}: no column", problems) for column in table.columns]
    if problems.lines:
        return
    for where, cells in lines:
        if len(cells) == len(first):
            yield where, [cells[place] for place in places]
        elif skipped is not None:
            skipped.append(f"{where}: {len(cells)} columns, not {len(first)} as in the first")
        else:
            problems.add(where, f"{len(cells)} columns, not {len(first)} as in the first", "correct or remove it")


def _has_header(first: list[str], table: Table) -> bool:
    if table.header != "auto":
        return table.header
    if any(isinstance(column, str) for column in table.columns):
        return True
    if not isinstance(table.label, int) or not -len(first) <= table.label < len(first):
        return False
    cell = first[table.label].strip().lower()
    if not table.labels_are_numbers:
        return cell in NAMES_OF_LABELS
    try:
        float(cell)
    except ValueError:
        return True
    return False


def _place(column: Column, first: list[str], what: str, problems: Problems) -> int:
    """Returns the position of a column, by a header or the first line; 0 after a problem."""
    if isinstance(column, int) and -len(first) <= column < len(first):
        return column
    if isinstance(column, str) and first.count(column) == 1:
        return first.index(column)
    where, _, what = what.partition(": ")
    known = _named(first) if isinstance(column, str) else f"{len(first)} columns"
    problems.add(where, f"{what} {column!r} (it has {known})", "give the name or position of one")
    return 0


def _named(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in itertools.islice(names, 20)) or "none"


def _cells(file: str, table: Table, problems: Problems) -> Iterator[tuple[str, list[str]]]:
    """Yields (where it stands, cells) of the lines of TSV or CSV that are not blank."""
    is_csv = split_suffix(file)[0] == ".csv"
    quoting = is_csv if table.quoting is None else table.quoting
    delimiter = "," if is_csv else "\t"
    lines = text_lines(file, problems)
    if not quoting:
        yield from ((f"{file}, line {number}", line.split(delimiter)) for number, line in lines if line.strip())
        return
    reader = csv.reader((line + "\n" for _, line in lines), delimiter=delimiter, strict=True)
    begin = 1
    while True:
        where = f"{file}, line {begin}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            problems.add(where, f"its quotes are wrong ({error})", "double the quotes within a field")
            return
        if cells is None:
            return
        begin = reader.line_num + 1
        if any(cells):
            yield where, cells


def read_label_files(paths: Paths) -> tuple[list[Row], list[str]]:
    """Returns the rows of files with one text a line and one label each, and notes for people.

    The label is the suffix, as in rt-polarity.pos and rt-polarity.neg, or the name where all files have one suffix
    (pos.txt, neg.txt). Blank lines are left out. A file that is not UTF-8 is read as Latin-1, and noted.

    Raises:
      InputError: files are missing, empty, or have one label between them.
    """
    files = find_files(paths)
    names = {file: PurePosixPath(file) for file in files}
    names = {file: name.with_suffix("") if name.suffix in DECOMPRESSORS else name for file, name in names.items()}
    same = len({name.suffix for name in names.values()}) == 1
    labels = {file: name.stem if same else name.suffix.removeprefix(".") for file, name in names.items()}
    if len(set(labels.values())) < 2 or not all(labels.values()):
        known = ", ".join(sorted(set(labels.values())))
        raise InputError(
            f"{', '.join(files)}: the labels are {known!r}; give a file for each label, as in x.pos, x.neg"
        )
    rows, notes = [], []
    for file in files:
        with errors_of_examples(), open_decompressed(file) as opened:
            data = opened.read()
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            notes.append(f"{file}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8; it is read as Latin-1")
            text = data.decode("latin-1")
        found = [
            Row(f"{Path(file).name}:{number}", (line.strip(),), labels[file])
            for number, line in enumerate(text.split("\n"), 1)
            if line.strip()
        ]
        if not found:
            raise InputError(f"{file}: it has no text; remove it, or give a file with one text a line")
        rows += found
    return rows, notes


SPLITS = ("train", "dev", "test")


@dataclasses.dataclass(frozen=True)
class Task:
    """The layout of a task's files, which are TSV without quoting.

    Attributes:
      text: columns of the texts.
      label: column of the label.
      labels: all of them, in the order of class numbers; () for regression.
      header: whether train and dev have one; test always has.
      test_text: columns of the texts in test, where they differ.
      matched: whether dev and test are in two files, of genres of train ("matched") and of others ("mismatched").
      broken_lines: whether some lines of the official files are broken: they are left out, as everywhere.
    """

    text: tuple[Column, ...]
    label: Column
    labels: tuple[str, ...]
    header: bool = True
    test_text: tuple[Column, ...] = ()
    matched: bool = False
    broken_lines: bool = False

    @property
    def regression(self) -> bool:
        """Whether labels are numbers."""
        return not self.labels

    def file(self, split: str) -> str:
        """Returns the name of a split's file; the split may also be "dev_mismatched" or "test_mismatched"."""
        return f"{split}_matched.tsv" if self.matched and split in ("dev", "test") else f"{split}.tsv"


PAIR = ("sentence1", "sentence2")
YES_NO = ("0", "1")
ENTAILMENT = ("entailment", "not_entailment")
GLUE = {
    "cola": Task((3,), 1, YES_NO, header=False, test_text=("sentence",)),
    "sst2": Task(("sentence",), "label", YES_NO),
    "mrpc": Task(("#1 String", "#2 String"), "Quality", YES_NO),
    "stsb": Task(PAIR, "score", ()),
    "qqp": Task(("question1", "question2"), "is_duplicate", YES_NO, broken_lines=True),
    "mnli": Task(PAIR, "gold_label", ("contradiction", "entailment", "neutral"), matched=True),
    "qnli": Task(("question", "sentence"), "label", ENTAILMENT),
    "rte": Task(PAIR, "label", ENTAILMENT),
    "wnli": Task(PAIR, "label", YES_NO),
}


def read_glue(name: str, folder: str | Path, split: str) -> tuple[list[Row], list[str]]:
    """Returns the rows of a split ("train", "dev", "test"; of MNLI also "dev_mismatched"), and notes for people.

    Args:
      name: a key of GLUE.
      folder: of the task's files, such as CoLA/.
      split: "test" has no labels.

    Raises:
      InputError: the task is unknown, a file is missing or malformed, or has a label that is not the task's.
    """
    if name not in GLUE:
        raise InputError(f"GLUE has no task '{name}'; give one of {', '.join(GLUE)}")
    task = GLUE[name]
    known = (*SPLITS, *(f"{split}_mismatched" for split in SPLITS[1:] if task.matched))
    if split not in known:
        raise InputError(f"{name} has no split '{split}'; give one of {', '.join(known)}")
    file = str(Path(folder) / task.file(split))
    is_test = split.startswith("test")
    skipped: list[str] = []
    rows = read_table(
        file,
        task.test_text or task.text if is_test else task.text,
        None if is_test else task.label,
        header=task.header or is_test,
        labels_are_numbers=task.regression,
        quoting=False,
        skipped=skipped if task.broken_lines else None,
    )
    if not is_test and not task.regression:
        unknown = sorted({str(row.label) for row in rows} - set(task.labels))
        if unknown:
            raise InputError(f"{file}: labels {', '.join(unknown)} are none of {', '.join(task.labels)}; get it again")
    notes = [f"{file}: {len(skipped):,} broken lines are left out: {skipped[0]}"] if skipped else []
    return rows, notes

"""Finding and opening files of examples, and reporting all that is wrong in them together."""

import contextlib
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from spanbert_jax.data.sources import json_array, parquet
from spanbert_jax.data.sources.compression import open_decompressed, split_suffix
from spanbert_jax.data.sources.paths import identity, is_remote, local_files, remote_files
from spanbert_jax.data.sources.records import is_unicode
from spanbert_jax.errors import InputError

MAX_PROBLEMS = 10  # of those that are named together
NOT_UNICODE = "has bytes that are not UTF-8, or half of a surrogate pair"
Paths = str | Path | Iterable[str | Path]


class Problems:
    """What is wrong in files: collected, so that a user sees it all at once."""

    def __init__(self):
        self.lines: list[str] = []

    def add(self, where: str, what: str, advice: str) -> None:
        """Notes that something is wrong. Raises InputError, with all that was noted, when that is enough."""
        if len(self.lines) == MAX_PROBLEMS:
            raise InputError("\n".join([*self.lines, f"{where}: more is wrong from here on; correct the above first"]))
        self.lines.append(f"{where}: {what}; {advice}")

    def refuse(self) -> None:
        """Raises InputError if anything was noted."""
        if self.lines:
            raise InputError("\n".join(self.lines))


@contextlib.contextmanager
def reported_together() -> Iterator[Problems]:
    """Collects problems within the block, and raises an InputError at its end if there are any."""
    problems = Problems()
    yield problems
    problems.refuse()


@contextlib.contextmanager
def errors_of_examples() -> Iterator[None]:
    """Errors of the readers of a corpus name it as what cannot be read; here it is a file of examples."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error).replace("corpus: ", "examples: ", 1), error.setting) from error


def find_files(paths: Paths, in_folders: tuple[str, ...] = ()) -> list[str]:
    """Returns the files that paths and globs name, each once; a string may have several, separated by commas.

    Args:
      paths: local or remote (gs://) names.
      in_folders: globs of the files that are meant when a local folder is named; none: a folder is refused.

    Raises:
      InputError: a name has no file.
    """
    names = [paths] if isinstance(paths, str | Path) else paths
    patterns = [part.strip() for name in names for part in str(name).split(",") if part.strip()]
    found: dict[str, str] = {}  # identity -> as it was named first
    if not patterns:
        raise InputError("examples: no file is named; give paths or globs of files, separated by commas")
    for pattern in patterns:
        with errors_of_examples():
            if in_folders and Path(pattern).is_dir():
                matches = sorted({str(path) for glob in in_folders for path in Path(pattern).rglob(glob)})
            else:
                matches = remote_files(pattern) if is_remote(pattern) else local_files(pattern)
        if not matches:
            raise InputError(f"examples: no file matches {pattern}; give paths or globs of files, separated by commas")
        for match in matches:
            found.setdefault(identity(match), match)
    return list(found.values())


def text_lines(path: str, problems: Problems) -> Iterator[tuple[int, str]]:
    """Yields (number from 1, text without its line break) of each line of a file, which may be compressed.

    A line that is not UTF-8 is a problem. Raises InputError if the file cannot be read.
    """
    with errors_of_examples(), open_decompressed(path) as file:
        for number, data in enumerate(file, 1):
            try:
                text = data.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                what = f"byte {error.start + 1} of the line is 0x{data[error.start]:02x}, not UTF-8"
                problems.add(f"{path}, line {number}", what, "convert the file (iconv -t UTF-8)")
                continue
            if "\0" in text:
                problems.add(f"{path}, line {number}", "it has a zero byte, so this is not UTF-8 text", "convert it")
                continue
            yield number, text


def first_line(path: str) -> str:
    """Returns the first line that is not blank, stripped; "" for none. Bad bytes do not matter here."""
    with errors_of_examples(), open_decompressed(path) as file:
        for data in file:
            if text := data.decode("utf-8", "replace").removeprefix("\ufeff").strip():
                return text
    return ""


def read_json(path: str) -> Any:
    """Returns the value of a JSON file. Raises InputError, with the line, if it is none."""
    with errors_of_examples(), open_decompressed(path) as file:
        data = file.read()
    try:
        return json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = f"byte 0x{data[error.start]:02x} is not UTF-8"
        raise InputError(f"{path}, line {line}: {what}; convert the file (iconv -t UTF-8)") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: not JSON ({error.msg}); get the file again") from error
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets within brackets
        raise InputError(f"{path}: JSON that cannot be read ({error}); get the file again") from error


def records(path: str, problems: Problems) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (where it stands, record) of JSON Lines, of a JSON array or of Parquet; what is no record is a problem.

    Raises InputError if the file cannot be read.
    """
    for where, record in _values(path, problems):
        if not isinstance(record, dict):
            problems.add(where, f"{type(record).__name__}, not a record as in {{...}}", "correct or remove it")
        elif not _is_unicode(record):
            problems.add(where, f"the record {NOT_UNICODE}", "write it again as UTF-8")
        else:
            yield where, record


def _values(path: str, problems: Problems) -> Iterator[tuple[str, Any]]:
    if split_suffix(path)[0] == ".parquet":
        with errors_of_examples(), parquet.open_table(path) as table:
            numbers = itertools.count(1)
            for batch in table.iter_batches(parquet.ROWS_PER_READ, use_threads=False):
                yield from ((f"{path}, row {next(numbers)}", record) for record in batch.to_pylist())
    elif first_line(path).startswith("["):
        with errors_of_examples():
            for number, record in enumerate(json_array.records(path), 1):
                yield f"{path}, record {number}", record
    else:
        for number, line in text_lines(path, problems):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                problems.add(f"{path}, line {number}", f"not JSON ({error})", "put one record, {...}, on each line")
                continue
            yield f"{path}, line {number}", record


def _is_unicode(value: Any) -> bool:
    """Returns whether all text within a value of JSON can be encoded: see `is_unicode`."""
    if isinstance(value, str):
        return value.isascii() or is_unicode(value)
    if isinstance(value, dict):
        return all(map(_is_unicode, value.values()))
    return not isinstance(value, list) or all(map(_is_unicode, value))


class Fields:
    """The fields of a record, of which those that are missing or of another type are problems.

    Attributes:
      wrong: whether a problem was found, so that the record cannot be used.
    """

    def __init__(self, record: Any, where: str, problems: Problems):
        self.record, self.where, self.problems, self.wrong = record, where, problems, False
        if not isinstance(record, dict):
            self.record = {}
            self.problem(f"{type(record).__name__}, not a record as in {{...}}", "correct or remove it")

    def problem(self, what: str, advice: str) -> None:
        """Notes that something is wrong with the record."""
        self.wrong = True
        self.problems.add(self.where, what, advice)

    def get(self, name: str, kind: type, default: Any = None) -> Any:
        """Returns a field; if it is missing (or null) or of another type, `default`, which None makes a problem."""
        value = self.record.get(name)
        if value is None and default is not None:
            return default
        if self.wrong and not self.record:
            return kind()
        if value is None:
            known = ", ".join(f"'{key}'" for key in list(self.record)[:20]) or "none at all"
            self.problem(f"no field '{name}' (it has {known})", f"give it one of type {kind.__name__}")
            return kind()
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self.problem(f"field '{name}' is {type(value).__name__}, not {kind.__name__}", "correct it")
            return kind()
        if not _is_unicode(value):
            self.problem(f"field '{name}' {NOT_UNICODE}", "correct it")
            return kind()
        return value

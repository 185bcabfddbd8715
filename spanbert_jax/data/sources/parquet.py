"""Parquet: one record per row; one column has the text of the documents."""

import contextlib
from collections.abc import Iterator
from typing import Any

from spanbert_jax.data.sources.paths import open_bytes
from spanbert_jax.data.sources.problems import Problem, Report
from spanbert_jax.data.sources.records import document_of_text
from spanbert_jax.data.sources.units import Document
from spanbert_jax.errors import InputError

ROWS_PER_READ = 256  # documents in memory


def num_row_groups(path: str, size: int) -> int:
    """Returns the number of row groups of a file; `size` is not used. Raises InputError if it is not Parquet."""
    with open_table(path) as table:
        return table.num_row_groups


def documents(path: str, begin: int, end: int | None, field: str, report: Report) -> Iterator[Document]:
    """Yields the documents of a range of row groups; a row without one is reported, as is a file without the column.

    Raises:
      InputError: the file is damaged.
    """
    with open_table(path) as table:
        if problem := column_problem(table.schema_arrow, path, field):
            if begin == 0:  # once for a file
                report(problem)
            return
        groups = range(begin, table.num_row_groups if end is None else end)
        number = sum(table.metadata.row_group(group).num_rows for group in range(begin))
        for batch in table.iter_batches(ROWS_PER_READ, row_groups=groups, columns=[field], use_threads=False):
            for value in batch.column(0):
                number += 1
                document = document_of_value(value, field, f"{path}, row {number}")
                if isinstance(document, Problem):
                    report(document)
                else:
                    yield document


def document_of_value(value: Any, field: str, where: str) -> Document | Problem:
    """Returns the document in a value of pyarrow, or the problem that there is none."""
    try:
        text = value.as_py()
    except UnicodeDecodeError as error:
        what = f"field '{field}' has a byte 0x{error.object[error.start]:02x}, which is not UTF-8"
        return Problem("encoding", where, None, what, "write the file again")
    return document_of_text(text, field, where, None)


@contextlib.contextmanager
def open_table(path: str) -> Iterator[Any]:
    """Opens a pyarrow.parquet.ParquetFile. Errors of reading it become InputErrors."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError("corpus: reading Parquet needs pyarrow; pip install 'spanbert_jax[prepare]'") from error
    with open_bytes(path) as file:
        try:
            with pyarrow.parquet.ParquetFile(file) as table:
                yield table
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            if getattr(error, "errno", None):  # an error of the disk, not of the file
                raise
            message = " ".join(str(error).split())[:200]
            advice = "get it again or remove it"
            raise InputError(f"corpus: {path} is no readable Parquet file ({message}); {advice}") from error


def column_problem(schema: Any, path: str, field: str) -> Problem | None:
    """Returns the problem, with the columns of text, that `field` is none of them in a pyarrow schema."""
    types = dict(zip(schema.names, schema.types, strict=True))
    text_columns = [name for name, kind in types.items() if is_text(kind)]
    if field in text_columns:
        return None
    what = f"column '{field}' is {types[field]}, not text" if field in types else f"no column '{field}'"
    known = ", ".join(f"'{name}'" for name in text_columns) or "none"
    return Problem(
        "field", path, None, f"{what} (its columns of text: {known})", "name the column of the text", "field"
    )


def is_text(kind: Any) -> bool:
    """Returns whether a pyarrow type is text, possibly dictionary-encoded, or that of a column with nulls only."""
    from pyarrow import types

    value = kind.value_type if types.is_dictionary(kind) else kind
    return any(test(value) for test in (types.is_string, types.is_large_string, types.is_string_view, types.is_null))

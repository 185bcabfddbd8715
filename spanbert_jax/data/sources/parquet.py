"""Parquet: one record per row; one column has the text of the documents."""

import contextlib
from collections.abc import Iterator
from typing import Any

from spanbert_jax.data.sources.paths import open_bytes
from spanbert_jax.data.sources.units import Document, document_lines
from spanbert_jax.errors import InputError

ROWS_PER_READ = 256  # documents in memory


def num_row_groups(path: str, size: int) -> int:
    """Returns the number of row groups of a file; `size` is not used. Raises InputError if it is not Parquet."""
    with open_table(path) as table:
        return table.num_row_groups


def documents(path: str, begin: int, end: int | None, field: str) -> Iterator[Document]:
    """Yields the documents of a range of row groups; a row with null or blank text yields none.

    Raises:
      InputError: the file is damaged, or has no column of text `field` (the message lists those it has).
    """
    with open_table(path) as table:
        check_column(table.schema_arrow, path, field)
        groups = range(begin, table.num_row_groups if end is None else end)
        for batch in table.iter_batches(ROWS_PER_READ, row_groups=groups, columns=[field], use_threads=False):
            for text in batch.column(0):
                if document := document_lines(text.as_py() or ""):
                    yield document


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


def check_column(schema, path: str, field: str) -> None:
    """Raises InputError, listing the columns of text, unless `field` is one of a pyarrow schema."""
    types = dict(zip(schema.names, schema.types, strict=True))
    text_columns = [name for name, kind in types.items() if is_text(kind)]
    if field not in text_columns:
        problem = f"column '{field}' is {types[field]}, not text" if field in types else f"no column '{field}'"
        known = ", ".join(f"'{name}'" for name in text_columns) or "none"
        raise InputError(f"corpus: {path}: {problem}; name one of its columns of text (--field): {known}")


def is_text(kind) -> bool:
    """Returns whether a pyarrow type is text, possibly dictionary-encoded."""
    from pyarrow import types

    value = kind.value_type if types.is_dictionary(kind) else kind
    return types.is_string(value) or types.is_large_string(value) or types.is_string_view(value)

"""Parquet: a record a row, one column the text of a document."""

import contextlib
from collections.abc import Iterator

from spanbert_jax.data.sources.paths import open_bytes
from spanbert_jax.data.sources.units import Document, text_lines
from spanbert_jax.errors import InputError

ROWS_AT_ONCE = 256  # documents held in memory


def steps(path: str, size: int) -> int:
    """Steps of the file: its row groups. Raises InputError for what is not a Parquet file."""
    with table(path) as file:
        return file.num_row_groups


def documents(path: str, begin: int, end: int | None, field: str) -> Iterator[Document]:
    """Documents of a range of row groups; null or a row without text gives none.

    Raises InputError for a damaged file, and with the columns there are for one without `field`.
    """
    with table(path) as file:
        check_column(file.schema_arrow, path, field)
        groups = range(begin, file.num_row_groups if end is None else end)
        for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=groups, columns=[field], use_threads=False):
            for text in batch.column(0):
                if document := text_lines(text.as_py() or ""):
                    yield document


@contextlib.contextmanager
def table(path: str):
    """The open file; what goes wrong in reading it becomes an InputError."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError("corpus: reading Parquet needs pyarrow; pip install 'spanbert_jax[prepare]'") from error
    with open_bytes(path) as raw:
        try:
            with pyarrow.parquet.ParquetFile(raw) as file:
                yield file
        except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
            if getattr(error, "errno", None):  # of the disk, not of the file
                raise
            said = " ".join(str(error).split())[:200]
            raise InputError(
                f"corpus: {path} is no readable Parquet file ({said}); get it again or remove it"
            ) from error


def check_column(schema, path: str, field: str) -> None:
    """Raises InputError, with the columns there are, unless `field` is a column of text."""
    import pyarrow

    kinds = pyarrow.types
    types = dict(zip(schema.names, schema.types, strict=True))
    values = {name: kind.value_type if kinds.is_dictionary(kind) else kind for name, kind in types.items()}
    is_text = {
        name: kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind)
        for name, kind in values.items()
    }
    if not is_text.get(field):
        problem = f"column '{field}' is {types[field]}, not text" if field in types else f"no column '{field}'"
        known = ", ".join(f"'{name}'" for name, text in is_text.items() if text) or "none"
        raise InputError(f"corpus: {path}: {problem}; name one of its columns of text in data.field: {known}")

"""JSON Lines: one record per line; one field of a record is the text of a document."""

import json
from collections.abc import Iterator

from spanbert_jax.data.sources.lines import line_number, lines
from spanbert_jax.data.sources.units import Document, document_lines
from spanbert_jax.errors import InputError


def documents(path: str, begin: int, end: int | None, field: str) -> Iterator[Document]:
    """Yields the documents of the records that begin in a range of bytes; a record with null or blank text yields none.

    Raises:
      InputError: as `lines`; or a record, named by file and line, is not JSON or does not have the field.
    """
    for offset, line in lines(path, begin):
        if end is not None and offset >= end:
            return
        if line and (document := document_lines(record_text(line, path, offset, field))):
            yield document


def record_text(line: str, path: str, offset: int, field: str) -> str:
    """Returns the text in a record's field, "" for null. The record begins at byte `offset`.

    Raises:
      InputError: the line is not a record with text in that field.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        where = f"{path}, line {line_number(path, offset)}"
        advice = f'put one record, as in {{"{field}": "..."}}, on each line'
        raise InputError(f"corpus: {where}: not JSON ({error}); {advice}") from error
    if isinstance(record, dict) and isinstance(text := record.get(field, 0), str | None):
        return replace_surrogates(text or "")
    where = f"{path}, line {line_number(path, offset)}"
    if not isinstance(record, dict):
        raise InputError(f'corpus: {where}: {type(record).__name__}, not a record as in {{"{field}": "..."}}')
    if field in record:
        kind = type(record[field]).__name__
        raise InputError(f"corpus: {where}: field '{field}' is {kind}, not text; name another field (--field)")
    known = ", ".join(f"'{name}'" for name in record) or "none at all"
    raise InputError(f"corpus: {where}: no field '{field}' (it has {known}); name the field with the text (--field)")


def replace_surrogates(text: str) -> str:
    """Returns the text with "?" for each lone surrogate: JSON can encode half of a surrogate pair, UTF-8 cannot."""
    try:
        text.encode("utf-8")
        return text
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode("utf-8")

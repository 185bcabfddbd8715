"""JSON Lines: a record a line, one of its fields the text of a document."""

import json
from collections.abc import Iterator

from spanbert_jax.data.sources.lines import line_number, lines, packing
from spanbert_jax.data.sources.units import Document, text_lines
from spanbert_jax.errors import InputError


def steps(path: str, size: int) -> int:
    """Steps of the file: its bytes, or a single one when it is packed and cannot be cut."""
    return 1 if packing(path) else size


def documents(path: str, begin: int, end: int | None, field: str) -> Iterator[Document]:
    """Documents of the records that begin in a range of bytes; one with null or no text gives none.

    Raises InputError as `lines`, and with file and line where a record is not JSON or has not the field.
    """
    for address, line in lines(path, begin):
        if end is not None and address >= end:
            return
        if line and (document := text_lines(record_text(line, path, address, field))):
            yield document


def record_text(line: str, path: str, address: int, field: str) -> str:
    """The field's text of a record that begins at byte `address`, "" of null. Raises InputError when there is no such text."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        where = f"{path}, line {line_number(path, address)}"
        raise InputError(
            f'corpus: {where}: not JSON ({error}); put one record, as in {{"{field}": "..."}}, on each line'
        ) from error
    if isinstance(record, dict) and isinstance(text := record.get(field, 0), str | None):
        return whole_characters(text or "")
    where = f"{path}, line {line_number(path, address)}"
    if not isinstance(record, dict):
        raise InputError(f'corpus: {where}: {type(record).__name__}, not a record as in {{"{field}": "..."}}')
    if field in record:
        raise InputError(
            f"corpus: {where}: field '{field}' is {type(record[field]).__name__}, not text; name another in data.field"
        )
    known = ", ".join(f"'{name}'" for name in record) or "none at all"
    raise InputError(f"corpus: {where}: no field '{field}' (it has {known}); name the one with the text in data.field")


def whole_characters(text: str) -> str:
    """The text with a "?" for each half of a character: JSON can say "\\ud83d" alone, UTF-8 cannot."""
    try:
        text.encode("utf-8")
        return text
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode("utf-8")

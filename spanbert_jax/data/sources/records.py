"""Records, of which one field is the text of a document: in JSON Lines, in a JSON array, in Parquet and in TFDS."""

from spanbert_jax.data.sources.problems import Problem
from spanbert_jax.data.sources.units import Document, document_lines

MAX_FIELDS_NAMED = 20


def document_of(record: object, field: str, where: str, offset: int | None) -> Document | Problem:
    """Returns the document in a field of a JSON value, or the problem that there is none.

    Args:
      record: the value.
      field: name of the field.
      where, offset: of the record, as in `Problem`.
    """
    if not isinstance(record, dict):
        what = f'{type(record).__name__}, not a record as in {{"{field}": "..."}}'
        return Problem("record", where, offset, what, "make it a record or remove it")
    if field not in record:
        names = [f"'{name}'" for name in record]
        more = f" and {len(names) - MAX_FIELDS_NAMED} more" if len(names) > MAX_FIELDS_NAMED else ""
        known = ", ".join(names[:MAX_FIELDS_NAMED]) + more or "none at all"
        what, advice = f"no field '{field}' (it has {known})", "name the field with the text"
        return Problem("field", where, offset, what, advice, "field")
    text = record[field]
    if not isinstance(text, str | None):
        what, advice = f"field '{field}' is {type(text).__name__}, not text", "name another field"
        return Problem("field", where, offset, what, advice, "field")
    return document_of_text(text, field, where, offset)


def document_of_text(text: str | None, field: str, where: str, offset: int | None) -> Document | Problem:
    """Returns the document in the text of a field, or the problem that there is none; arguments as in `document_of`."""
    if text and (document := document_lines(text)):
        return document if is_unicode(text) else surrogate_problem(field, where, offset)
    what = f"field '{field}' is {'null' if text is None else 'blank'}"
    return Problem("blank", where, offset, what, "give it text or remove it")


def is_unicode(text: str) -> bool:
    """Returns whether a text has no lone surrogate: JSON can encode half of a surrogate pair, UTF-8 cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def surrogate_problem(field: str, where: str, offset: int | None) -> Problem:
    """Returns the problem of a text with a lone surrogate."""
    what = f"field '{field}' has bytes that are not UTF-8, or half of a surrogate pair"
    return Problem("encoding", where, offset, what, "write the record again as UTF-8")

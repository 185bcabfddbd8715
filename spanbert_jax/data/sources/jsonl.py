"""JSON Lines: one record per line; one field of a record is the text of a document."""

import json
from collections.abc import Iterator

from spanbert_jax.data.sources.lines import lines
from spanbert_jax.data.sources.problems import Problem, Report
from spanbert_jax.data.sources.records import document_of
from spanbert_jax.data.sources.units import Document


def documents(path: str, begin: int, end: int | None, field: str, report: Report) -> Iterator[Document]:
    """Yields the documents of the records that begin in a range of bytes; a line without one is reported.

    Raises InputError as `lines` does.
    """
    for offset, line in lines(path, begin):
        if end is not None and offset >= end:
            return
        if not line:
            continue
        document = line if isinstance(line, Problem) else document_of_line(line, path, offset, field)
        if isinstance(document, Problem):
            report(document)
        else:
            yield document


def document_of_line(line: str, path: str, offset: int, field: str) -> Document | Problem:
    """Returns the document in a line that begins at byte `offset`, or the problem that there is none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        advice = f'put one record, as in {{"{field}": "..."}}, on each line'
        return Problem("record", path, offset, f"not JSON ({error})", advice)
    return document_of(record, field, path, offset)

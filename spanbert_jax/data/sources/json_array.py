"""A JSON array of records, read in chunks: the largest record bounds the memory, not the file."""

import codecs
import json
import re
from collections.abc import Iterator

from spanbert_jax.data.sources.compression import CHUNK_BYTES, open_decompressed
from spanbert_jax.data.sources.lines import MAX_LINE_BYTES
from spanbert_jax.data.sources.problems import Problem, Report
from spanbert_jax.data.sources.records import document_of
from spanbert_jax.data.sources.units import Document
from spanbert_jax.errors import InputError

BEGIN = re.compile(r"\s*\[\s*")
NEXT = re.compile(r"\s*([,\]])\s*")


def documents(path: str, begin: int, end: int | None, field: str, report: Report) -> Iterator[Document]:
    """Yields the documents of the records of a file; a record without one is reported. The range is not used.

    Raises:
      InputError: the file cannot be read, or from some record on it is no JSON array.
    """
    for number, record in enumerate(records(path), 1):
        document = document_of(record, field, f"{path}, record {number}", None)
        if isinstance(document, Problem):
            report(document)
        else:
            yield document


def records(path: str) -> Iterator[object]:
    """Yields the values of an array. Bytes that are not UTF-8 become lone surrogates, so their record is known.

    Raises:
      InputError: as `documents`.
    """
    decode = json.JSONDecoder().raw_decode
    with open_decompressed(path) as file:
        reader = codecs.getreader("utf-8-sig")(file, "surrogateescape")
        text = reader.read(CHUNK_BYTES)
        if not (opening := BEGIN.match(text)):
            raise InputError(
                f"corpus: {path} does not begin with '[', as a JSON array does; read it as jsonl", "format"
            )
        position, number = opening.end(), 1
        ended = text.startswith("]", position)  # an empty array
        position += ended
        while not ended:
            try:
                value, end = decode(text, position)
                delimiter = NEXT.match(text, end)
                problem = "no comma or bracket after it"
            except (ValueError, RecursionError) as error:
                delimiter, problem = None, str(error)
            if delimiter:
                yield value
                position, number, ended = delimiter.end(), number + 1, delimiter[1] == "]"
                continue
            # The rest of the value is in the next chunk, or it is damaged.
            chunk = reader.read(CHUNK_BYTES) if len(text) - position < MAX_LINE_BYTES else ""
            if not chunk:
                advice = "correct it, or put one record on each line of a .jsonl file"
                raise InputError(f"corpus: {path}, record {number}: not JSON ({problem}); {advice}")
            text, position = (text[position:] + chunk).lstrip(), 0
        if text[position:].strip() or reader.read(CHUNK_BYTES).strip():
            advice = "make one array of it, or put one record on each line of a .jsonl file"
            raise InputError(f"corpus: {path}: there is more after its array; {advice}")

"""Texts with the texts to be made of them: translations, summaries. TSV, CSV, JSON Lines, Parquet and TFDS."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from spanbert_jax.data.sources.compression import split_suffix
from spanbert_jax.errors import InputError
from spanbert_jax.labelled.files import Fields, Paths, Problems, find_files, records, reported_together
from spanbert_jax.labelled.table import Column, read_table
from spanbert_jax.labelled.tfds import read_tfds

RECORDS = (".jsonl", ".ndjson", ".json", ".parquet")


@dataclasses.dataclass(frozen=True)
class SourceText:
    """A text, and what it is to become.

    Attributes:
      id: the field "id" of its record, else its number through all files.
      sentences: of the source, or all of it as one.
      targets: references; () if there are none.
    """

    id: str
    sentences: tuple[str, ...]
    targets: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The whole source."""
        return " ".join(self.sentences)


def read_texts(paths: Paths, source: Column, target: Column | None) -> list[SourceText]:
    """Returns the examples of files, in order. The suffix decides on the format, as for read_table.

    Args:
      paths: of the files.
      source: column of the source. A field of a record may also be a list, its sentences.
      target: column of the target, None: there is none. A field of a record may also be a list, of references.

    Raises:
      InputError: files are missing or malformed, or a field is missing or empty; names file and line.
    """
    examples: list[SourceText] = []
    columns = [source] if target is None else [source, target]
    for file in find_files(paths):
        before = len(examples)
        if split_suffix(file)[0] in RECORDS:
            if numbers := [column for column in columns if isinstance(column, int)]:
                raise InputError(f"{file}: its records have names, not positions such as {numbers[0]}; name the fields")
            with reported_together() as problems:
                _add(examples, records(file, problems), source, target, problems)
        else:
            for row in read_table(file, columns, None, filled=True):
                examples.append(SourceText(str(len(examples)), (row.texts[0],), row.texts[1:]))
        if len(examples) == before:
            raise InputError(f"{file}: it has no examples; remove it from the input")
    return examples


def read_tfds_texts(name: str, split: str, source: Column, target: Column | None) -> list[SourceText]:
    """Returns the examples of a TFDS data set with these fields; see read_texts. Raises InputError."""
    examples: list[SourceText] = []
    with reported_together() as problems:
        numbered = enumerate(read_tfds(name, split))
        _add(examples, ((f"{name}, record {n}", record) for n, record in numbered), source, target, problems)
    return examples


def _add(
    examples: list[SourceText],
    found: Iterable[tuple[str, dict[str, Any]]],
    source: Column,
    target: Column | None,
    problems: Problems,
) -> None:
    """Adds the examples of (where it stands, record)."""
    for where, record in found:
        fields = Fields(record, where, problems)
        sentences = _texts(fields, str(source))
        targets = () if target is None else _texts(fields, str(target))
        if not fields.wrong:
            examples.append(SourceText(str(record.get("id", len(examples))), sentences, targets))


def _texts(fields: Fields, name: str) -> tuple[str, ...]:
    """Returns a field that is a text or a list of texts, none of them blank; what is wrong is noted."""
    value = fields.record.get(name)
    if not isinstance(value, list):
        value = [fields.get(name, str)]
    if not fields.wrong and not (value and all(isinstance(text, str) and text.strip() for text in value)):
        what = (
            "is empty" if not value or all(isinstance(text, str) for text in value) else "is no text or list of texts"
        )
        fields.problem(f"field '{name}' {what}", "correct or remove the record")
    return tuple(value)

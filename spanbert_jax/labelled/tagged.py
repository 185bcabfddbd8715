"""Sentences with typed spans of words, or a label for each word: CoNLL columns, JSON Lines, Parquet, TFDS.

A record has the words under "words" or "tokens", or a running "text"; tags under "tags", "ner_tags" or "ner", one a
word, or "spans", [[type, first word, last word], ...], which may be nested; and "document", if neighbouring records can
be of one.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from spanbert_jax.data.sources.compression import split_suffix
from spanbert_jax.errors import InputError
from spanbert_jax.labelled.conll import IOB2, PLAIN, Sentence, Span, read_conll, scheme_of, to_spans
from spanbert_jax.labelled.files import Fields, Paths, Problems, find_files, records, reported_together
from spanbert_jax.labelled.tfds import PREFIX, name_and_split, read_tfds
from spanbert_jax.labelled.words import word_ranges

WORDS, TAGS = ("words", "tokens"), ("tags", "ner_tags", "ner", "spans")


@dataclasses.dataclass(frozen=True)
class Tagged:
    """A sentence with its spans; where each word has a label, as a part of speech, each is a span (`plain`)."""

    words: tuple[str, ...]
    spans: tuple[Span, ...] | None  # None: unknown
    document: int = 0
    plain: bool = False
    text: str = ""  # of which the words are, if it is known
    ranges: tuple[tuple[int, int], ...] = ()  # of each word: first character in the text, and the one after the last


def read_tagged(source: Paths, words: str = "", tags: str = "") -> list[Tagged]:
    """Returns the sentences of files, or of tfds:NAME/SPLIT, in order; their spans are None where they have no tags.

    Args:
      source: of the files: .jsonl, .json and .parquet have records, all others columns.
      words: name of the field, or number of the column (from 0, or from -1 backwards); "": see above, the first.
      tags: the same; "": see above, the last.

    Raises:
      InputError: files are missing or malformed; names file and line.
    """
    if isinstance(source, str) and source.startswith(PREFIX):
        with reported_together() as problems:
            found = read_tfds(*name_and_split(source))
            return _from_records(
                ((f"{source}, record {n}", record) for n, record in enumerate(found)), words, tags, problems
            )
    files = find_files(source)
    of_records = [split_suffix(file)[0] in (".jsonl", ".ndjson", ".json", ".parquet") for file in files]
    if all(of_records):
        with reported_together() as problems:
            every = itertools.chain.from_iterable(records(file, problems) for file in files)
            return _from_records(every, words, tags, problems)
    if any(of_records):
        raise InputError(f"{', '.join(files)}: some have records and others columns; give files of one kind")
    return _from_sentences(read_conll(files, _column("words", words, 0), _column("tags", tags, -1)))


def _column(name: str, given: str, default: int) -> int:
    if given and not given.lstrip("-").isdigit():
        raise InputError(f"column {given!r} of the {name}: files of columns have no names; give a number from 0")
    return int(given) if given else default


def _from_sentences(sentences: Sequence[Sentence]) -> list[Tagged]:
    """Returns sentences whose tags, of any scheme, are read as spans."""
    scheme = scheme_of(sentences) if any(sentence.tags for sentence in sentences) else IOB2
    return [
        Tagged(words, tuple(to_spans(tags, scheme)) if tags else None, document, bool(tags) and scheme == PLAIN)
        for words, tags, document in ((sentence.words, sentence.tags, sentence.document) for sentence in sentences)
    ]


def tagged_text(text: str, document: int = 0) -> Tagged:
    """Returns a running text as a sentence without tags."""
    ranges = tuple(word_ranges(text))
    return Tagged(tuple(text[first:end] for first, end in ranges), None, document, False, text, ranges)


def _from_records(
    found: Iterable[tuple[str, dict[str, Any]]], words: str, tags: str, problems: Problems
) -> list[Tagged]:
    texts: list[Tagged] = []
    tagged: list[Sentence] = []  # the tags of each of them
    documents: dict[Any, int] = {}
    for number, (where, record) in enumerate(found):
        name = words or next((name for name in WORDS if record.get(name) is not None), WORDS[0])
        document = record.get("document")
        of = documents.setdefault(("alone", number) if document is None else str(document), len(documents))
        if not words and record.get(name) is None and isinstance(record.get("text"), str):
            texts.append(tagged_text(record["text"], of))
            tagged.append(Sentence(texts[-1].words, ()))
            continue
        fields = Fields(record, where, problems)
        sentence = fields.get(name, list)
        if not fields.wrong and not all(isinstance(word, str) and word for word in sentence):
            fields.problem(f"field '{name}' is no list of words", "give each word as a text that is not empty")
        labels = fields.get(tags or next((name for name in TAGS if record.get(name) is not None), TAGS[0]), list, [])
        spans = _spans(labels, len(sentence), fields)
        if not fields.wrong:
            texts.append(Tagged(tuple(sentence), spans, of))
            tagged.append(Sentence(tuple(sentence), () if spans is not None else tuple(labels)))
    if any(sentence.tags for sentence in tagged):
        read = _from_sentences(tagged)
        texts = [
            dataclasses.replace(text, spans=tags.spans, plain=tags.plain) if sentence.tags else text
            for text, tags, sentence in zip(texts, read, tagged)
        ]
    return texts


def _spans(labels: list, length: int, fields: Fields) -> tuple[Span, ...] | None:
    """Returns the spans of a record; None if it has tags, or nothing. Notes what is wrong with either."""
    if fields.wrong:
        return None
    if labels and all(isinstance(label, str) for label in labels):
        if len(labels) != length:
            fields.problem(f"{len(labels)} tags of {length} words", "give one for each")
        return None
    if not labels:
        known = any(fields.record.get(name) is not None for name in ("spans",))
        return () if known or not length else None
    for span in labels:
        if (
            not (isinstance(span, list | tuple) and len(span) == 3 and isinstance(span[0], str))
            or not all(isinstance(end, int) and not isinstance(end, bool) for end in span[1:])
            or not 0 <= span[1] <= span[2] < length
        ):
            what = "a number, not the name of a tag" if isinstance(span, int) else "no span of its words"
            fields.problem(
                f"{span!r} is {what}", "give tags as names, or spans as [type, first word, last word] from 0"
            )
            return None
    return tuple((kind, first, last) for kind, first, last in labels)


def inner_spans(spans: Iterable[Span]) -> set[Span]:
    """Returns the spans that overlap one that begins before them, or with them and is longer: what tags cannot say."""
    inner, end = set(), -1
    for span in sorted(spans, key=lambda span: (span[1], -span[2])):
        if span[1] <= end:
            inner.add(span)
        end = max(end, span[2])
    return inner

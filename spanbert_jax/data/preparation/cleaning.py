"""Cleaning of documents before tokenisation, and selection of held-out ones. Both look at one document at a time."""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Literal, cast

from spanbert_jax.data.preparation.settings import Settings
from spanbert_jax.data.sources import Document, Unit
from spanbert_jax.data.sources.problems import Report

# A word is a sequence of characters other than whitespace. In scripts without spaces between words (kana, Han, Thai,
# Lao, Burmese, Khmer) each character is a word.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
WORD = re.compile(f"[{UNSPACED}]|[^\\s{UNSPACED}]+")

Cleaner = Callable[[Document], Document]


def make_cleaner(settings: Settings) -> Cleaner:
    """Returns the function from a document of a source to its normalised sentences, of which there may be none.

    Raises:
      InputError: there is no sentence splitter for the language.
    """
    steps: list[Cleaner] = []
    if settings.unicode != "none":
        form = cast(Literal["NFC", "NFKC"], settings.unicode)
        steps.append(lambda lines: [unicodedata.normalize(form, line) for line in lines])
    if settings.sentences != "none":
        from spanbert_jax.data.sentences import Splitter  # imported here because its library is in an extra

        steps.append(Splitter(settings.sentences))

    def clean(document: Document) -> Document:
        for step in steps:
            document = step(document)
        return [line for line in map(str.strip, document) if line]

    return clean if steps else lambda document: document


def cleaned_documents(unit: Unit, clean: Cleaner, min_words: int, report: Report) -> Iterator[Document | None]:
    """Yields the cleaned documents of a unit, and None for each with fewer than `min_words` words or no text at all.

    `report` is called with each problem of the source: see `Unit`.
    """
    for document in unit.documents(report):
        document = clean(document)
        yield document if document and has_words(document, min_words) else None


def has_words(document: Document, count: int) -> bool:
    """Returns whether a document has at least `count` words; it is read only as far as needed."""
    for line in document:
        if count <= 0:
            break
        count -= sum(1 for _ in WORD.finditer(line))
    return count <= 0


def is_held_out(document: Document, valid_fraction: float) -> bool:
    """Returns whether a document is in the split "valid".

    It depends on the document's text alone, so a held-out document stays held out when the corpus grows.
    """
    if not valid_fraction:
        return False
    digest = hashlib.blake2b("\n".join(document).encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < valid_fraction * 2**64

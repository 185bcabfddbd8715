"""What a document becomes before it is tokenised, and which documents are held out. Everything here looks at one document alone."""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterator

from spanbert_jax.data.preparation.settings import Settings
from spanbert_jax.data.sources import Document, Unit

# A word is a run without blanks; of scripts that write none between words (kana, Han, Thai, Lao, Burmese, Khmer) each character is one.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
WORD = re.compile(f"[{UNSPACED}]|[^\\s{UNSPACED}]+")


def make_cleaner(settings: Settings) -> Callable[[Document], Document]:
    """The function from a document as it stands in its source to its sentences, normalised; they may come out empty.

    Raises InputError for a language without a sentence splitter.
    """
    steps = []
    if settings.unicode != "none":
        steps.append(lambda lines: [unicodedata.normalize(settings.unicode, line) for line in lines])
    if settings.sentences != "none":
        from spanbert_jax.data.sentences import Splitter  # here: its library is in an extra

        steps.append(Splitter(settings.sentences))

    def clean(document: Document) -> Document:
        for step in steps:
            document = step(document)
        return [line for line in map(str.strip, document) if line] if steps else document

    return clean


def cleaned_documents(unit: Unit, clean: Callable[[Document], Document], min_words: int) -> Iterator[Document | None]:
    """Documents of a unit after cleaning, None for each that then has fewer than `min_words` words, or no text at all."""
    for document in unit.documents():
        document = clean(document)
        yield document if document and has_words(document, min_words) else None


def has_words(document: Document, number: int) -> bool:
    """Whether there are so many words; looks no further than it must."""
    for line in document:
        if number <= 0:
            break
        number -= sum(1 for _ in WORD.finditer(line))
    return number <= 0


def is_held_out(document: Document, valid_fraction: float) -> bool:
    """Whether the document belongs to the validation split: a function of its text alone, so it stays there when the corpus grows."""
    if not valid_fraction:
        return False
    digest = hashlib.blake2b("\n".join(document).encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < valid_fraction * 2**64

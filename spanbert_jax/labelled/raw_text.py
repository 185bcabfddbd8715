"""Raw text as documents to find clusters in, with the characters at which words stand."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Literal

from spanbert_jax.data.sentences import NONE, Splitter
from spanbert_jax.errors import InputError
from spanbert_jax.labelled.documents import Document
from spanbert_jax.labelled.files import Paths, find_files, reported_together, text_lines
from spanbert_jax.labelled.words import word_ranges

PARAGRAPH = re.compile(r"(?:[^\n]*\S[^\n]*(?:\n|$))+")  # lines that are not blank
LINE = re.compile(r"[^\n]+")


def read_raw_text(path: Paths, language: str, documents: Literal["file", "blank"] = "file") -> list[Document]:
    """Returns the documents of text files.

    Args:
      path: of the files.
      language: as of `Splitter`: a code such as "en", or "none" for text with one sentence a line.
      documents: what a document is: a whole file, or what stands between blank lines ("blank").

    Raises:
      InputError: files are missing or not UTF-8, or have no text; the language is unknown.
    """
    found: list[Document] = []
    with reported_together() as problems:
        for file in find_files(path):
            text = "\n".join(line for _, line in text_lines(file, problems))
            name = PurePosixPath(file).name
            blocks = [match[0] for match in PARAGRAPH.finditer(text)] if documents == "blank" else [text]
            if not text.strip():
                problems.add(file, "it has no text", "remove it from the input")
                continue
            for number, block in enumerate(blocks, 1):
                found.append(document_of_text(block, language, f"{name}:{number}" if documents == "blank" else name))
    return found


def document_of_text(text: str, language: str, id: str = "text") -> Document:
    """Returns the document of a text, whose `text` and `offsets` show where its words stand.

    Sentences may go on in the next line of a paragraph, but not beyond a blank line; with language "none" each line is
    one.

    Raises:
      InputError: the text is blank, or the language unknown.
    """
    words: list[tuple[str, ...]] = []
    offsets: list[tuple[int, int]] = []
    for begin, end in _sentence_ranges(text, Splitter(language)):
        ranges = [(begin + first, begin + last) for first, last in word_ranges(text[begin:end])]
        if ranges:
            words.append(tuple(text[first:last] for first, last in ranges))
            offsets += ranges
    if not words:
        raise InputError(f"{id}: the text is blank; give some text")
    speakers = tuple(("",) * len(sentence) for sentence in words)
    return Document(id, 0, "", tuple(words), speakers, (), text, tuple(offsets))


def _sentence_ranges(text: str, split: Splitter) -> Iterator[tuple[int, int]]:
    """Yields (first character, the one after the last) of each sentence; they cover all but blanks."""
    for match in (LINE if split.language == NONE else PARAGRAPH).finditer(text):
        paragraph, begin = match[0].replace("\n", " "), 0
        # The splitter strips sentences, so that they are found from the end of the one before.
        for sentence in split([paragraph])[1:]:
            position = paragraph.find(sentence, begin + 1)
            if position > begin:
                yield match.start() + begin, match.start() + position
                begin = position
        yield match.start() + begin, match.end()

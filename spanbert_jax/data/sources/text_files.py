"""Plain text with a document a file: paragraphs parted by blank lines, their lines wrapped at some width."""

from collections.abc import Iterator

from spanbert_jax.data.sources.lines import lines
from spanbert_jax.data.sources.units import Document


def steps(path: str, size: int) -> int:
    """A document is not cut, so neither is its file."""
    return 1


def documents(path: str, begin: int, end: int | None, field: str) -> Iterator[Document]:
    """The document of a file, a paragraph a line; the other arguments are not used. Raises InputError as `lines`."""
    paragraphs, wrapped = [], []
    for _, line in lines(path):
        if line:
            wrapped.append(line)
        elif wrapped:
            paragraphs.append(" ".join(wrapped))
            wrapped = []
    if wrapped:
        paragraphs.append(" ".join(wrapped))
    if paragraphs:
        yield paragraphs

"""Plain text with a document a line."""

from collections.abc import Iterator

from spanbert_jax.data.sources.lines import lines
from spanbert_jax.data.sources.text import steps  # noqa: F401  a format has it
from spanbert_jax.data.sources.units import Document


def documents(path: str, begin: int, end: int | None, field: str) -> Iterator[Document]:
    """Documents of a range of bytes, which owns the lines that begin in it; `field` is not used. Raises InputError as `lines`."""
    for address, line in lines(path, begin):
        if end is not None and address >= end:
            return
        if line:
            yield [line]

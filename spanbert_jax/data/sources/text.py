"""Plain text: a sentence or paragraph a line, a blank line between documents."""

from collections.abc import Iterator

from spanbert_jax.data.sources.lines import lines, packing
from spanbert_jax.data.sources.units import Document


def steps(path: str, size: int) -> int:
    """Steps of the file: its bytes, or a single one when it is packed and cannot be cut."""
    return 1 if packing(path) else size


def documents(path: str, begin: int, end: int | None, field: str) -> Iterator[Document]:
    """Documents of a range of bytes; `field` is not used. Raises InputError as `lines`.

    A range owns the documents that follow the blank lines that begin in it (the last of several), and the first range what stands at the
    beginning of the file. So every document has one owner, wherever the file is cut, and a range need not look at what is before it.
    """
    document, owned = [], begin == 0
    for address, line in lines(path, begin):
        if line:
            if owned:
                document.append(line)
            continue
        if document:
            yield document
            document = []
        if end is not None and address >= end:
            return
        owned = True
    if document:
        yield document

"""Plain text, with three rules for where a document ends: at a blank line, at each line, or at the end of the file.

The functions read a range of bytes of a file. Each document belongs to exactly one range, wherever the file is divided,
and reading a range does not require what precedes it. A document with a line that is no text is skipped and reported
as one problem, its first.
"""

from collections.abc import Iterator

from spanbert_jax.data.sources.lines import lines
from spanbert_jax.data.sources.problems import Problem, Report
from spanbert_jax.data.sources.units import Document


def documents_between_blank_lines(
    path: str, begin: int, end: int | None, field: str, report: Report
) -> Iterator[Document]:
    """Yields the documents of a range of bytes; blank lines separate them, and each line is a sentence or paragraph.

    A range owns the documents that follow a blank line that begins in it (the last one, of several). The first range
    also owns what stands at the beginning of the file. `field` is not used. Raises InputError as `lines` does.
    """
    document: Document = []
    problem: Problem | None = None
    owned = begin == 0
    for offset, line in lines(path, begin):
        if line:
            if not owned or problem:
                continue
            if isinstance(line, Problem):
                document, problem = [], line
            else:
                document.append(line)
            continue
        if problem:
            report(problem)
        elif document:
            yield document
        document, problem = [], None
        if end is not None and offset >= end:
            return
        owned = True
    if problem:
        report(problem)
    elif document:
        yield document


def documents_per_line(path: str, begin: int, end: int | None, field: str, report: Report) -> Iterator[Document]:
    """Yields each non-blank line as a document; a range owns the lines that begin in it.

    `field` is not used. Raises InputError as `lines` does.
    """
    for offset, line in lines(path, begin):
        if end is not None and offset >= end:
            return
        if isinstance(line, Problem):
            report(line)
        elif line:
            yield [line]


def document_per_file(path: str, begin: int, end: int | None, field: str, report: Report) -> Iterator[Document]:
    """Yields the document of a file; blank lines separate its wrapped paragraphs, each of which is joined to one line.

    The other arguments are not used. Raises InputError as `lines` does.
    """
    paragraphs: list[str] = []
    wrapped: list[str] = []
    for _, line in lines(path):
        if isinstance(line, Problem):
            report(line)
            return
        if line:
            wrapped.append(line)
        elif wrapped:
            paragraphs.append(" ".join(wrapped))
            wrapped = []
    if wrapped:
        paragraphs.append(" ".join(wrapped))
    if paragraphs:
        yield paragraphs

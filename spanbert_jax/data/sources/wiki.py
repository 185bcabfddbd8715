"""Output of WikiExtractor: articles between <doc id="12" url="..." title="..."> and </doc>, each tag on its own line.

An article is a document. Its first line is its title, its other lines are headings and paragraphs; blank lines
separate nothing.
"""

from collections.abc import Iterator

from spanbert_jax.data.sources.lines import lines
from spanbert_jax.data.sources.problems import Problem, Report
from spanbert_jax.data.sources.units import Document

BEGIN, END = "<doc id=", "</doc>"


def documents(path: str, begin: int, end: int | None, field: str, report: Report) -> Iterator[Document]:
    """Yields the articles whose first tag begins in a range of bytes; broken ones are reported. `field` is not used.

    Raises InputError as `lines` does.
    """
    article: Document | None = None  # None: between two articles
    problem: Problem | None = None  # of the article, or of what stands between two
    start = begin  # byte at which the article begins
    owned = begin == 0  # what follows an article, up to the next one, belongs to the range of that article
    for offset, line in lines(path, begin):
        if isinstance(line, Problem):
            problem = problem or line
        elif line.startswith(BEGIN):
            if article is not None:
                problem = without_end(path, start)
            if problem and owned:
                report(problem)
            if end is not None and offset >= end:
                return
            article, problem, start, owned = [], None, offset, True
        elif line == END:
            if problem and owned:
                report(problem)
            elif article:
                yield article
            elif article is not None:
                report(Problem("blank", path, start, "article without text", "remove it"))
            article, problem = None, None
        elif line and article is not None:
            article.append(unescaped(line))
        elif line:
            problem = problem or broken(path, offset, f'text outside {BEGIN}"..."> and {END}')
    if article is not None:
        problem = without_end(path, start)
    if problem and owned:
        report(problem)


def without_end(path: str, start: int) -> Problem:
    """Returns the problem of an article that has no last tag; it may have been cut."""
    return broken(path, start, f"article without {END}")


def broken(path: str, offset: int, what: str) -> Problem:
    """Returns the problem that the file is not as WikiExtractor writes it."""
    return Problem("record", path, offset, what, "make it again with WikiExtractor, or read it as text", "format")


def unescaped(line: str) -> str:
    """Returns a line of text without the entities of HTML that WikiExtractor writes."""
    return line.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")

"""Output of WikiExtractor: articles, ranges and problems."""

import itertools

import pytest

from spanbert_jax.data.sources import wiki
from tests.data.sources.reading import read_all

TEXT = """<doc id="12" url="https://en.wikipedia.org/wiki?curid=12" title="Anarchism">
Anarchism

Anarchism is a é political philosophy.

History.
AT&amp;T &lt;b&gt; &amp;lt; "x"

</doc>
<doc id="13" url="https://en.wikipedia.org/wiki?curid=13" title="Albedo">
Albedo

Albedo is the fraction of sunlight.

</doc>
<doc id="14" url="https://en.wikipedia.org/wiki?curid=14" title="A">
A

</doc>
"""
DOCUMENTS = [
    ["Anarchism", "Anarchism is a é political philosophy.", "History.", 'AT&T <b> &lt; "x"'],
    ["Albedo", "Albedo is the fraction of sunlight."],
    ["A"],
]
BROKEN = """stray
<doc id="1" url="u" title="One">
One
<doc id="2" url="u" title="Two">
Two
</doc>

between
two
<doc id="3" url="u" title="Three">
</doc>
<doc id="4" url="u" title="Four">
caf\xe9
</doc>
<doc id="5" url="u" title="Five">
Five
</doc>
<doc id="6" url="u" title="Six">
cut off""".encode("latin-1")


def read(path, edges):
    """(documents, messages) of the ranges between neighbouring edges, in order."""
    parts = [read_all(wiki.documents, str(path), begin, end, "") for begin, end in itertools.pairwise(edges)]
    return [document for part in parts for document in part[0]], [message for part in parts for message in part[2]]


def test_an_article_is_a_document_in_one_range(tmp_path):
    path = tmp_path / "wiki_00"
    path.write_text(TEXT)
    size = path.stat().st_size
    assert read(path, [0, None]) == (DOCUMENTS, [])
    for edge in range(1, size):
        assert read(path, [0, edge, size]) == (DOCUMENTS, [])
    for step in (1, 7, 50):
        assert read(path, [*range(0, size, step), size]) == (DOCUMENTS, [])


def test_each_broken_article_is_reported_in_one_range(tmp_path):
    path = tmp_path / "wiki_00"
    path.write_bytes(BROKEN)
    found, messages = read(path, [0, None])
    assert found == [["Two"], ["Five"]]
    assert [message.removeprefix(f"{path}, ") for message in messages] == [
        'line 1: text outside <doc id="..."> and </doc>',
        "line 2: article without </doc>",
        'line 8: text outside <doc id="..."> and </doc>',
        "line 10: article without text",
        f"line 13: byte {BROKEN.index(0xE9)} is 0xe9, not UTF-8",
        "line 18: article without </doc>",
    ]
    for edge in range(1, len(BROKEN)):
        assert read(path, [0, edge, None]) == (found, messages)


@pytest.mark.parametrize("text, count", [("no article\n", 1), ("", 0)])
def test_a_file_of_something_else_has_no_articles(text, count, tmp_path):
    (tmp_path / "wiki_00").write_text(text)
    found, messages = read(tmp_path / "wiki_00", [0, None])
    assert found == [] and len(messages) == count

"""Plain text: what parts documents, and that each has one reader however the file is cut."""

import random

import pytest

from spanbert_jax.data.sources import text

WANTED = [["One.", "Two é."], ["Three"], ["Four 四", "Five"], ["Six"]]
WRITTEN = {
    "unix": "One.\nTwo é.\n\nThree\n\nFour 四\nFive\n\nSix\n",
    "no final newline": "One.\nTwo é.\n\nThree\n\nFour 四\nFive\n\nSix",
    "CRLF": "One.\r\nTwo é.\r\n\r\nThree\r\n\r\nFour 四\r\nFive\r\n\r\nSix\r\n",
    "byte order mark": "\ufeffOne.\nTwo é.\n\nThree\n\nFour 四\nFive\n\nSix",
    "blank lines before, between and after": "\n \n One. \nTwo é.\n\t\n\n\nThree\n\u3000\n\n\nFour 四\nFive\n\n\xa0\n\n\nSix\n\n\n",
    "byte order mark and blank line": "\ufeff\n\nOne.\nTwo é.\n\nThree\n\nFour 四\nFive\n\nSix",
}


def read(path, edges):
    """Documents of the ranges between neighbouring edges, in order."""
    return [
        document
        for begin, end in zip(edges[:-1], edges[1:], strict=True)
        for document in text.documents(str(path), begin, end, "")
    ]


@pytest.mark.parametrize("name", WRITTEN)
def test_every_document_has_one_reader_wherever_the_file_is_cut(name, tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(WRITTEN[name].encode())
    size = path.stat().st_size
    assert list(text.documents(str(path), 0, None, "")) == WANTED
    for step in range(1, size + 1):
        assert read(path, [*range(0, size, step), size]) == WANTED
    for at in range(1, size):
        assert read(path, [0, at, size]) == WANTED


def test_random_texts_and_cuts(tmp_path):
    draw = random.Random(1)
    path = tmp_path / "a.txt"
    for _ in range(200):
        parts = draw.choices(["a", "bb é", " ", "\n", "\n", "\r\n", "\n\n"], k=draw.randrange(1, 60))
        path.write_text("".join(parts), newline="")
        size = path.stat().st_size
        edges = sorted({0, size, *(draw.randrange(size) for _ in range(draw.randrange(6)))})
        assert read(path, edges) == list(text.documents(str(path), 0, None, ""))


def test_a_range_owns_what_begins_in_it(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("first\n\n" + "long\n" * 100 + "\nlast\n")
    assert [document[0] for document in text.documents(str(path), 0, 50, "")] == ["first", "long"]
    assert list(text.documents(str(path), 50, 100, "")) == []  # in the middle of a document
    assert list(text.documents(str(path), 100, None, "")) == [["last"]]


def test_reading_is_lazy(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\n\ntwo\n\n\xff")
    reader = text.documents(str(path), 0, None, "")
    assert [next(reader), next(reader)] == [["one"], ["two"]]
    with pytest.raises(ValueError, match="line 5"):
        next(reader)


def test_packed_files_are_not_cut():
    assert text.steps("a.txt", 1000) == 1000
    assert text.steps("a.txt.gz", 1000) == 1

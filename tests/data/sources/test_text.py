"""Plain text: where documents end, and that each belongs to one range however the file is divided."""

import itertools
import random

import pytest

from spanbert_jax.data.sources.problems import refuse
from spanbert_jax.data.sources.text import document_per_file, documents_between_blank_lines, documents_per_line
from tests.data.sources.reading import read_all

DOCUMENTS = [["One.", "Two é."], ["Three"], ["Four 四", "Five"], ["Six"]]
TEXTS = {
    "unix": "One.\nTwo é.\n\nThree\n\nFour 四\nFive\n\nSix\n",
    "no final newline": "One.\nTwo é.\n\nThree\n\nFour 四\nFive\n\nSix",
    "CRLF": "One.\r\nTwo é.\r\n\r\nThree\r\n\r\nFour 四\r\nFive\r\n\r\nSix\r\n",
    "byte order mark": "\ufeffOne.\nTwo é.\n\nThree\n\nFour 四\nFive\n\nSix",
    "many blank lines": "\n \n One. \nTwo é.\n\t\n\n\nThree\n\u3000\n\n\nFour 四\nFive\n\n\xa0\n\n\nSix\n\n\n",
    "byte order mark and blank line": "\ufeff\n\nOne.\nTwo é.\n\nThree\n\nFour 四\nFive\n\nSix",
}
LINES = "\ufeffOne é.\r\n\n  Two \n\n\nThree\nFour"
DOCUMENTS_OF_LINES = [["One é."], ["Two"], ["Three"], ["Four"]]


def read(path, edges, documents=documents_between_blank_lines):
    """Documents of the ranges between neighbouring edges, in order."""
    ranges = itertools.pairwise(edges)
    return [document for begin, end in ranges for document in documents(str(path), begin, end, "", refuse)]


def read_whole(path):
    return list(documents_between_blank_lines(str(path), 0, None, "", refuse))


@pytest.mark.parametrize("name", TEXTS)
def test_each_document_is_in_one_range(name, tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(TEXTS[name].encode())
    size = path.stat().st_size
    assert read_whole(path) == DOCUMENTS
    for step in range(1, size + 1):
        assert read(path, [*range(0, size, step), size]) == DOCUMENTS
    for edge in range(1, size):
        assert read(path, [0, edge, size]) == DOCUMENTS


def test_random_texts_in_random_ranges(tmp_path):
    draw = random.Random(1)
    path = tmp_path / "a.txt"
    for _ in range(200):
        strings = draw.choices(["a", "bb é", " ", "\n", "\n", "\r\n", "\n\n"], k=draw.randrange(1, 60))
        path.write_text("".join(strings), newline="")
        size = path.stat().st_size
        edges = sorted({0, size, *(draw.randrange(size) for _ in range(draw.randrange(6)))})
        assert read(path, edges) == read_whole(path)


def test_a_range_owns_the_documents_that_begin_in_it(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("first\n\n" + "long\n" * 100 + "\nlast\n")
    assert [document[0] for document in read(path, [0, 50])] == ["first", "long"]
    assert read(path, [50, 100]) == []  # within a document
    assert read(path, [100, None]) == [["last"]]


def test_reading_is_lazy(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\n\ntwo\n\n\xff")
    reader = documents_between_blank_lines(str(path), 0, None, "", refuse)
    assert [next(reader), next(reader)] == [["one"], ["two"]]
    with pytest.raises(ValueError, match="line 5"):
        next(reader)


def test_each_line_is_in_one_range(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(LINES.encode())
    size = path.stat().st_size
    for step in range(1, size + 1):
        assert read(path, [*range(0, size, step), size], documents_per_line) == DOCUMENTS_OF_LINES


def test_a_file_is_one_document_with_its_paragraphs_unwrapped(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\none\n  two\nthree\n\n\nfour\n")
    assert read(path, [0, None], document_per_file) == [["one two three", "four"]]
    path.write_text("\n \n")
    assert read(path, [0, None], document_per_file) == []


BAD = b"one\n\ntwo\nb\xe9d\nw\xf6rse\ntwo\n\n\n\xff\n\nthree\n\nz\0ro"


def test_only_the_document_with_a_bad_byte_is_skipped_in_one_range(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(BAD)
    found, counts, messages = read_all(documents_between_blank_lines, str(path), 0, None, "")
    assert found == [["one"], ["three"]] and counts == {"encoding": 3}
    assert [message.removeprefix(f"{path}, ") for message in messages] == [
        "line 4: byte 10 is 0xe9, not UTF-8",
        "line 9: byte 25 is 0xff, not UTF-8",
        f"line 13: byte {BAD.index(0)} is zero, so this is not UTF-8 text",
    ]
    for edge in range(1, len(BAD)):
        parts = [
            read_all(documents_between_blank_lines, str(path), *ends, "") for ends in ((0, edge), (edge, len(BAD)))
        ]
        assert parts[0][0] + parts[1][0] == found and parts[0][2] + parts[1][2] == messages


def test_bad_lines_and_files_that_are_documents_are_skipped(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(BAD)
    found, counts, _ = read_all(documents_per_line, str(path), 0, None, "")
    assert found == [["one"], ["two"], ["two"], ["three"]] and counts == {"encoding": 4}
    assert read_all(document_per_file, str(path), 0, None, "")[:2] == ([], {"encoding": 1})

"""JSON Lines: records, ranges and problems."""

import gzip
import json

import pytest

from spanbert_jax.data.sources.jsonl import documents
from tests.data.sources.reading import read_all

RECORDS = [
    {"text": "One.\n\n Two é. ", "id": 1},
    {"text": ""},
    {"text": None},
    {"id": 2, "text": "四\r\nFive"},
    {"text": "Six"},
]
DOCUMENTS = [["One.", "Two é."], ["四", "Five"], ["Six"]]


def write(path, text):
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


def read(path, begin=0, end=None, field="text"):
    return read_all(documents, path, begin, end, field)[0]


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n\n"])
def test_each_record_is_in_one_range(start, separator, tmp_path):
    text = start + separator.join(json.dumps(record, ensure_ascii=False) for record in RECORDS)
    for end in ("", separator):
        path = write(tmp_path / "a.jsonl", text + end)
        size = len((text + end).encode())
        assert read(path) == DOCUMENTS
        for edge in range(1, size):
            assert read(path, 0, edge) + read(path, edge, size) == DOCUMENTS
        for step in (1, 2, 3, 7, 20):
            ranges = [(begin, begin + step) for begin in range(0, size, step)]
            assert [document for begin, end in ranges for document in read(path, begin, end)] == DOCUMENTS


def test_compressed(tmp_path):
    assert read(write(tmp_path / "a.jsonl.gz", "\n".join(map(json.dumps, RECORDS)))) == DOCUMENTS


def test_field_by_name(tmp_path):
    assert read(write(tmp_path / "a.jsonl", '{"body": "b", "text": "t"}'), field="body") == [["b"]]


def test_text_is_never_changed_to_make_it_unicode(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"text": "a \\ud83d b"}\n{"text": "\\ud83d\\ude00"}')
    found, counts, (message,) = read_all(documents, path, 0, None, "text")
    assert found == [["\U0001f600"]] and counts == {"encoding": 1}
    assert message.endswith("a.jsonl, line 1: field 'text' has bytes that are not UTF-8, or half of a surrogate pair")


def test_records_without_text_are_counted(tmp_path):
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, RECORDS)))
    found, counts, messages = read_all(documents, path, 0, None, "text")
    assert found == DOCUMENTS and counts == {"blank": 2}
    assert messages == [f"{path}, line 2: field 'text' is blank", f"{path}, line 3: field 'text' is null"]


@pytest.mark.parametrize(
    "line, kind, problem",
    [
        ('{"body": "x", "id": 3}', "field", "line 3: no field 'text' (it has 'body', 'id')"),
        ("{}", "field", "line 3: no field 'text' (it has none at all)"),
        (json.dumps(dict.fromkeys(map(str, range(25)))), "field", "'18', '19' and 5 more)"),
        ('{"text": ["x"]}', "field", "line 3: field 'text' is list, not text"),
        ('{"text": "x"', "record", "line 3: not JSON"),
        ("some text", "record", "line 3: not JSON"),
        ('["x"]', "record", "line 3: list, not a record"),
        ('{"text": ' + "[" * 100_000, "record", "line 3: not JSON"),
    ],
)
def test_invalid_records_are_skipped_and_reported_with_their_line(line, kind, problem, tmp_path):
    path = write(tmp_path / "bad.jsonl", f'{{"text": "fine"}}\n\n{line}\n{{"text": "fine too"}}\n')
    for begin, expected in ((0, [["fine"], ["fine too"]]), (5, [["fine too"]])):
        found, counts, (message,) = read_all(documents, path, begin, None, "text")
        assert found == expected and counts == {kind: 1}
        assert message.startswith(f"{path}, line 3: ") and problem in message


def test_a_line_that_is_not_utf8_is_skipped(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "one"}\n{"text": "caf\xe9"}\n{"text": "three"}\n')
    found, counts, (message,) = read_all(documents, str(path), 0, None, "text")
    assert found == [["one"], ["three"]] and counts == {"encoding": 1} and "line 2: byte 29 is 0xe9" in message

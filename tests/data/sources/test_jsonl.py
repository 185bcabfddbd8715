"""JSON Lines: records, ranges and errors."""

import gzip
import json

import pytest

from spanbert_jax.data.sources.jsonl import documents
from spanbert_jax.errors import InputError

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
    return list(documents(path, begin, end, field))


def error_message(path, begin=0):
    with pytest.raises(InputError) as error:
        read(path, begin)
    assert "\n" not in str(error.value)
    return str(error.value)


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


def test_lone_surrogates_are_replaced(tmp_path):
    assert read(write(tmp_path / "a.jsonl", '{"text": "a \\ud83d b \\ud83d\\ude00"}')) == [["a ? b \U0001f600"]]


@pytest.mark.parametrize(
    "line, message",
    [
        ('{"body": "x", "id": 3}', "line 3: no field 'text' (it has 'body', 'id')"),
        ("{}", "line 3: no field 'text' (it has none at all)"),
        ('{"text": ["x"]}', "line 3: field 'text' is list, not text"),
        ('{"text": "x"', "line 3: not JSON"),
        ("some text", "line 3: not JSON"),
        ('["x"]', "line 3: list, not a record"),
        ('{"text": ' + "[" * 100_000, "line 3: not JSON"),
    ],
)
def test_invalid_records_are_refused_with_their_line(line, message, tmp_path):
    path = write(tmp_path / "bad.jsonl", f'{{"text": "fine"}}\n\n{line}\n')
    assert f"bad.jsonl, {message}" in error_message(path)
    assert f"bad.jsonl, {message}" in error_message(path, begin=5)

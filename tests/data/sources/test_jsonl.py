"""JSON Lines: records, cuts and refusals."""

import gzip
import json

import pytest

from spanbert_jax.data.sources import jsonl
from spanbert_jax.errors import InputError

RECORDS = [
    {"text": "One.\n\n Two é. ", "id": 1},
    {"text": ""},
    {"text": None},
    {"id": 2, "text": "四\r\nFive"},
    {"text": "Six"},
]
WANTED = [["One.", "Two é."], ["四", "Five"], ["Six"]]


def write(path, text):
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def read(path, begin=0, end=None, field="text"):
    return list(jsonl.documents(path, begin, end, field))


def refusal(path, begin=0, field="text"):
    with pytest.raises(InputError) as error:
        read(path, begin, None, field)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("first", ["", "\ufeff", "\n\n"])
def test_every_record_has_one_reader_wherever_the_file_is_cut(first, end, tmp_path):
    text = first + end.join(json.dumps(record, ensure_ascii=False) for record in RECORDS)
    for last in ("", end):
        path = write(tmp_path / "a.jsonl", text + last)
        size = len((text + last).encode())
        assert read(path) == WANTED
        for at in range(1, size):
            assert read(path, 0, at) + read(path, at, size) == WANTED
        for step in (1, 2, 3, 7, 20):
            assert [
                document for begin in range(0, size, step) for document in read(path, begin, begin + step)
            ] == WANTED


def test_packed(tmp_path):
    path = write(tmp_path / "a.jsonl.gz", "\n".join(map(json.dumps, RECORDS)))
    assert read(path) == WANTED
    assert jsonl.steps(path, 1000) == 1


def test_field_by_name(tmp_path):
    assert read(write(tmp_path / "a.jsonl", '{"body": "b", "text": "t"}'), field="body") == [["b"]]


def test_half_a_character_is_replaced(tmp_path):
    assert read(write(tmp_path / "a.jsonl", '{"text": "a \\ud83d b \\ud83d\\ude00"}')) == [["a ? b \U0001f600"]]


@pytest.mark.parametrize(
    "line, said",
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
def test_refuses_what_is_no_record_with_its_line(line, said, tmp_path):
    path = write(tmp_path / "bad.jsonl", f'{{"text": "fine"}}\n\n{line}\n')
    assert f"bad.jsonl, {said}" in refusal(path)
    assert f"bad.jsonl, {said}" in refusal(path, begin=5)

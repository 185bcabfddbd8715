"""JSON arrays: records, however the file is cut into chunks, and damage."""

import gzip
import json

import pytest

from spanbert_jax.data.sources import json_array
from spanbert_jax.errors import InputError
from tests.data.sources.reading import read_all

RECORDS = [{"text": "One.\n\n Two é 四 ]}, "}, {"id": [1, {"a": "]"}], "text": "Three"}, {"text": "Four"}]
DOCUMENTS = [["One.", "Two é 四 ]},"], ["Three"], ["Four"]]


def read(path):
    return read_all(json_array.documents, str(path), 0, None, "text")


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 1])
def test_each_record_is_a_document(indent, chunk, tmp_path, monkeypatch):
    monkeypatch.setattr(json_array, "CHUNK_BYTES", chunk)
    text = json.dumps(RECORDS, ensure_ascii=False, indent=indent)
    path = tmp_path / "a.json"
    for around in (text, f"\ufeff{text}\n"):
        path.write_bytes(around.encode())
        if chunk > 3 or around is text:  # a file begins in its first chunk
            assert read(path) == (DOCUMENTS, {}, [])
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(text.encode()))
    assert read(tmp_path / "a.json.gz")[0] == DOCUMENTS


def test_an_empty_array_has_no_records(tmp_path):
    (tmp_path / "a.json").write_text(" [ ]\n")
    assert read(tmp_path / "a.json") == ([], {}, [])


def test_records_without_text_are_skipped(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'[{"text": "caf\xe9"}, {"text": null}, {"body": "x"}, 7, "x", {"text": "fine"}]')
    found, counts, messages = read(path)
    assert found == [["fine"]] and counts == {"encoding": 1, "blank": 1, "field": 1, "record": 2}
    assert messages[2] == f"{path}, record 3: no field 'text' (it has 'body')"


@pytest.mark.parametrize(
    "text, problem",
    [
        ('[{"text": "a"}, {"text": "b"', "a.json, record 2: not JSON"),
        ('[{"text": "a"}, {"text": "b"}', "a.json, record 2: not JSON"),
        ('[{"text": "a"} {"text": "b"}]', "a.json, record 1: not JSON"),
        ('[{"text": "a"},]', "a.json, record 2: not JSON"),
        ('[{"text": "a"}]\n[{"text": "b"}]', "a.json: there is more after its array"),
        ('{"text": "a"}', "a.json does not begin with '['"),
    ],
)
def test_damaged_arrays_are_refused(text, problem, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=problem.replace("[", r"\[")):
        read(tmp_path / "a.json")


def test_memory_is_bounded_when_a_record_never_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(json_array, "CHUNK_BYTES", 10)
    monkeypatch.setattr(json_array, "MAX_LINE_BYTES", 100)
    (tmp_path / "a.json").write_text('[{"text": "' + "x" * 1000 + '"}]')
    with pytest.raises(InputError, match="record 1: not JSON"):
        read(tmp_path / "a.json")

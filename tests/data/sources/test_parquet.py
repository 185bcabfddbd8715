"""Parquet: rows, row groups, problems and errors."""

import pytest

from spanbert_jax.data.sources.parquet import documents, num_row_groups
from spanbert_jax.errors import InputError
from tests.data.sources.reading import read_all

pyarrow = pytest.importorskip("pyarrow", reason="needs the extra prepare")
pq = pytest.importorskip("pyarrow.parquet")

TEXTS = ["One.\n\n Two é. ", "", None, "四\r\nFive", "Six"]
DOCUMENTS = [["One.", "Two é."], ["四", "Five"], ["Six"]]
TEXT_TYPES = [pyarrow.string(), pyarrow.large_string(), pyarrow.dictionary(pyarrow.int32(), pyarrow.string())]


def write(path, text_type=None, rows=2, texts=TEXTS):
    column = pyarrow.array(texts, text_type or pyarrow.string())
    pq.write_table(pyarrow.table({"id": list(range(len(texts))), "text": column}), path, row_group_size=rows)
    return str(path)


def read(path, begin=0, end=None, field="text"):
    return read_all(documents, path, begin, end, field)[0]


def error_message(path):
    with pytest.raises(InputError) as error:
        read(path)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("text_type", TEXT_TYPES, ids=str)
def test_rows_are_documents(text_type, tmp_path):
    assert read(write(tmp_path / "a.parquet", text_type)) == DOCUMENTS


def test_each_row_is_in_one_range(tmp_path):
    path = write(tmp_path / "a.parquet", rows=1)
    assert num_row_groups(path, 0) == len(TEXTS)
    for edge in range(1, len(TEXTS)):
        assert read(path, 0, edge) + read(path, edge, len(TEXTS)) == DOCUMENTS


def test_rows_without_text_are_counted_by_their_number(tmp_path):
    path = write(tmp_path / "a.parquet")
    found, counts, messages = read_all(documents, path, 0, None, "text")
    assert found == DOCUMENTS and counts == {"blank": 2}
    assert messages == [f"{path}, row 2: field 'text' is blank", f"{path}, row 3: field 'text' is null"]
    assert read_all(documents, path, 1, None, "text")[2] == messages[1:]


def test_a_row_that_is_not_utf8_is_skipped(tmp_path):
    data = pyarrow.array([b"one", b"caf\xe9", b"three"])
    column = pyarrow.Array.from_buffers(pyarrow.string(), 3, data.buffers())  # as careless writers do
    path = str(tmp_path / "a.parquet")
    pq.write_table(pyarrow.table({"text": column}), path)
    found, counts, (message,) = read_all(documents, path, 0, None, "text")
    assert found == [["one"], ["three"]] and counts == {"encoding": 1}
    assert message == f"{path}, row 2: field 'text' has a byte 0xe9, which is not UTF-8"


def test_a_missing_column_is_reported_once_a_file_and_those_of_text_are_listed(tmp_path):
    path = write(tmp_path / "a.parquet")
    found, counts, (message,) = read_all(documents, path, 0, None, "body")
    assert found == [] and counts == {"field": 1}
    assert message == f"{path}: no column 'body' (its columns of text: 'text')"
    assert read_all(documents, path, 1, None, "body") == ([], {}, [])
    assert "column 'id' is int64, not text" in read_all(documents, path, 0, None, "id")[2][0]


def test_parts_without_rows_or_with_nulls_only_have_no_documents(tmp_path):
    assert read(write(tmp_path / "a.parquet", texts=[])) == []
    nulls = write(tmp_path / "b.parquet", pyarrow.null(), texts=[None, None])  # the type that pandas gives such a part
    assert read_all(documents, nulls, 0, None, "text")[:2] == ([], {"blank": 2})


def test_files_that_are_not_parquet_are_refused(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"plain text, though its name says otherwise")
    assert "a.parquet is no readable Parquet file" in error_message(str(path))
    truncated = tmp_path / "b.parquet"
    write(truncated, texts=["some text"] * 1000)
    data = truncated.read_bytes()
    truncated.write_bytes(data[: len(data) // 2])
    assert "b.parquet is no readable Parquet file" in error_message(str(truncated))
    assert "cannot read" in error_message(str(tmp_path / "none.parquet"))


def test_damaged_pages_are_refused(tmp_path):
    path = tmp_path / "a.parquet"
    write(path, rows=10_000, texts=[f"text {i * i}" for i in range(5000)])
    data = bytearray(path.read_bytes())
    data[200:-2000] = b"\xff" * len(data[200:-2000])
    path.write_bytes(data)
    assert "a.parquet is no readable Parquet file" in error_message(str(path))

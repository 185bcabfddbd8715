"""Parquet: rows, row groups and errors."""

import pytest

from spanbert_jax.data.sources.parquet import documents, num_row_groups
from spanbert_jax.errors import InputError

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
    return list(documents(path, begin, end, field))


def error_message(path, field="text"):
    with pytest.raises(InputError) as error:
        read(path, field=field)
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


def test_a_missing_column_is_refused_and_those_of_text_are_listed(tmp_path):
    path = write(tmp_path / "a.parquet")
    message = error_message(path, "body")
    assert "a.parquet: no column 'body'" in message and message.endswith(": 'text'")
    assert "column 'id' is int64, not text" in error_message(path, "id")


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

"""Parquet: rows, row groups and refusals."""

import pytest

from spanbert_jax.data.sources import parquet
from spanbert_jax.errors import InputError

pyarrow = pytest.importorskip("pyarrow", reason="reads and writes Parquet; in the extra [prepare]")
pq = pytest.importorskip("pyarrow.parquet")

TEXTS = ["One.\n\n Two é. ", "", None, "四\r\nFive", "Six"]
WANTED = [["One.", "Two é."], ["四", "Five"], ["Six"]]


def write(path, kind=None, rows=2, texts=TEXTS):
    column = pyarrow.array(texts, kind or pyarrow.string())
    pq.write_table(pyarrow.table({"id": list(range(len(texts))), "text": column}), path, row_group_size=rows)
    return str(path)


def read(path, begin=0, end=None, field="text"):
    return list(parquet.documents(path, begin, end, field))


def refusal(path, field="text"):
    with pytest.raises(InputError) as error:
        read(path, field=field)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "kind", [pyarrow.string(), pyarrow.large_string(), pyarrow.dictionary(pyarrow.int32(), pyarrow.string())], ids=str
)
def test_rows_are_documents(kind, tmp_path):
    assert read(write(tmp_path / "a.parquet", kind)) == WANTED


def test_every_row_has_one_reader_wherever_the_file_is_cut(tmp_path):
    path = write(tmp_path / "a.parquet", rows=1)
    assert parquet.steps(path, 0) == len(TEXTS)
    for at in range(1, len(TEXTS)):
        assert read(path, 0, at) + read(path, at, len(TEXTS)) == WANTED


def test_refuses_a_missing_column_and_names_those_of_text(tmp_path):
    path = write(tmp_path / "a.parquet")
    assert "a.parquet: no column 'body'" in refusal(path, "body") and refusal(path, "body").endswith(": 'text'")
    assert "column 'id' is int64, not text" in refusal(path, "id")


def test_refuses_what_is_not_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"plain text, though its name says otherwise")
    assert "a.parquet is no readable Parquet file" in refusal(str(path))
    whole = tmp_path / "b.parquet"
    write(whole, texts=["some text"] * 1000)
    data = whole.read_bytes()
    whole.write_bytes(data[: len(data) // 2])
    assert "b.parquet is no readable Parquet file" in refusal(str(whole))
    assert "cannot read" in refusal(str(tmp_path / "none.parquet"))


def test_refuses_damaged_pages(tmp_path):
    path = tmp_path / "a.parquet"
    write(path, rows=10_000, texts=[f"text {i * i}" for i in range(5000)])
    data = bytearray(path.read_bytes())
    data[200:-2000] = b"\xff" * len(data[200:-2000])
    path.write_bytes(data)
    assert "a.parquet is no readable Parquet file" in refusal(str(path))

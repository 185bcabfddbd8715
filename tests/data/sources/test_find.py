"""Units of a source: what they cover, and what they depend on."""

import gzip
import json
import lzma
import pickle

import pytest

from spanbert_jax.data.sources import find_units, units
from spanbert_jax.errors import InputError


def find(source, field="text", documents="blank"):
    return find_units(str(source), field, "train", "", documents)


def documents(found):
    return [document for unit in found for document in unit.documents()]


def refusal(source):
    with pytest.raises(InputError) as error:
        documents(find(source))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def mixed(tmp_path):
    """(glob, documents) of files of every format, of many sizes."""
    wanted = []
    for number, count in enumerate((1, 3, 400, 2, 1, 300, 5, 200)):
        texts = [[f"file {number}", f"document {i} é"] for i in range(count)]
        lines = "\n\n".join("\n".join(text) for text in texts)
        records = "\n".join(json.dumps({"text": "\n".join(text)}) for text in texts)
        name, data = [
            ("txt", lines.encode()),
            ("jsonl", records.encode()),
            ("text.xz", lzma.compress(lines.encode())),
            ("jsonl.gz", gzip.compress(records.encode())),
        ][(number + 1) % 4]
        (tmp_path / f"{number}.{name}").write_bytes(data)
        wanted += texts
    return f"{tmp_path}/*", wanted


@pytest.mark.parametrize(
    "size, fewest, most", [(1, 100, 256), (100, 20, 256), (1000, 8, 99), (4000, 3, 20), (1 << 22, 1, 1)]
)
def test_every_document_once_in_order_whatever_the_size_of_units(size, fewest, most, mixed, monkeypatch):
    source, wanted = mixed
    monkeypatch.setattr(units, "SMALLEST", size)
    found = find(source)
    assert documents(found) == wanted
    assert fewest <= len(found) <= most
    assert len({unit.name for unit in found}) == len(found) == len({unit.fingerprint for unit in found})


def test_units_go_through_pickle_and_are_equal_by_content(mixed):
    source, _ = mixed
    first, again = find(source), find(source)
    assert first == again == pickle.loads(pickle.dumps(first))
    assert len({*first, *again}) == len(first)
    assert [unit.fingerprint for unit in first] == [unit.fingerprint for unit in again]


def test_fingerprint_follows_the_files_and_the_field(tmp_path):
    path = tmp_path / "a.txt"
    seen = set()
    for text in ("one", "three", "seven"):
        path.write_text(text)
        seen.add(find(path)[0].fingerprint)
    seen.add(find(path, "other")[0].fingerprint)
    assert len(seen) == 4


def test_large_parquet_is_cut_at_row_groups(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow", reason="in the extra [prepare]")
    import pyarrow.parquet as pq

    texts = [f"document {i}" for i in range(1000)]
    pq.write_table(pyarrow.table({"text": texts}), tmp_path / "a.parquet", row_group_size=100)
    monkeypatch.setattr(units, "SMALLEST", 500)
    found = find(tmp_path / "a.parquet")
    assert documents(found) == [[text] for text in texts]
    assert len(found) == 10 and "groups 9-10" in found[-1].name
    assert len(find(tmp_path / "a.parquet")) == 10
    pq.write_table(pyarrow.table({"text": texts}), tmp_path / "a.parquet")
    assert len(find(tmp_path / "a.parquet")) == 1


@pytest.mark.parametrize("total, size", [(0, 4 << 20), (1 << 30, 4 << 20), (1 << 32, 1 << 24), (1 << 50, 1 << 30)])
def test_unit_size(total, size):
    assert units.unit_size(total) == size


def test_cut_covers_all_steps_once():
    for length in range(1, 30):
        for parts in range(1, 40):
            ranges = units.cut(length, parts)
            assert [step for begin, end in ranges for step in range(begin, end)] == list(range(length))
            assert (
                len(ranges) == min(parts, length) and max(e - b for b, e in ranges) - min(e - b for b, e in ranges) <= 1
            )


def test_remote_source(monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    text = "\n\n".join(f"document {i}" for i in range(500))
    store.pipe("memory:///remote/a.txt", text.encode())
    store.pipe("memory:///remote/b.jsonl.gz", gzip.compress(b'{"text": "last"}'))
    monkeypatch.setattr(units, "SMALLEST", 1000)
    found = find("memory:///remote/*")
    assert documents(found) == [[f"document {i}"] for i in range(500)] + [["last"]]
    assert len(found) > 5


def test_embedded_has_its_own_split():
    train, valid = find_units("embedded", "", "", "", "blank")
    assert (train.held_out, valid.held_out) == (False, True)
    assert pickle.loads(pickle.dumps(train)) == train != valid and train.fingerprint != valid.fingerprint
    for unit in (train, valid):
        assert unit.size > 10_000
        assert all(line and line == line.strip() for document in unit.documents() for line in document)


def test_files_have_not(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    assert [unit.held_out for unit in find(tmp_path / "a.txt")] == [None]


def test_refuses_files_without_text(tmp_path):
    path = tmp_path / "blank.txt"
    path.write_text("")
    with pytest.raises(InputError, match="blank.txt is empty"):
        find(path)  # seen before anything is read
    path.write_text(" \n\n\t\n")
    assert "blank.txt holds no text" in refusal(path)
    (tmp_path / "full.txt").write_text("x")
    assert "blank.txt holds no text" in refusal(f"{tmp_path}/*")
    (tmp_path / "null.jsonl").write_text('{"text": null}\n')
    assert "null.jsonl holds no text" in refusal(tmp_path / "null.jsonl")


def test_refuses_at_once_what_can_be_seen_at_once(tmp_path, monkeypatch):
    for source, said in ((tmp_path / "none*.txt", "no file matches"), (tmp_path, "is a folder"), (",", "is empty")):
        with pytest.raises(InputError, match=said):
            find(source)
    pytest.importorskip("pyarrow", reason="in the extra [prepare]")
    monkeypatch.setattr(units, "SMALLEST", 10)
    (tmp_path / "a.parquet").write_text("this is not a Parquet file")
    with pytest.raises(InputError, match="no readable Parquet"):
        find(tmp_path / "a.parquet")

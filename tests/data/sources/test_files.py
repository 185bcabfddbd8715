"""Units of file sources: what they cover, and what they depend on."""

import gzip
import json
import lzma
import pickle

import pytest

from spanbert_jax.data.sources import find_units, units
from spanbert_jax.data.sources.problems import Skipped
from spanbert_jax.errors import InputError


def find(source, field="text", documents="blank", format="auto"):
    return find_units(str(source), field, "train", "", documents, format)


def documents_of(found):
    return [document for unit in found for document in unit.documents()]


def error_message(source):
    with pytest.raises(InputError) as error:
        documents_of(find(source))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def mixed(tmp_path):
    """(glob, documents) of files of every format and many sizes."""
    expected = []
    for number, count in enumerate((1, 3, 400, 2, 1, 300, 5, 200)):
        texts = [[f"file {number}", f"document {i} é"] for i in range(count)]
        lines = "\n\n".join("\n".join(text) for text in texts)
        records = "\n".join(json.dumps({"text": "\n".join(text)}) for text in texts)
        suffix, data = [
            ("txt", lines.encode()),
            ("jsonl", records.encode()),
            ("text.xz", lzma.compress(lines.encode())),
            ("jsonl.gz", gzip.compress(records.encode())),
        ][(number + 1) % 4]
        (tmp_path / f"{number}.{suffix}").write_bytes(data)
        expected += texts
    return f"{tmp_path}/*", expected


@pytest.mark.parametrize(
    "size, fewest, most", [(1, 100, 256), (100, 20, 256), (1000, 8, 99), (4000, 3, 20), (1 << 22, 1, 1)]
)
def test_units_of_any_size_yield_each_document_once_in_order(size, fewest, most, mixed, monkeypatch):
    source, expected = mixed
    monkeypatch.setattr(units, "MIN_UNIT_BYTES", size)
    found = find(source)
    assert documents_of(found) == expected
    assert fewest <= len(found) <= most
    assert len({unit.name for unit in found}) == len(found) == len({unit.fingerprint for unit in found})


def test_units_can_be_pickled_and_compare_by_content(mixed):
    source, _ = mixed
    first, second = find(source), find(source)
    assert first == second == pickle.loads(pickle.dumps(first))
    assert len({*first, *second}) == len(first)
    assert [unit.fingerprint for unit in first] == [unit.fingerprint for unit in second]


def test_fingerprint_depends_on_the_files_their_format_and_the_field(tmp_path):
    path = tmp_path / "a.txt"
    fingerprints = set()
    for text in ("one", "three", "seven"):
        path.write_text(text)
        fingerprints.add(find(path)[0].fingerprint)
    fingerprints.add(find(path, "other")[0].fingerprint)
    fingerprints.add(find(path, documents="line")[0].fingerprint)
    fingerprints.add(find(path, format="jsonl")[0].fingerprint)
    assert len(fingerprints) == 6


def test_large_parquet_is_divided_at_row_groups(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra prepare")
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    texts = [f"document {i}" for i in range(1000)]
    pq.write_table(pyarrow.table({"text": texts}), path, row_group_size=100)
    monkeypatch.setattr(units, "MIN_UNIT_BYTES", 500)
    found = find(path)
    assert documents_of(found) == [[text] for text in texts]
    assert len(found) == 10 and "groups 9-10" in found[-1].name
    pq.write_table(pyarrow.table({"text": texts}), path)
    assert len(find(path)) == 1


def test_files_of_lines_are_divided(tmp_path, monkeypatch):
    monkeypatch.setattr(units, "MIN_UNIT_BYTES", 100)
    lines = [f"document {number}" for number in range(500)]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    found = find(tmp_path / "a.txt", documents="line")
    assert len(found) > 5
    assert documents_of(found) == [[line] for line in lines]


def test_files_that_are_documents_are_not_divided(tmp_path, monkeypatch):
    monkeypatch.setattr(units, "MIN_UNIT_BYTES", 4)
    wrapped = "\nIt was the best of times,\n  it was the worst\nof times.\n\n\nIt was\n" + "long\n" * 100
    (tmp_path / "a.txt").write_text(wrapped)
    (tmp_path / "b.txt.xz").write_bytes(lzma.compress(b"Call me\r\nIshmael."))
    first, second = documents_of(find(f"{tmp_path}/*", documents="file"))
    assert first == ["It was the best of times, it was the worst of times.", "It was" + " long" * 100]
    assert second == ["Call me Ishmael."]


def test_remote_source(monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    text = "\n\n".join(f"document {i}" for i in range(500))
    store.pipe("memory:///remote/a.txt", text.encode())
    store.pipe("memory:///remote/b.jsonl.gz", gzip.compress(b'{"text": "last"}'))
    monkeypatch.setattr(units, "MIN_UNIT_BYTES", 1000)
    found = find("memory:///remote/*")
    assert documents_of(found) == [[f"document {i}"] for i in range(500)] + [["last"]]
    assert len(found) > 5


def test_files_have_no_splits_of_their_own(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    assert [unit.held_out for unit in find(tmp_path / "a.txt")] == [None]


def test_files_without_text_are_problems(tmp_path):
    for name, text in (("a.txt", ""), ("b.txt", " \n\n\t\n"), ("c.jsonl", '{"text": null}\n'), ("d.txt", "x")):
        (tmp_path / name).write_text(text)
    skipped = Skipped()
    found = [document for unit in find(f"{tmp_path}/*") for document in unit.documents(skipped)]
    assert found == [["x"]] and skipped.counts == {"empty": 3, "blank": 1}
    messages = [problem.message().removeprefix(f"{tmp_path}/") for problem in skipped.first["empty"]]
    assert messages == ["a.txt: it is empty", "b.txt: it has no text", "c.jsonl: it has no text"]
    for name in ("a.txt", "b.txt", "c.jsonl"):
        assert f"{name}: it " in error_message(tmp_path / name)  # by default a problem is refused
    (tmp_path / "e.txt").write_bytes(b"\xff")
    skipped = Skipped()
    assert [document for unit in find(tmp_path / "e.txt") for document in unit.documents(skipped)] == []
    assert skipped.counts == {"encoding": 1}  # this says why there is no text


def test_some_errors_are_raised_before_text_is_read(tmp_path, monkeypatch):
    for source, message in ((tmp_path / "none*.txt", "no file matches"), (tmp_path, "is a folder"), (",", "is empty")):
        with pytest.raises(InputError, match=message):
            find(source)
    pytest.importorskip("pyarrow", reason="needs the extra prepare")
    monkeypatch.setattr(units, "MIN_UNIT_BYTES", 10)
    (tmp_path / "a.parquet").write_text("this is not a Parquet file")
    with pytest.raises(InputError, match="no readable Parquet"):
        find(tmp_path / "a.parquet")

"""Files of examples: found by names and globs, plain or compressed, and their problems reported together."""

import bz2
import gzip
import json
import lzma

import pytest

from spanbert_jax.errors import InputError
from spanbert_jax.labelled.files import Fields, Problems, find_files, read_json, records, reported_together, text_lines


def test_names_globs_and_commas(tmp_path):
    for name in ("b.txt", "a.txt", "c.conll"):
        (tmp_path / name).write_text("x")
    a, b, c = (str(tmp_path / name) for name in ("a.txt", "b.txt", "c.conll"))
    assert find_files(f"{c}, {tmp_path}/*.txt") == [c, a, b]
    assert find_files([tmp_path / "a.txt", f"{tmp_path}/*.txt"]) == [a, b]
    assert find_files(tmp_path, ("*.conll",)) == [c]
    for missing, said in (
        (f"{tmp_path}/z*", "no file matches"),
        (" , ", "no file is named"),
        (tmp_path, "is a folder"),
    ):
        with pytest.raises(InputError, match="^examples: .*" + said):
            find_files(missing)


@pytest.mark.parametrize("suffix, opened", [("", open), (".gz", gzip.open), (".xz", lzma.open), (".bz2", bz2.open)])
def test_compressed_files_are_read_as_such(tmp_path, suffix, opened):
    path = tmp_path / f"x.jsonl{suffix}"
    with opened(path, "wb") as file:
        file.write('\ufeff{"a": "é"}\r\n\n{"a": "\u2028"}\n'.encode())
    with reported_together() as problems:
        assert list(records(str(path), problems)) == [
            (f"{path}, line 1", {"a": "é"}),
            (f"{path}, line 3", {"a": "\u2028"}),
        ]


def test_a_damaged_archive_is_refused(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"a\n" * 999)[:-9])
    with pytest.raises(InputError, match=r"^examples: .*x\.gz is a damaged \.gz archive"):
        list(text_lines(str(path), Problems()))


def test_records_of_arrays_and_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="reads Parquet")
    parquet = pytest.importorskip("pyarrow.parquet", reason="reads Parquet")
    rows = [{"a": {"b": [1, 2]}}, {"a": {"b": []}}]
    (tmp_path / "x.json").write_text(json.dumps(rows, indent=1))
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    for name in ("x.json", "x.parquet"):
        assert [record for _, record in records(str(tmp_path / name), Problems())] == rows


def test_problems_are_reported_together_up_to_ten(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\nno\n[1]\n\xff\n')
    with pytest.raises(InputError) as error, reported_together() as problems:
        assert len(list(records(str(path), problems))) == 1
    lines = str(error.value).splitlines()
    assert [line.startswith(f"{path}, line {n}: ") for n, line in zip((2, 3, 4), lines)] == [True] * 3
    assert "not JSON" in lines[0] and "list, not a record" in lines[1] and "0xff, not UTF-8" in lines[2]
    path.write_text("no\n" * 1000)
    with pytest.raises(InputError) as error, reported_together() as problems:
        list(records(str(path), problems))
    lines = str(error.value).splitlines()
    assert len(lines) == 11 and lines[-1].startswith(f"{path}, line 11: more is wrong")


def test_json_errors_name_the_line(tmp_path):
    path = tmp_path / "x.json"
    for data, said in ((b'{"a":\n\n}', "line 3: not JSON"), (b'{\n"a": "\xe9"}', "line 2: byte 0xe9 is not UTF-8")):
        path.write_bytes(data)
        with pytest.raises(InputError, match=said):
            read_json(str(path))


def test_fields():
    problems = Problems()
    fields = Fields({"a": 1, "b": True, "c": "\ud83d", "d": None}, "here", problems)
    assert (fields.get("a", int), fields.get("d", str, "x"), fields.wrong) == (1, "x", False)
    assert (fields.get("b", int), fields.get("c", str), fields.get("d", list), fields.wrong) == (0, "", [], True)
    assert "bool, not int" in problems.lines[0] and "surrogate" in problems.lines[1]
    assert problems.lines[2] == "here: no field 'd' (it has 'a', 'b', 'c', 'd'); give it one of type list"
    fields = Fields(3, "there", problems)
    assert fields.wrong and fields.get("a", str) == "" and len(problems.lines) == 4

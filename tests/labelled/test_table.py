"""Tables: the same rows from each format; GLUE's layouts; files of one label each."""

import json
import re

import pytest

from spanbert_jax.errors import InputError
from spanbert_jax.labelled.table import GLUE, Row, read_glue, read_label_files, read_table

ROWS = [Row("0", ('a "b"', "c, d"), "yes"), Row("1", ("e", "f"), "no")]


def written(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_the_same_rows_from_each_format(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="reads Parquet")
    parquet = pytest.importorskip("pyarrow.parquet", reason="reads Parquet")
    records = [{"x": row.texts[0], "n": 1, "y": row.texts[1], "label": row.label} for row in ROWS]
    parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / "t.parquet")
    tsv = "".join(f"{row.texts[0]}\t\t{row.texts[1]}\t{row.label}\n" for row in ROWS)
    csv = '"a ""b""",1,"c, d",yes\ne,1,f,no\n'
    named = [
        written(tmp_path, "t.tsv", "x\tn\ty\tlabel\n" + tsv),
        written(tmp_path, "t.csv", "x,n,y,label\n" + csv),
        written(tmp_path, "t.jsonl", "\n".join(map(json.dumps, records))),
        tmp_path / "t.parquet",
    ]
    for path in named:
        assert read_table(path, ("x", "y")) == ROWS
        unlabelled = read_table(path, ["y"], label=None)
        assert unlabelled == [Row(row.id, row.texts[1:], None) for row in ROWS]
    for path in (written(tmp_path, "u.tsv", tsv), written(tmp_path, "u.csv", csv), *named[:2]):
        assert read_table(path, (0, 2), label=-1) == ROWS
    assert len(read_table(f"{named[0]},{named[1]}", ("x", "y"))) == 4


def test_headers(tmp_path):
    path = written(tmp_path, "t.tsv", "text\tgrade\na\t1.5\n")
    assert read_table(path, (0,), 1, labels_are_numbers=True) == [Row("0", ("a",), 1.5)]
    assert [row.label for row in read_table(path, (0,), 1)] == ["grade", "1.5"]
    assert [row.label for row in read_table(path, (0,), 1, header=True)] == ["1.5"]
    with pytest.raises(InputError, match="without a header, 'text' names no column"):
        read_table(path, ("text",), "grade", header=False)


def test_a_csv_field_may_have_several_lines(tmp_path):
    path = written(tmp_path, "t.csv", 'text,label\n"a\nb",1\nc\n')
    with pytest.raises(InputError, match="line 4: 1 columns, not 2"):
        read_table(path)
    skipped = []
    assert read_table(path, skipped=skipped) == [Row("0", ("a\nb",), "1")] and len(skipped) == 1


@pytest.mark.parametrize(
    "name, text, said",
    [
        ("t.tsv", "text\tlabel\na\nb\t1\t2\n", "line 2: 1 columns, not 2 as in the first; .*\n.*line 3: 3 columns"),
        ("t.tsv", "a\tb\n1\t2\n", "line 1: no column 'text' .it has 'a', 'b'.; .*\n.*no column 'label'"),
        ("t.tsv", "text\tlabel\na\t\n", "line 2: the label is empty"),
        ("t.csv", 'text,label\n"a,1\n', "line 2: its quotes are wrong"),
        ("t.csv", "text,label\n", "has no rows"),
        ("t.csv", "", "has no rows"),
        ("t.jsonl", '{"text": "a"}\n{"text": 3, "label": 1}', "line 1: no field 'label' .*\n.*line 2: field 'text'"),
    ],
)
def test_what_is_malformed(tmp_path, name, text, said):
    with pytest.raises(InputError, match=said):
        read_table(written(tmp_path, name, text))


def test_other_mistakes(tmp_path):
    path = written(tmp_path, "t.tsv", "text\tlabel\na\tnan\nb\tx\nc\t2\n")
    with pytest.raises(InputError, match="line 2: label 'nan' is not a finite number.*\n.*line 3: label 'x'"):
        read_table(path, labels_are_numbers=True)
    with pytest.raises(InputError, match=r"no column 5 \(it has 2 columns\)"):
        read_table(path, (5,), 1)
    with pytest.raises(InputError, match="3 columns of text; give one or two"):
        read_table(path, (0, 1, 2))
    with pytest.raises(InputError, match="not positions such as 0"):
        read_table(written(tmp_path, "t.jsonl", "{}"), (0,))


HEADERS = {
    "sst2": "sentence\tlabel",
    "mrpc": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
    "stsb": "index\tgenre\tsentence1\tsentence2\tscore",
    "qqp": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
    "mnli": "index\tsentence1_parse\tsentence1\tsentence2\tlabel1\tgold_label",
    "qnli": "index\tquestion\tsentence\tlabel",
    "rte": "index\tsentence1\tsentence2\tlabel",
    "wnli": "index\tsentence1\tsentence2\tlabel",
}


@pytest.mark.parametrize("name", GLUE)
def test_glue(tmp_path, name):
    task = GLUE[name]
    label = task.labels[-1] if task.labels else "2.5"
    if name == "cola":
        text, expected = f'gj04\t{label}\t\tSo "it\n', ('So "it',)
        test, expected_test = 'index\tsentence\n0\tSo "it\n', ('So "it',)
    else:
        columns = HEADERS[name].split("\t")
        cells = [label if column.strip("\ufeff") == task.label else f'"{column}' for column in columns]
        text = HEADERS[name] + "\n" + "\t".join(cells) + "\n"
        expected = expected_test = tuple(f'"{column}' for column in task.text)
        kept = [i for i, column in enumerate(columns) if column.strip("\ufeff") != task.label]
        test = "\n".join("\t".join(row[i] for i in kept) for row in (columns, cells))
    for split in ("train", "dev", "test"):
        written(tmp_path, task.file(split), test if split == "test" else text)
    expected_label = float(label) if task.regression else label
    assert read_glue(name, tmp_path, "train") == ([Row("0", expected, expected_label)], [])
    assert read_glue(name, tmp_path, "dev") == ([Row("0", expected, expected_label)], [])
    assert read_glue(name, tmp_path, "test") == ([Row("0", expected_test, None)], [])


def test_broken_lines_of_qqp_are_left_out_and_noted(tmp_path):
    written(tmp_path, "train.tsv", HEADERS["qqp"] + "\n1\t2\t3\ta\tb\t0\n4\t5\n")
    rows, notes = read_glue("qqp", tmp_path, "train")
    assert rows == [Row("0", ("a", "b"), "0")]
    assert re.fullmatch(r".*train.tsv: 1 broken lines are left out: .*line 3: 2 columns, not 6 as in the first", *notes)


def test_mistakes_with_glue(tmp_path):
    written(tmp_path, "dev.tsv", HEADERS["rte"] + "\n0\ta\tb\tneutral\n")
    for arguments, said in (
        (("snli", tmp_path, "dev"), "no task 'snli'; give one of cola"),
        (("rte", tmp_path, "dev_mismatched"), "no split 'dev_mismatched'; give one of train, dev, test$"),
        (("mnli", tmp_path, "valid"), "train, dev, test, dev_mismatched, test_mismatched$"),
        (("rte", tmp_path, "train"), "no file matches"),
        (("rte", tmp_path, "dev"), "labels neutral are none of entailment, not_entailment"),
    ):
        with pytest.raises(InputError, match=said):
            read_glue(*arguments)


def test_files_of_one_label_each(tmp_path):
    (tmp_path / "x.pos").write_bytes("good\n\n é \n".encode())
    (tmp_path / "x.neg").write_bytes("so\ncaf\xe9\n".encode("latin-1"))
    rows, (note,) = read_label_files(f"{tmp_path}/x.*")
    assert rows == [
        Row("x.neg:1", ("so",), "neg"),
        Row("x.neg:2", ("café",), "neg"),
        Row("x.pos:1", ("good",), "pos"),
        Row("x.pos:3", ("é",), "pos"),
    ]
    assert note == f"{tmp_path}/x.neg, line 2: byte 0xe9 is not UTF-8; it is read as Latin-1"
    for name in ("good.txt", "bad.txt"):
        written(tmp_path, name, "a\n")
    assert {row.label for row in read_label_files([tmp_path / "good.txt", tmp_path / "bad.txt"])[0]} == {"good", "bad"}
    with pytest.raises(InputError, match="give a file for each label"):
        read_label_files(tmp_path / "x.pos")
    written(tmp_path, "x.pos", "\n")
    with pytest.raises(InputError, match=r"x\.pos: it has no text"):
        read_label_files(f"{tmp_path}/x.*")

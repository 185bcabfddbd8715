"""Files of sources and targets: tables, records, and what is wrong in them."""

import json

import pytest

from spanbert_jax.errors import InputError
from spanbert_jax.labelled import texts as labelled_texts
from spanbert_jax.labelled.texts import SourceText, read_texts, read_tfds_texts


def lines(path, *rows):
    path.write_text("".join(row + "\n" for row in rows), encoding="utf-8")
    return path


def test_tables_and_records_are_read(tmp_path):
    table = lines(tmp_path / "a.tsv", 'a "dog"\tein Hund', "a cat\teine Katze")
    expected = [SourceText("0", ('a "dog"',), ("ein Hund",)), SourceText("1", ("a cat",), ("eine Katze",))]
    assert read_texts(table, 0, 1) == expected
    assert read_texts(table, 1, None) == [SourceText("0", ("ein Hund",)), SourceText("1", ("eine Katze",))]
    named = lines(tmp_path / "b.csv", "de,en", '"Hund, der",dog')
    assert read_texts(named, "en", "de") == [SourceText("0", ("dog",), ("Hund, der",))]
    records = [dict(source=["One.", "Two."], target=["1 2", "12"], id=7), dict(source="Three.", target="3")]
    path = lines(tmp_path / "c.jsonl", *map(json.dumps, records))
    first, second = read_texts(path, "source", "target")
    assert first == SourceText("7", ("One.", "Two."), ("1 2", "12")) and first.text == "One. Two."
    assert second == SourceText("1", ("Three.",), ("3",))
    assert [example.targets for example in read_texts(path, "source", None)] == [(), ()]


@pytest.mark.parametrize(
    "row, said",
    [
        ('{"source": "a"}', "line 2: no field 'target'"),
        ('{"source": " ", "target": "b"}', "line 2: field 'source' is empty"),
        ('{"source": [], "target": "b"}', "line 2: field 'source' is empty"),
        ('{"source": ["a", 3], "target": "b"}', "line 2: field 'source' is no text or list of texts"),
        ('{"source": "a", "target": 3}', "line 2: field 'target' is int, not str"),
        ('{"source": "a", ', "line 2: not JSON"),
        ('["a", "b"]', "line 2: list, not a record"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_line(tmp_path, row, said):
    path = lines(tmp_path / "a.jsonl", '{"source": "a", "target": "b"}', row)
    with pytest.raises(InputError) as error:
        read_texts(path, "source", "target")
    assert f"{path}, {said}" in str(error.value) and "\n" not in str(error.value)


def test_malformed_tables_are_refused(tmp_path):
    with pytest.raises(InputError, match="line 2: 1 columns, not 2"):
        read_texts(lines(tmp_path / "a.tsv", "a\tb", "c"), 0, 1)
    with pytest.raises(InputError, match="records have names"):
        read_texts(lines(tmp_path / "a.jsonl", '{"a": "b"}'), 0, 1)
    with pytest.raises(InputError, match="no column 'en'"):
        read_texts(lines(tmp_path / "b.tsv", "x\ty", "a\tb"), "en", "y")
    with pytest.raises(InputError, match="line 2: column 1 is empty"):
        read_texts(lines(tmp_path / "c.tsv", "a\tb", "c\t "), 0, 1)


def test_a_data_set_of_tfds_is_read_by_its_fields(monkeypatch):
    monkeypatch.setattr(
        labelled_texts, "read_tfds", lambda name, split: iter([{"en": "dog", "de": "Hund"}, {"en": "cat", "de": ""}])
    )
    with pytest.raises(InputError, match="tfds:wmt, record 1: field 'de' is empty"):
        read_tfds_texts("tfds:wmt", "train", "en", "de")
    assert read_tfds_texts("tfds:wmt", "train", "en", None)[1] == SourceText("1", ("cat",))

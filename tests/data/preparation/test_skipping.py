"""What is no text is skipped, counted and named; a source without text is refused before the long work."""

import json

import pytest

from spanbert_jax.data.preparation import prepare as prepare_module
from spanbert_jax.data.preparation.report import read_report
from spanbert_jax.data.sources import units as units_module
from spanbert_jax.errors import InputError
from tests.data.preparation.settings_for_tests import digests, prepared

TEXTS = [f"the cats sat on {number} mats ." for number in range(40)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Good text in three files, and beside it one of everything that can be skipped; units have about 100 bytes."""
    monkeypatch.setattr(units_module, "MIN_UNIT_BYTES", 100)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("\n\n".join(TEXTS[:20]))
    (tmp_path / "b_empty.txt").write_text("")
    (tmp_path / "c_latin.txt").write_bytes(b"the cats sat\n\nthe caf\xe9\nthe mats\n\nthe mats sat\n\n" * 4)
    records = [{"text": TEXTS[20]}, {"body": "x"}, {"text": None}, {"text": " "}, {"text": [1]}, {"text": TEXTS[21]}]
    (tmp_path / "d.jsonl").write_text("\n".join([*map(json.dumps, records), '{"text": "cut']))
    (tmp_path / "e_blank.jsonl").write_text('{"text": null}\n')
    (tmp_path / "f.txt").write_text("\n\n".join(TEXTS[22:]))
    return tmp_path


SKIPPED = {
    "blank": {
        "count": 3,
        "first": [
            "d.jsonl, line 3: field 'text' is null",
            "d.jsonl, line 4: field 'text' is blank",
            "e_blank.jsonl, line 1: field 'text' is null",
        ],
    },
    "empty": {"count": 2, "first": ["b_empty.txt: it is empty", "e_blank.jsonl: it has no text"]},
    "encoding": {
        "count": 4,
        "first": [f"c_latin.txt, line {3 + 7 * i}: byte {21 + 47 * i} is 0xe9, not UTF-8" for i in range(3)],
    },
    "field": {
        "count": 2,
        "first": [
            "d.jsonl, line 2: no field 'text' (it has 'body')",
            "d.jsonl, line 5: field 'text' is list, not text",
        ],
    },
    "record": {
        "count": 1,
        "first": ["d.jsonl, line 7: not JSON (Unterminated string starting at: line 1 column 10 (char 9))"],
    },
}


@pytest.mark.parametrize("dedup", ["none", "exact"])
def test_everything_that_is_no_text_is_counted_and_named(dedup, folder):
    report = read_report(prepared("*.*", "store", dedup=dedup, valid_fraction=0.0))
    assert report["skipped"] == SKIPPED
    assert report["documents_read"] == 20 + 8 + 2 + 18  # and the others are stored in order, also after a skipped one
    assert report["documents_dropped"]["exact"] == (6 if dedup == "exact" else 0)


def test_the_store_is_that_of_the_text_that_can_be_read(folder):
    dirty = prepared("a.txt,b_empty.txt,d.jsonl,e_blank.jsonl,f.txt", "dirty")
    (folder / "d.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in TEXTS[20:22]))
    clean = prepared("a.txt,d.jsonl,f.txt", "clean")
    assert dirty.split("train").read(0, dirty.split("train").num_tokens).tolist() == (
        clean.split("train").read(0, clean.split("train").num_tokens).tolist()
    )
    assert read_report(clean)["skipped"] == {}


def test_bytes_do_not_depend_on_the_execution(folder):
    prepared("*.*", "first", dedup="exact")
    prepared("*.*", "second", dedup="exact", workers=2)
    assert digests("first") == digests("second")


def test_a_part_of_parquet_without_rows(folder):
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra prepare")
    import pyarrow.parquet as pq

    for number, texts in enumerate((TEXTS[:20], [], TEXTS[20:])):
        pq.write_table(pyarrow.table({"text": pyarrow.array(texts, pyarrow.string())}), f"part-{number}.parquet")
    report = read_report(prepared("part-*.parquet", "store"))
    assert report["documents_read"] == 40
    assert report["skipped"] == {"empty": {"count": 1, "first": ["part-1.parquet: it has no text"]}}


@pytest.mark.parametrize(
    "source, message",
    [
        ("a.txt,b_empty.txt", "corpus: b_empty.txt: it is empty; remove it"),
        ("a.txt,c_latin.txt", "corpus: c_latin.txt, line 3: byte 21 is 0xe9"),
        ("d.jsonl", "corpus: d.jsonl, line 2: no field 'text'"),
        ("a.txt,e_blank.jsonl", "corpus: e_blank.jsonl: it has no text"),
    ],
)
@pytest.mark.parametrize("dedup", ["none", "exact"])
def test_strict_refuses_the_first(source, message, dedup, folder):
    before = set(folder.iterdir())
    with pytest.raises(InputError, match=f"^{message}"):
        prepared(source, "store", strict=True, dedup=dedup, valid_fraction=0.0)
    assert {path.name for path in set(folder.iterdir()) - before} <= {"store.partial"}  # what is finished is kept


def test_strict_changes_no_byte_of_a_store_and_can_be_given_later(folder):
    prepared("a.txt,f.txt", "loose")
    prepared("a.txt,f.txt", "strict", strict=True)
    assert digests("loose") == digests("strict")

    def interrupt(items, description, number):
        for count, item in enumerate(items, 1):
            yield item
            if count == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared("a.txt,c_latin.txt,f.txt,d.jsonl", "store", watch=interrupt)
    with pytest.raises(InputError, match="c_latin.txt, line 3"):  # though its unit was finished before
        prepared("a.txt,c_latin.txt,f.txt,d.jsonl", "store", strict=True)
    prepared("a.txt,c_latin.txt,f.txt,d.jsonl", "store")


@pytest.mark.parametrize(
    "source, field, message",
    [
        ("b_empty.txt", "text", r"b_empty.txt holds no text \(b_empty.txt: it is empty\); remove it from the input$"),
        (
            "d.jsonl",
            "body2",
            r"d.jsonl holds no text but 7 problems, such as d.jsonl, line 1: no field 'body2' .*; name",
        ),
        (
            "e_blank.jsonl,e_blank.jsonl",
            "text",
            r"holds no text but 2 problems, such as e_blank.jsonl: it has no text;",
        ),
    ],
)
def test_a_source_without_text_is_refused_before_the_work(source, field, message, folder):
    with pytest.raises(InputError, match=message):
        prepared(source, "store", field=field, watch=lambda *_: pytest.fail("the work was begun"))
    assert not (folder / "store.partial").exists()


def test_a_source_that_begins_with_nothing_but_problems_is_not_read_to_its_end(folder, monkeypatch):
    monkeypatch.setattr(prepare_module, "MAX_PROBLEMS", 10)
    (folder / "long.jsonl").write_text('{"text": null}\n' * 50 + '{"body": "x"}\n' * 9 + '{"text": "the cat"}\n')
    assert read_report(prepared("long.jsonl", "store", valid_fraction=0.0))["documents_read"] == 1
    (folder / "long.jsonl").write_text('{"body": "x"}\n' * 10 + '{"text": "the cat"}\n')
    with pytest.raises(InputError, match=r"holds no text but 10 problems, such as long.jsonl, line 1: no field 'text'"):
        prepared("long.jsonl", "again", valid_fraction=0.0)

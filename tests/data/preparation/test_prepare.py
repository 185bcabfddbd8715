"""A store contains its source, in the same bytes for any execution; errors are reported in one line and leave no
files.
"""

import itertools
import json
import os

import numpy as np
import pytest

from spanbert_jax.data.preparation import prepare as prepare_module
from spanbert_jax.data.preparation import workers as workers_module
from spanbert_jax.data.preparation.cleaning import is_held_out
from spanbert_jax.data.sources import units as units_module
from spanbert_jax.data.store import SPLITS
from spanbert_jax.data.tokenizer import load_tokenizer
from spanbert_jax.errors import InputError
from tests.data.preparation.settings_for_tests import digests, prepared

TOKENIZER = load_tokenizer("tiny", "auto")


def random_documents(seed: int, count: int) -> list[list[str]]:
    draw = np.random.default_rng(seed)
    words = ["the", "Cats", "sat", "on", "mats", ".", "\N{SNOWMAN}", "cafe\N{COMBINING ACUTE ACCENT}"]

    def sentence():
        return " ".join(draw.choice(words, draw.integers(1, 40)))

    return [[sentence() for _ in range(draw.integers(1, 5))] for _ in range(count)]


def write(path, documents):
    path.write_text("\n\n".join("\n".join(document) for document in documents) + "\n", encoding="utf-8")


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Sixty documents in six files, with two exact duplicates; units have about 1500 bytes."""
    monkeypatch.setattr(units_module, "MIN_UNIT_BYTES", 1500)
    documents = random_documents(0, 60)
    documents[31], documents[45] = documents[3], documents[44]
    (tmp_path / "text").mkdir()
    for number in range(6):
        write(tmp_path / "text" / f"{number}.txt", documents[10 * number : 10 * number + 10])
    return documents


def ids_of(split) -> list[list[list[int]]]:
    """Token ids of each sentence of each document."""
    sentence_ranges = itertools.pairwise(split.sentence_offsets().tolist())
    sentences = [split.read(start, end - start).tolist() for start, end in sentence_ranges]
    return [sentences[start:end] for start, end in itertools.pairwise(split.document_offsets())]


def test_all_documents_are_stored_in_order(files, tmp_path):
    store = prepared(tmp_path / "text" / "*.txt", tmp_path / "store")
    for split in SPLITS:
        expected = [document for document in files if is_held_out(document, 0.2) == (split == "valid")]
        assert expected
        assert ids_of(store.split(split)) == [TOKENIZER.encode(document) for document in expected]
    assert len(store.index["splits"]["train"]["shards"]) > 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "text"]


CLEANED = dict(dedup="near", unicode="NFC", min_words=3)


@pytest.mark.parametrize("execution", [dict(workers=3), dict(runner="DirectRunner")], ids=str)
def test_bytes_do_not_depend_on_the_execution(execution, files, tmp_path):
    if "runner" in execution:
        pytest.importorskip("apache_beam", reason="needs the extra beam")
    pytest.importorskip("rensa", reason="needs the extra prepare")
    source = tmp_path / "text" / "*.txt"
    prepared(source, tmp_path / "first", **CLEANED)
    prepared(source, tmp_path / "second", **CLEANED, **execution)
    assert digests(tmp_path / "first") == digests(tmp_path / "second")


def test_the_first_of_exact_duplicates_is_kept(files, tmp_path):
    source = tmp_path / "text" / "*.txt"
    store = prepared(source, tmp_path / "store", dedup="exact", valid_fraction=0.0)
    expected = [document for number, document in enumerate(files) if number not in (31, 45)]
    assert ids_of(store.split("train")) == [TOKENIZER.encode(document) for document in expected]


def test_held_out_documents_stay_held_out_when_the_corpus_grows(files, tmp_path):
    small = ids_of(prepared(tmp_path / "text" / "[0-2].txt", tmp_path / "small").split("valid"))
    large = ids_of(prepared(tmp_path / "text" / "*.txt", tmp_path / "large").split("valid"))
    assert small and large[: len(small)] == small


def test_vocabulary_is_trained_on_the_training_split(files, tmp_path, monkeypatch):
    def word(letter, held_out):
        words = (f"{letter}{number}" for number in range(100))
        return next(word for word in words if is_held_out([word], 0.2) == held_out)

    text = f"{word('Ж', held_out=False)}\n\n{word('Щ', held_out=True)}\n"
    (tmp_path / "text" / "6.txt").write_text(text, encoding="utf-8")
    store = prepared(tmp_path / "text" / "*.txt", tmp_path / "store", train_vocab=150)
    tokenizer = store.tokenizer()
    assert "Cats" in tokenizer.tokens and "Ж" in tokenizer.tokens and "Щ" not in tokenizer.tokens
    assert tokenizer.vocab_size <= 150
    prepared(tmp_path / "text" / "*.txt", tmp_path / "again", train_vocab=150)
    assert digests(tmp_path / "store") == digests(tmp_path / "again")
    monkeypatch.setattr(prepare_module, "VOCABULARY_CHARACTERS", 100)  # the first document of each unit
    assert "Ж" not in prepared(tmp_path / "text" / "*.txt", tmp_path / "less", train_vocab=150).tokenizer().tokens


def test_an_interrupted_preparation_is_continued(files, tmp_path):
    source = tmp_path / "text" / "*.txt"

    def interrupt(items, description, number):
        for count, item in enumerate(items, 1):
            yield item
            if description == "tokenising" and count == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared(source, tmp_path / "store", watch=interrupt, dedup="exact")
    assert not (tmp_path / "store").exists()
    units = tmp_path / "store.partial" / "units"
    finished = {path: path.stat().st_mtime_ns for path in units.iterdir()}
    assert finished
    message = "store.partial: begun with another configuration.*unicode was 'none', now 'NFC'.*remove that folder"
    with pytest.raises(InputError, match=message):
        prepared(source, tmp_path / "store", dedup="exact", unicode="NFC")
    finished_at_last = {}

    def note_finished(items, description, number):
        yield from items
        if description == "tokenising":
            finished_at_last.update({path: path.stat().st_mtime_ns for path in units.iterdir()})

    prepared(source, tmp_path / "store", watch=note_finished, dedup="exact")
    assert finished.items() <= finished_at_last.items()  # no work was repeated
    prepared(source, tmp_path / "whole", dedup="exact")
    assert digests(tmp_path / "store") == digests(tmp_path / "whole")
    assert not (tmp_path / "store.partial").exists()


def test_changed_input_is_refused(files, tmp_path):
    def interrupt(items, description, number):
        yield next(items)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared(tmp_path / "text" / "*.txt", tmp_path / "store", watch=interrupt)
    (tmp_path / "text" / "5.txt").write_text("other\n")
    with pytest.raises(InputError, match=r"the input has changed \(.*txt.*remove that folder"):
        prepared(tmp_path / "text" / "*.txt", tmp_path / "store")


def test_one_preparation_at_a_time(files, tmp_path):
    def prepare_again(items, description, number):
        with pytest.raises(InputError, match="in use by another run"):
            prepared(tmp_path / "text" / "*.txt", tmp_path / "store")
        return items

    prepared(tmp_path / "text" / "*.txt", tmp_path / "store", watch=prepare_again)


def test_a_worker_that_dies_is_reported(files, tmp_path, monkeypatch):
    monkeypatch.setattr(workers_module, "start_worker", die)
    with pytest.raises(InputError, match="a worker was killed"):
        prepared(tmp_path / "text" / "*.txt", tmp_path / "store", workers=2)


def die(function):
    os._exit(9)


@pytest.mark.parametrize("execution", [dict(workers=1), dict(workers=2), dict(runner="DirectRunner")], ids=str)
def test_an_error_in_the_text_leaves_no_files(execution, files, tmp_path):
    if "runner" in execution:
        pytest.importorskip("apache_beam", reason="needs the extra beam")
    (tmp_path / "text" / "0.txt").write_bytes(b"the cat\n\nthe caf\xe9\n" * 2)
    with pytest.raises(InputError, match=r"^corpus: [^ ]*0\.txt, line 3: byte 16 is 0xe9, [^\n]*$"):
        prepared(tmp_path / "text" / "0.txt", tmp_path / "a" / "store", strict=True, **execution)
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_a_setting_that_helps_is_known_whoever_raised_the_error(tmp_path):
    pytest.importorskip("apache_beam", reason="needs the extra beam")
    (tmp_path / "a.jsonl").write_text('{"text": "the cat"}\n{"body": "the cat"}\n')
    for execution in (dict(workers=1), dict(runner="DirectRunner")):
        with pytest.raises(InputError, match=r"line 2: no field 'text'.*; name the field with the text$") as error:
            prepared(tmp_path / "a.jsonl", tmp_path / "store", strict=True, valid_fraction=0.0, **execution)
        assert error.value.setting == "field"


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(input="absent*.txt"), "no file matches"),
        (dict(vocab="absent.txt"), "vocabulary absent.txt"),
        (dict(lowercase="maybe"), "'maybe'"),
        (dict(valid_fraction=1.5), "1.5"),
        (dict(valid_fraction=1e-12), "none of the 60 documents"),
        (dict(unicode="NFX"), "'NFX'"),
        (dict(dedup="some"), "'some'"),
        (dict(near_threshold=0.0), "near_threshold"),
        (dict(min_words=-1), "-1"),
        (dict(workers=-1), "-1"),
        (dict(min_words=1000), "60 were dropped.*the split 'train'; check min_words and the text$"),
        (dict(sentences="klingon"), "klingon"),
        (dict(tags=("nouns",)), "nouns"),
        (dict(seq_len=2), "seq_len"),
        (dict(format="csv"), "format must be one of auto, text, jsonl, json, parquet, wiki, not 'csv'"),
    ],
)
def test_errors_in_settings_leave_no_files(changes, message, files, tmp_path):
    arguments = {"source": tmp_path / "text" / "*.txt"} | changes
    if "input" in arguments:
        arguments["source"] = tmp_path / arguments.pop("input")
    with pytest.raises(InputError, match=message) as error:
        prepared(folder=tmp_path / "a" / "b" / "store", **arguments)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "a" / "b" / "store").exists()
    after_tokenising = "documents" in message or "dropped" in message  # what is finished is kept for another try
    assert (tmp_path / "a").exists() == after_tokenising


def test_an_existing_folder_is_not_replaced(files, tmp_path):
    source = tmp_path / "text" / "*.txt"
    prepared(source, tmp_path / "store")
    before = digests(tmp_path / "store")
    with pytest.raises(InputError, match="already"):
        prepared(source, tmp_path / "store", watch=lambda *_: pytest.fail("text was read"))
    assert digests(tmp_path / "store") == before
    (tmp_path / "empty").mkdir()
    prepared(source, tmp_path / "empty")  # an empty folder is
    assert digests(tmp_path / "empty") == before
    assert json.loads((tmp_path / "store" / "report.json").read_text())["documents_read"] == 60


def test_all_invalid_settings_are_named_at_once(tmp_path):
    with pytest.raises(InputError) as error:
        prepared("embedded", tmp_path / "store", unicode="NFX", dedup="some", seq_len=2, valid_fraction=7)
    assert len(str(error.value).splitlines()) == 4

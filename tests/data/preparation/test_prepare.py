"""A prepared store holds what its source says, in the same bytes whoever made it; mistakes are told in one line and leave nothing."""

import json

import numpy as np
import pytest

from spanbert_jax.data.preparation import prepare as prepare_module
from spanbert_jax.data.preparation import workers as workers_module
from spanbert_jax.data.preparation.cleaning import is_held_out
from spanbert_jax.data.sources import units as units_module
from spanbert_jax.data.store import SPLITS
from spanbert_jax.data.tokenizer import load_tokenizer
from spanbert_jax.errors import InputError
from tests.data.preparation.settings_for_tests import content, made

TOKENIZER = load_tokenizer("tiny", "auto")


def random_documents(seed: int, count: int) -> list[list[str]]:
    draw = np.random.default_rng(seed)
    words = ["the", "Cats", "sat", "on", "mats", ".", "\N{SNOWMAN}", "cafe\N{COMBINING ACUTE ACCENT}"]
    return [
        [" ".join(draw.choice(words, draw.integers(1, 40))) for _ in range(draw.integers(1, 5))] for _ in range(count)
    ]


def write(path, documents):
    path.write_text("\n\n".join("\n".join(document) for document in documents) + "\n", encoding="utf-8")


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Six files with sixty documents, of which some stand twice; a unit is some 1500 bytes."""
    monkeypatch.setattr(units_module, "SMALLEST", 1500)
    documents = random_documents(0, 60)
    documents[31], documents[45] = documents[3], documents[44]
    (tmp_path / "text").mkdir()
    for number in range(6):
        write(tmp_path / "text" / f"{number}.txt", documents[10 * number : 10 * number + 10])
    return documents


def ids_of(split) -> list[list[list[int]]]:
    sentences, documents = split.sentence_offsets(), split.document_offsets()
    read = [
        split.read(int(start), int(end - start)).tolist()
        for start, end in zip(sentences[:-1], sentences[1:], strict=True)
    ]
    return [read[low:high] for low, high in zip(documents[:-1], documents[1:], strict=True)]


def test_everything_is_there_in_order(files, tmp_path):
    store = made(tmp_path / "text" / "*.txt", tmp_path / "store")
    for split in SPLITS:
        chosen = [document for document in files if is_held_out(document, 0.2) == (split == "valid")]
        assert chosen
        assert ids_of(store.split(split)) == [TOKENIZER.encode(document) for document in chosen]
    assert len(store.index["splits"]["train"]["shards"]) > 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store", "text"]


CLEANED = dict(dedup="near", unicode="NFC", min_words=3)


@pytest.mark.parametrize("means", [dict(workers=3), dict(runner="DirectRunner")], ids=str)
def test_same_bytes_whoever_makes_it(means, files, tmp_path):
    if "runner" in means:
        pytest.importorskip("apache_beam", reason="needs the extra beam")
    pytest.importorskip("rensa", reason="needs the extra prepare")
    source = tmp_path / "text" / "*.txt"
    made(source, tmp_path / "one", **CLEANED)
    made(source, tmp_path / "other", **CLEANED, **means)
    assert content(tmp_path / "one") == content(tmp_path / "other")


def test_equal_documents_stay_once_and_first(files, tmp_path):
    source = tmp_path / "text" / "*.txt"
    store = made(source, tmp_path / "store", dedup="exact", valid_fraction=0.0)
    expected = [document for number, document in enumerate(files) if number not in (31, 45)]
    assert ids_of(store.split("train")) == [TOKENIZER.encode(document) for document in expected]


def test_held_out_documents_stay_so_when_the_corpus_grows(files, tmp_path):
    small = ids_of(made(tmp_path / "text" / "[0-2].txt", tmp_path / "small").split("valid"))
    large = ids_of(made(tmp_path / "text" / "*.txt", tmp_path / "large").split("valid"))
    assert small and large[: len(small)] == small


def test_vocabulary_of_the_training_text(files, tmp_path, monkeypatch):
    known, secret = (
        next(word for word in (f"{letter}{number}" for number in range(100)) if is_held_out([word], 0.2) == held_out)
        for letter, held_out in (("Ж", False), ("Щ", True))
    )
    (tmp_path / "text" / "6.txt").write_text(f"{known}\n\n{secret}\n", encoding="utf-8")
    store = made(tmp_path / "text" / "*.txt", tmp_path / "store", train_vocab=150)
    tokenizer = store.tokenizer()
    assert "Cats" in tokenizer.tokens and "Ж" in tokenizer.tokens and "Щ" not in tokenizer.tokens
    assert tokenizer.vocab_size <= 150
    made(tmp_path / "text" / "*.txt", tmp_path / "again", train_vocab=150)
    assert content(tmp_path / "store") == content(tmp_path / "again")
    monkeypatch.setattr(prepare_module, "VOCABULARY_CHARACTERS", 100)  # the first document of each unit
    assert "Ж" not in made(tmp_path / "text" / "*.txt", tmp_path / "less", train_vocab=150).tokenizer().tokens


def test_goes_on_where_it_was_stopped(files, tmp_path):
    source, done = tmp_path / "text" / "*.txt", []

    def stop(steps, what, number):
        for step in steps:
            yield step
            if what == "tokenising":
                done.append(what)
            if len(done) == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(source, tmp_path / "store", watch=stop, dedup="exact")
    assert not (tmp_path / "store").exists()
    units = tmp_path / "store.partial" / "units"
    finished = {path: path.stat().st_mtime_ns for path in units.iterdir()}
    assert finished
    with pytest.raises(
        InputError, match="store.partial: begun otherwise.*unicode 'none', now 'NFC'.*remove that folder"
    ):
        made(source, tmp_path / "store", dedup="exact", unicode="NFC")
    seen = {}

    def look(steps, what, number):
        yield from steps
        if what == "tokenising":
            seen.update({path: path.stat().st_mtime_ns for path in units.iterdir()})

    made(source, tmp_path / "store", watch=look, dedup="exact")
    assert finished.items() <= seen.items()  # nothing was done twice
    made(source, tmp_path / "whole", dedup="exact")
    assert content(tmp_path / "store") == content(tmp_path / "whole")
    assert not (tmp_path / "store.partial").exists()


def test_changed_input_is_told(files, tmp_path):
    def stop(steps, what, number):
        yield next(steps)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "text" / "*.txt", tmp_path / "store", watch=stop)
    (tmp_path / "text" / "5.txt").write_text("other\n")
    with pytest.raises(InputError, match=r"the input has changed \(.*txt.*remove that folder"):
        made(tmp_path / "text" / "*.txt", tmp_path / "store")


def test_one_run_at_a_time(files, tmp_path):
    def again(steps, what, number):
        with pytest.raises(InputError, match="in use by another run"):
            made(tmp_path / "text" / "*.txt", tmp_path / "store")
        return steps

    made(tmp_path / "text" / "*.txt", tmp_path / "store", watch=again)


def test_a_worker_that_dies_is_told(files, tmp_path, monkeypatch):
    monkeypatch.setattr(workers_module, "begin", die)
    with pytest.raises(InputError, match="a worker was killed"):
        made(tmp_path / "text" / "*.txt", tmp_path / "store", workers=2)


def die(function):
    import os

    os._exit(9)


@pytest.mark.parametrize("means", [dict(workers=1), dict(workers=2), dict(runner="DirectRunner")], ids=str)
def test_a_mistake_of_the_text_leaves_nothing(means, files, tmp_path):
    if "runner" in means:
        pytest.importorskip("apache_beam", reason="needs the extra beam")
    (tmp_path / "text" / "0.txt").write_bytes(b"the cat\nthe caf\xe9\n" * 2)
    with pytest.raises(InputError, match=r"^corpus: [^ ]*0\.txt, line 2, byte 15: 0xe9 [^\n]*$"):
        made(tmp_path / "text" / "0.txt", tmp_path / "a" / "store", **means)
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


@pytest.mark.parametrize(
    "changes, said",
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
        (dict(min_words=1000), "60 were left out, fell into the train split.*min_words"),
        (dict(sentences="klingon"), "klingon"),
        (dict(tags=("nouns",)), "nouns"),
        (dict(seq_len=2), "seq_len"),
    ],
)
def test_mistakes_leave_nothing(changes, said, files, tmp_path, monkeypatch):
    arguments = {"source": tmp_path / "text" / "*.txt"} | changes
    if "input" in arguments:
        arguments["source"] = tmp_path / arguments.pop("input")
    with pytest.raises(InputError, match=said) as error:
        made(folder=tmp_path / "a" / "b" / "store", **arguments)
    assert "\n" not in str(error.value)


def test_never_replaces_what_is_there(files, tmp_path):
    source = tmp_path / "text" / "*.txt"
    made(source, tmp_path / "store")
    before = content(tmp_path / "store")
    with pytest.raises(InputError, match="already"):
        made(source, tmp_path / "store", watch=lambda *_: pytest.fail("it was read"))
    assert content(tmp_path / "store") == before
    (tmp_path / "empty").mkdir()
    made(source, tmp_path / "empty")
    assert content(tmp_path / "empty") == before
    assert json.loads((tmp_path / "store" / "report.json").read_text())["documents_read"] == 60

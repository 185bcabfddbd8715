"""Preparing a store: what is told of it is what is in it, and what pretraining reads."""

import io
import re

import numpy as np
import pytest
from rich.console import Console

from spanbert_jax.data.blocks import build_rows
from spanbert_jax.data.prepare import PACKINGS, contents, prepare
from spanbert_jax.data.tokenizer import load_tokenizer
from spanbert_jax.errors import InputError


@pytest.fixture
def text(tmp_path):
    draw = np.random.default_rng(0)
    words = ["the", "cats", "sat", "on", "mats", ".", "\N{SNOWMAN}"]  # the last is in no embedded vocabulary
    documents = ["\n".join(" ".join(draw.choice(words, draw.integers(1, 60))) for _ in range(draw.integers(1, 5))) for _ in range(60)]
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(documents), encoding="utf-8")
    return path


def made(text, folder, **changes):
    seen = {}

    def watch(documents, split):
        for document in documents:
            seen[split] = seen.get(split, 0) + 1
            yield document

    arguments = dict(source=str(text), folder=folder, vocab="tiny", lowercase="auto", valid_fraction=0.2, watch=watch) | changes
    return prepare(**arguments), seen


def test_what_is_told_is_what_is_there(text, tmp_path):
    store, seen = made(text, tmp_path / "a" / "store")
    console = Console(file=io.StringIO(), width=200)
    console.print(contents(store, 64))
    told = [re.split(r"\s{2,}", line.strip()) for line in console.file.getvalue().splitlines()]
    tokenizer = load_tokenizer("tiny", "auto")
    rows = {}
    for name in ("train", "valid"):
        split = store.split(name)
        assert split.num_documents == seen[name] > 0
        unknown = sum(piece == tokenizer.unk_id for piece in split.read(0, split.num_tokens)) / split.num_tokens
        assert unknown > 0.05
        assert [name, *(f"{count:,}" for count in (split.num_documents, split.num_sentences, split.num_tokens)), f"{unknown:.3%}"] in told
        rows[name] = [build_rows(split, 64, blocks, tokenizer.starts_word) for blocks in PACKINGS]
    assert sum(seen.values()) == 60
    for number, blocks in enumerate(PACKINGS):
        cells = [(f"{of[number].num_rows:,}", f"{of[number].padding_fraction:.1%}") for of in (rows["train"], rows["valid"])]
        assert [str(blocks), *cells[0], *cells[1]] in told
    assert rows["train"][0].padding_fraction > rows["train"][-1].padding_fraction + 0.1  # packing is seen to help


def test_a_split_without_text_is_not_told_of(text, tmp_path):
    store, _ = made(text, tmp_path / "store", valid_fraction=0.0)
    console = Console(file=io.StringIO(), width=200)
    console.print(contents(store, 512))
    assert "train" in console.file.getvalue() and "valid" not in console.file.getvalue()


def test_nothing_is_read_for_a_folder_that_is_taken(text, tmp_path):
    made(text, tmp_path / "store")
    before = {path: path.read_bytes() for path in (tmp_path / "store").iterdir()}
    with pytest.raises(InputError, match="already"):
        made(text, tmp_path / "store", watch=lambda documents, split: map(pytest.fail, documents))
    assert {path: path.read_bytes() for path in (tmp_path / "store").iterdir()} == before


@pytest.mark.parametrize("changes, said", [
    (dict(source="absent*.txt"), "no file matches"), (dict(vocab="absent.txt"), "vocabulary absent.txt"),
    (dict(lowercase="maybe"), "'maybe'"), (dict(valid_fraction=1.5), "1.5"), (dict(valid_fraction=1e-12), "none of the 60 documents"),
])
def test_mistakes_leave_nothing(changes, said, text, tmp_path):
    with pytest.raises(InputError, match=said):
        made(text, tmp_path / "a" / "b" / "store", **changes)
    assert list(tmp_path.iterdir()) == [text]

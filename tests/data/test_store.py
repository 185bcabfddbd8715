"""The store gives back what was written, whole or not at all."""

import json
import os

import numpy as np
import pytest

from spanbert_jax.data import store as store_module
from spanbert_jax.data.store import open_store, token_dtype, write_store
from spanbert_jax.data.tokenizer import SPECIAL_PIECES, Tokenizer
from spanbert_jax.errors import InputError

WORDS = ["the", "cat", "##s", "sat", "on", "mat", "."]
TOKENIZER = Tokenizer([*SPECIAL_PIECES, *WORDS], True, "test")
VALID = [["the cat", "the mat"]]
EMPTY = "\u200b\x07"  # not blank, and without a piece


def random_documents(seed: int, count: int) -> list[list[str]]:
    draw = np.random.default_rng(seed)
    words = ["cats", "sat", "on", "mat."]
    return [[" ".join(draw.choice(words, draw.integers(1, 30))) for _ in range(draw.integers(1, 9))] for _ in range(count)]


@pytest.fixture
def texts():
    return random_documents(0, 40)


def make(folder, texts):
    write_store(folder, TOKENIZER, {"train": texts, "valid": VALID})
    return open_store(folder)


def sentences_of(split):
    """All documents of a split as nested lists of ids, read back sentence by sentence."""
    sentences, documents = split.sentence_offsets(), split.document_offsets()
    read = [split.read(int(start), int(end - start)).tolist() for start, end in zip(sentences[:-1], sentences[1:], strict=True)]
    return [read[low:high] for low, high in zip(documents[:-1], documents[1:], strict=True)]


@pytest.mark.parametrize("shard_tokens", [1, 300, 1 << 28])
@pytest.mark.parametrize("chunk_characters", [1, 500, 1 << 20])
def test_everything_comes_back(shard_tokens, chunk_characters, texts, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "SHARD_TOKENS", shard_tokens)
    monkeypatch.setattr(store_module, "CHUNK_CHARACTERS", chunk_characters)
    split = make(tmp_path / "store", texts).split("train")
    expected = [TOKENIZER.encode(document) for document in texts]
    assert sentences_of(split) == expected
    pieces = [i for document in expected for sentence in document for i in sentence]
    assert split.read(0, split.num_tokens).tolist() == pieces
    assert split.read(7, 500).tolist() == pieces[7:507]
    assert (split.num_tokens, split.num_sentences, split.num_documents) == (len(pieces), sum(map(len, expected)), len(expected))
    assert split.piece_counts.tolist() == np.bincount(pieces, minlength=TOKENIZER.vocab_size).tolist()
    assert split.sentence_offsets().dtype == split.document_offsets().dtype == split.piece_counts.dtype == np.int64
    assert (len(split.store.index["splits"]["train"]["shards"]) > 1) == (shard_tokens < len(pieces))


def test_text_without_pieces_leaves_no_trace(tmp_path):
    split = make(tmp_path / "store", [[EMPTY], ["the cat", EMPTY, "sat"], [EMPTY, EMPTY]]).split("train")
    assert sentences_of(split) == [[[5, 6], [8]]]


def test_reading_outside_is_an_error(tmp_path):
    split = make(tmp_path / "store", [["the cat sat"]]).split("train")
    assert split.read(3, 0).tolist() == []
    for start, count in ((0, 4), (3, 1), (-1, 2), (2, -1)):
        with pytest.raises(IndexError):
            split.read(start, count)


def test_wide_vocabularies_get_wide_tokens(tmp_path):
    assert [token_dtype(size).itemsize for size in (1 << 16, (1 << 16) + 1)] == [2, 4]
    wide = Tokenizer([*SPECIAL_PIECES, *(f"w{i}" for i in range(1 << 16))], False, "test")
    write_store(tmp_path / "store", wide, {"train": [["w65535 w0"]]})
    assert open_store(tmp_path / "store").split("train").read(0, 2).tolist() == [65540, 5]


def test_tokenizer_travels_with_the_store(texts, tmp_path):
    store = make(tmp_path / "store", texts)
    assert store.tokenizer().fingerprint == store.tokenizer_fingerprint == TOKENIZER.fingerprint
    assert store.vocab_size == TOKENIZER.vocab_size
    store.require(TOKENIZER)
    other = Tokenizer(TOKENIZER.pieces, False, "test")
    with pytest.raises(InputError) as error:
        store.require(other)
    assert TOKENIZER.fingerprint[:12] in str(error.value) and other.fingerprint[:12] in str(error.value)
    (store.folder / "vocab.txt").write_text("\n".join([*SPECIAL_PIECES, "other"]))
    with pytest.raises(InputError, match="another vocabulary"):
        store.tokenizer()


def test_fingerprint_is_of_the_content(texts, tmp_path):
    prints = [make(tmp_path / str(i), content).fingerprint for i, content in enumerate((texts, texts, texts[1:], texts[::-1]))]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def test_failure_leaves_nothing_behind(tmp_path):
    def broken():
        yield ["the cat"]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_store(tmp_path / "store", TOKENIZER, {"train": broken()})
    with pytest.raises(InputError, match="training split holds no text"):
        write_store(tmp_path / "store", TOKENIZER, {"train": [[EMPTY]]})
    assert os.listdir(tmp_path) == []


def test_never_replaces_what_is_there(texts, tmp_path):
    store = make(tmp_path / "store", texts)
    (tmp_path / "file").write_text("precious")
    for name in ("store", "file"):
        with pytest.raises(InputError, match="already"):
            make(tmp_path / name, texts[1:])
    assert open_store(tmp_path / "store").fingerprint == store.fingerprint
    assert sorted(os.listdir(tmp_path)) == ["file", "store"]
    (tmp_path / "empty").mkdir()
    assert make(tmp_path / "empty", texts).fingerprint == store.fingerprint


def test_loses_a_race_politely(texts, tmp_path):
    def slow():
        yield from texts
        make(tmp_path / "store", texts)  # another process was faster

    with pytest.raises(InputError, match="already"):
        write_store(tmp_path / "store", TOKENIZER, {"train": slow()})
    assert os.listdir(tmp_path) == ["store"]
    assert "valid" in open_store(tmp_path / "store").index["splits"]


def test_unwritable_place(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        make(tmp_path / "file" / "store", VALID)


def test_refuses_damaged_stores(texts, tmp_path):
    store = make(tmp_path / "store", texts)
    with pytest.raises(InputError, match="no split 'test'"):
        store.split("test")
    tokens = store.folder / "train-00000.tokens"
    tokens.write_bytes(tokens.read_bytes()[:-2])
    with pytest.raises(InputError, match="train-00000.tokens has .* bytes instead of"):
        store.split("train")
    (store.folder / "valid.counts").unlink()
    with pytest.raises(InputError, match="valid.counts is missing"):
        store.split("valid")
    index = store.folder / "index.json"
    later = json.dumps(store.index | {"format": 99})
    for text in (later, "{", "[]", '{"format": 1}'):
        index.write_text(text)
        with pytest.raises(InputError, match="format 99" if text == later else "damaged"):
            open_store(store.folder)
    index.unlink()
    with pytest.raises(InputError, match="no index.json"):
        open_store(store.folder)

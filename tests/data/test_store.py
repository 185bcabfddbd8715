"""A store returns what was written to it, and is complete or does not exist."""

import concurrent.futures
import itertools
import json
import os

import numpy as np
import pytest

from spanbert_jax.data import shard as shard_module
from spanbert_jax.data.shard import token_dtype
from spanbert_jax.data.store import open_store, write_store
from spanbert_jax.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from spanbert_jax.errors import InputError

WORDS = ["the", "cat", "##s", "sat", "on", "mat", "."]
TOKENIZER = Tokenizer([*SPECIAL_TOKENS, *WORDS], True, "test")
VALID = [["the cat", "the mat"]]
EMPTY = "\u200b\x07"  # not blank, but without a token


def random_documents(seed: int, count: int) -> list[list[str]]:
    draw = np.random.default_rng(seed)
    words = ["cats", "sat", "on", "mat."]
    return [
        [" ".join(draw.choice(words, draw.integers(1, 30))) for _ in range(draw.integers(1, 9))] for _ in range(count)
    ]


@pytest.fixture
def texts():
    return random_documents(0, 40)


class Tagger:
    """Tags tokens that begin with c, and long ones; the interface is that of tagging.Tagger."""

    kinds = ("c", "long")

    def describe(self):
        return {kind: {"of": "test"} for kind in self.kinds}

    def tags(self, sentences, offsets):
        pairs = zip(sentences, offsets, strict=True)
        tokens = [[sentence[start:end] for start, end in ranges] for sentence, ranges in pairs]
        return {
            "c": [np.array([token[0] == "c" for token in line], np.bool_) for line in tokens],
            "long": [np.array([len(token) > 2 for token in line], np.bool_) for line in tokens],
        }


def make(folder, texts, **options):
    write_store(folder, TOKENIZER, {"train": texts, "valid": VALID}, **options)
    return open_store(folder)


def documents_of(split):
    """Returns all documents of a split as nested lists of ids, read sentence by sentence."""
    sentences, documents = split.sentence_offsets().tolist(), split.document_offsets().tolist()
    read = [split.read(start, end - start).tolist() for start, end in itertools.pairwise(sentences)]
    return [read[first:end] for first, end in itertools.pairwise(documents)]


@pytest.mark.parametrize("shard_documents", [1, 7, 1 << 20])
@pytest.mark.parametrize("chunk_characters", [1, 500, 1 << 20])
def test_documents_are_read_as_written(shard_documents, chunk_characters, texts, tmp_path, monkeypatch):
    monkeypatch.setattr(shard_module, "CHUNK_CHARACTERS", chunk_characters)
    split = make(tmp_path / "store", texts, shard_documents=shard_documents).split("train")
    expected = [TOKENIZER.encode(document) for document in texts]
    assert documents_of(split) == expected
    tokens = [i for document in expected for sentence in document for i in sentence]
    assert split.read(0, split.num_tokens).tolist() == tokens
    assert split.read(7, 500).tolist() == tokens[7:507]
    sizes = split.num_tokens, split.num_sentences, split.num_documents
    assert sizes == (len(tokens), sum(map(len, expected)), len(expected))
    assert split.token_counts.tolist() == np.bincount(tokens, minlength=TOKENIZER.vocab_size).tolist()
    assert split.sentence_offsets().dtype == split.document_offsets().dtype == split.token_counts.dtype == np.int64
    assert len(split.store.index["splits"]["train"]["shards"]) == -(-len(texts) // shard_documents)


@pytest.mark.parametrize("shard_documents", [1, 7, 1 << 20])
@pytest.mark.parametrize("chunk_characters", [1, 200, 1 << 20])
def test_tags_are_read_as_written(shard_documents, chunk_characters, texts, tmp_path, monkeypatch):
    """The bits are right wherever bytes, chunks and shards end."""
    monkeypatch.setattr(shard_module, "CHUNK_CHARACTERS", chunk_characters)
    split = make(tmp_path / "store", [[EMPTY], *texts], shard_documents=shard_documents, tagger=Tagger()).split("train")
    tokens = [TOKENIZER.tokens[i] for i in split.read(0, split.num_tokens)]
    expected = {
        "c": np.array([token[0] == "c" for token in tokens]),
        "long": np.array([len(token.removeprefix("##")) > 2 for token in tokens]),
    }
    assert split.tag_kinds == ("c", "long")
    assert split.store.index["tags"] == Tagger().describe()
    for kind, bits in expected.items():
        assert 0 < bits.sum() < bits.size
        for start, count in ((0, len(tokens)), (3, 11), (8, 8), (5, 0), (len(tokens) - 1, 1), (17, 600)):
            read = split.tags(kind, start, count)
            assert read.dtype == np.bool_ and read.tolist() == bits[start : start + count].tolist()
    with pytest.raises(IndexError):
        split.tags("c", 0, len(tokens) + 1)
    file = next(split.store.folder.glob("train-*.long"))
    file.write_bytes(file.read_bytes() + b"!")
    with pytest.raises(InputError, match="long has .* bytes instead of"):
        split.store.split("train")


def test_text_without_tokens_is_left_out(tmp_path):
    split = make(tmp_path / "store", [[EMPTY], ["the cat", EMPTY, "sat"], [EMPTY, EMPTY]]).split("train")
    assert documents_of(split) == [[[5, 6], [8]]]


def test_reading_outside_the_split_is_an_error(tmp_path):
    split = make(tmp_path / "store", [["the cat sat"]]).split("train")
    assert split.read(3, 0).tolist() == []
    for start, count in ((0, 4), (3, 1), (-1, 2), (2, -1)):
        with pytest.raises(IndexError):
            split.read(start, count)


def test_wide_vocabularies_get_wide_tokens(tmp_path):
    assert [token_dtype(size).itemsize for size in (1 << 16, (1 << 16) + 1)] == [2, 4]
    wide = Tokenizer([*SPECIAL_TOKENS, *(f"w{i}" for i in range(1 << 16))], False, "test")
    write_store(tmp_path / "store", wide, {"train": [["w65535 w0"]]})
    assert open_store(tmp_path / "store").split("train").read(0, 2).tolist() == [65540, 5]


def test_store_contains_its_tokenizer(texts, tmp_path):
    store = make(tmp_path / "store", texts)
    assert store.tokenizer().fingerprint == store.tokenizer_fingerprint == TOKENIZER.fingerprint
    assert store.vocab_size == TOKENIZER.vocab_size
    store.require(TOKENIZER)
    other = Tokenizer(TOKENIZER.tokens, False, "test")
    with pytest.raises(InputError) as error:
        store.require(other)
    assert TOKENIZER.fingerprint[:12] in str(error.value) and other.fingerprint[:12] in str(error.value)
    (store.folder / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, "other"]))
    with pytest.raises(InputError, match="vocab.txt is not the vocabulary that it was made with"):
        store.tokenizer()


def test_fingerprint_depends_on_the_content(texts, tmp_path):
    contents = (texts, texts, texts[1:], texts[::-1])
    prints = [make(tmp_path / str(number), content).fingerprint for number, content in enumerate(contents)]
    assert prints[0] == prints[1]
    prints.append(make(tmp_path / "tagged", texts, tagger=Tagger()).fingerprint)
    assert len(set(prints)) == 4


def test_failure_leaves_nothing_behind(tmp_path):
    def broken():
        yield ["the cat"]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_store(tmp_path / "store", TOKENIZER, {"train": broken()})
    with pytest.raises(InputError, match="training split holds no text"):
        write_store(tmp_path / "store", TOKENIZER, {"train": [[EMPTY]]})
    assert os.listdir(tmp_path) == []


def test_existing_files_are_never_replaced(texts, tmp_path):
    store = make(tmp_path / "store", texts)
    (tmp_path / "file").write_text("precious")
    for name in ("store", "file"):
        with pytest.raises(InputError, match="already"):
            make(tmp_path / name, texts[1:])
    assert open_store(tmp_path / "store").fingerprint == store.fingerprint
    assert sorted(os.listdir(tmp_path)) == ["file", "store"]
    (tmp_path / "empty").mkdir()
    assert make(tmp_path / "empty", texts).fingerprint == store.fingerprint


def test_a_store_made_by_another_process_in_the_meantime_is_kept(texts, tmp_path):
    def slow():
        yield from texts
        make(tmp_path / "store", texts)  # another process was faster

    with pytest.raises(InputError, match="already"):
        write_store(tmp_path / "store", TOKENIZER, {"train": slow()})
    assert os.listdir(tmp_path) == ["store"]
    assert "valid" in open_store(tmp_path / "store").index["splits"]


def test_an_unwritable_folder_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        make(tmp_path / "file" / "store", VALID)


def test_damaged_stores_are_refused(texts, tmp_path):
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
    for text in (later, "{", "[]", '{"format": 2}'):
        index.write_text(text)
        with pytest.raises(InputError, match="format 99" if text == later else "damaged"):
            open_store(store.folder)
    index.unlink()
    with pytest.raises(InputError, match="no index.json"):
        open_store(store.folder)


@pytest.fixture
def remote(texts, tmp_path, monkeypatch):
    """Returns (the store as it was made, its URL). Its files are copied to tmp_path / "cache"."""
    pytest.importorskip("fsspec", reason="needs fsspec")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = make(tmp_path / "store", texts, shard_documents=10, tagger=Tagger())
    return store, f"file://{store.folder}"


def test_a_remote_store_is_read_as_a_local_one(remote, texts, tmp_path):
    local, url = remote
    store = open_store(url)
    assert store.fingerprint == local.fingerprint
    assert store.tokenizer().fingerprint == TOKENIZER.fingerprint
    split = store.split("train")
    before = {path.name for path in store.folder.iterdir()}
    assert before == {"vocab.txt"}  # only the files that were used are copied
    split.read(0, 3)
    assert {path.name for path in store.folder.iterdir()} - before == {"train-00000.tokens"}
    split.tags("c", split.num_tokens - 3, 3)
    assert (store.folder / "train-00003.c").exists() and not (store.folder / "train-00003.tokens").exists()
    assert documents_of(split) == [TOKENIZER.encode(document) for document in texts]
    assert split.token_counts.tolist() == local.split("train").token_counts.tolist()
    assert not [path for path in store.folder.iterdir() if path.name.startswith(".")]


def test_damaged_and_changed_remote_stores_are_noticed(remote, texts, tmp_path):
    local, url = remote
    file = local.folder / "train-00001.tokens"
    file.write_bytes(file.read_bytes()[:-2])
    split = open_store(url).split("train")
    for _ in range(2):  # a damaged file is not kept
        with pytest.raises(InputError, match="train-00001.tokens has .* bytes instead of"):
            split.read(0, split.num_tokens)
    file.unlink()
    with pytest.raises(InputError, match="train-00001.tokens"):
        split.read(0, split.num_tokens)
    (local.folder / "index.json").unlink()
    with pytest.raises(InputError, match="index.json"):
        open_store(url)
    make(tmp_path / "other", texts[1:])
    (tmp_path / "store").rename(tmp_path / "old")
    (tmp_path / "other").rename(tmp_path / "store")
    changed = open_store(url).split("train")
    assert documents_of(changed) == [TOKENIZER.encode(document) for document in texts[1:]]


def test_several_threads_may_copy_at_once(remote):
    local, url = remote
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        reads = list(threads.map(lambda _: open_store(url).split("train").read(0, 100).tolist(), range(8)))
    assert all(read == local.split("train").read(0, 100).tolist() for read in reads)

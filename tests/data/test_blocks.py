"""With lost sentences, blocks are those of the original; by default they cover each token of the text once."""

import dataclasses

import numpy as np
import pytest

from spanbert_jax.data import blocks as blocks_module
from spanbert_jax.data.blocks import (
    BlockSettings,
    cut_long_sentences,
    document_blocks,
    greedy_edges,
    sentence_blocks,
    split_blocks,
)
from tests.data.made_up import GOLDEN_BLOCKS, SEQ_LEN, TOKENIZER, golden_text, made_up_split

SETTINGS = BlockSettings(
    seq_len=SEQ_LEN, max_blocks_per_row=1, blocks="document", long_sentences="cut", short_seq_prob=0.0, seed=0
)
CASES = [case for case in GOLDEN_BLOCKS if case["cls"] == "BlockDataset"]


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return made_up_split(tmp_path_factory.mktemp("blocks") / "store")


def ends_of(blocks):
    return [[start, start + length] for start, length in blocks.tolist()]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['name']}-{case['break_mode']}")
def test_blocks_equal_the_originals(case):
    sentences, documents = golden_text(case)
    capacity = case["block_size"] - 2
    if case["break_mode"] == "doc":
        blocks = document_blocks(sentences, documents, capacity)
    else:
        blocks = sentence_blocks(sentences, capacity)
    assert ends_of(blocks) == case["sents"]
    assert (blocks["length"] + 2).tolist() == case["out_sizes"]


LOST = [  # (tokens in the sentences of each document, blocks that are left), where 12 tokens fit
    ([[6, 14, 14]], []),
    ([[6, 14]], []),
    ([[6, 14, 13, 20, 14]], []),
    ([[10, 6, 14, 14]], [[0, 10]]),
    ([[6, 14, 14, 3]], [[0, 6], [34, 37]]),
    ([[6, 14, 3, 14, 14]], [[0, 6]]),
    ([[14, 14, 6]], [[28, 34]]),
    ([[4, 5], [14, 14], [3, 14], [14]], [[0, 9]]),
    ([[14]], []),
]


@pytest.mark.parametrize("lengths, expected", LOST, ids=str)
def test_long_sentences_that_end_a_document_lose_the_block_before_them(lengths, expected):
    sentences, documents = np.cumsum([0, *np.concatenate(lengths)]), np.cumsum([0, *map(sum, lengths)])
    assert ends_of(document_blocks(sentences, documents, 12)) == expected


def test_blocks_of_a_document_do_not_depend_on_other_documents():
    draw = np.random.default_rng(1)
    lengths = [draw.integers(1, 20, draw.integers(1, 30)) for _ in range(50)]  # some longer than the 14 that fit
    offsets = np.cumsum([0, *np.concatenate(lengths)])
    ends = np.cumsum([0, *map(sum, lengths)])
    alone = []
    for start, own in zip(ends[:-1], lengths, strict=True):
        alone += ends_of(document_blocks(np.cumsum([start, *own]), np.array([start, start + sum(own)]), 14))
    assert ends_of(document_blocks(offsets, ends, 14)) == alone


def test_a_sentence_that_is_too_long_is_a_block_by_itself():
    assert greedy_edges(np.array([0, 3, 18, 20]), np.array([0, 20]), 14).tolist() == [0, 3, 18, 20]


def test_long_sentences_are_cut_at_word_starts():
    starts_word = np.array([False, True])
    ids = np.array([1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1])
    offsets = cut_long_sentences(np.array([0, 2, 14]), 5, starts_word, lambda start, count: ids[start : start + count])
    # The word of seven tokens at 3 is cut once inside; then each cut is at the last word start within five tokens.
    assert offsets.tolist() == [0, 2, 3, 8, 13, 14]


@pytest.mark.parametrize("documents_at_a_time", [1, 7, 1 << 16])
def test_blocks_cover_the_documents(split, documents_at_a_time, monkeypatch):
    monkeypatch.setattr(blocks_module, "DOCUMENTS_AT_A_TIME", documents_at_a_time)
    sentences, documents = split.sentence_offsets(), split.document_offsets()
    assert np.diff(sentences).max() > SEQ_LEN - 2
    blocks = split_blocks(split, SETTINGS, TOKENIZER.starts_word)
    edges = np.array([0, *np.cumsum(blocks["length"])])
    assert blocks["start"].tolist() == edges[:-1].tolist() and edges[-1] == split.num_tokens
    assert blocks["length"].min() > 0 and blocks["length"].max() <= SEQ_LEN - 2
    document_edges = set(sentences[documents])
    assert document_edges <= set(edges)  # so no block crosses the end of a document
    inner = np.setdiff1d(edges, sentences)  # the cuts inside sentences
    long = np.diff(sentences)[np.searchsorted(sentences, inner, "right") - 1] > SEQ_LEN - 2
    assert len(inner) and long.all()
    ids = split.read(0, split.num_tokens)
    inside_words = inner[~TOKENIZER.starts_word[ids[inner]]]
    for cut in inside_words:  # no word starts among the tokens before it
        assert not TOKENIZER.starts_word[ids[cut - (SEQ_LEN - 2) + 1 : cut]].any()


def test_each_sentence_is_a_block(split):
    settings = dataclasses.replace(SETTINGS, blocks="sentence")
    lost = split_blocks(split, dataclasses.replace(settings, long_sentences="lose"), TOKENIZER.starts_word)
    cut = split_blocks(split, settings, TOKENIZER.starts_word)
    lengths = np.diff(split.sentence_offsets())
    assert lost["length"].tolist() == lengths[lengths <= SEQ_LEN - 2].tolist()
    assert cut["length"].sum() == split.num_tokens and len(cut) > len(lengths)


def test_documents_lose_long_sentences_if_the_settings_ask_for_it(split):
    lost = split_blocks(split, dataclasses.replace(SETTINGS, long_sentences="lose"), TOKENIZER.starts_word)
    sentences = split.sentence_offsets()
    long = np.flatnonzero(np.diff(sentences) > SEQ_LEN - 2)
    assert lost["length"].max() <= SEQ_LEN - 2 and len(long)
    for start in sentences[long]:
        assert not np.any((lost["start"] <= start) & (start < lost["start"] + lost["length"]))
    assert lost["length"].sum() <= split.num_tokens - np.diff(sentences)[long].sum()


def test_layouts_describe_full_rows():
    assert SETTINGS.layouts() == [(1, 14)]
    assert dataclasses.replace(SETTINGS, max_blocks_per_row=9).layouts() == [(1, 14), (2, 12), (3, 10), (4, 8), (5, 6)]
    assert dataclasses.replace(SETTINGS, blocks="pair").layouts() == [(2, 13)]

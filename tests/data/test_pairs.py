"""Pairs of segments: those of the original for its seed, and their distribution."""

import numpy as np
import pytest

from spanbert_jax.data.pairs import draw_pairs
from tests.data.made_up import GOLDEN_BLOCKS, golden_text

CASES = [case for case in GOLDEN_BLOCKS if case["cls"] == "BlockPairDataset"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"seed{case['seed']}-short{case['short_seq_prob']}")
def test_pairs_equal_the_originals(case):
    pairs, labels = draw_pairs(*golden_text(case), case["block_size"] - 3, case["short_seq_prob"], case["seed"])
    assert [[*pair, label] for pair, label in zip(pairs.tolist(), labels.tolist(), strict=True)] == case["sent_pairs"]
    assert ((pairs[..., 1] - pairs[..., 0]).sum(1) + 3).tolist() == case["out_sizes"]


@pytest.fixture(scope="module")
def corpus():
    draw = np.random.default_rng(4)
    lengths = [draw.integers(1, 30, draw.integers(1, 40)) for _ in range(300)]
    return np.cumsum([0, *np.concatenate(lengths)]), np.cumsum([0, *map(sum, lengths)])


def test_half_of_the_pairs_have_a_random_second_segment_of_another_document(corpus):
    sentences, documents = corpus
    pairs, labels = draw_pairs(sentences, documents, 125, 0.0, 7)
    of_document = np.searchsorted(documents, pairs[..., 0], "right") - 1  # [pairs, 2]
    ends_in = np.searchsorted(documents, pairs[..., 1], "left") - 1
    assert np.array_equal(of_document, ends_in)  # no segment crosses a document's end
    tolerance = 3 * 0.5 / np.sqrt(len(labels)) + 0.03  # single sentences have no following text
    assert np.mean(labels) == pytest.approx(0.5, abs=tolerance)
    assert np.all((of_document[:, 0] == of_document[:, 1]) == (labels == 0))
    follows = pairs[labels == 0]
    assert np.all(follows[:, 0, 1] <= follows[:, 1, 0])
    lengths = pairs[..., 1] - pairs[..., 0]
    assert lengths.min() >= 1 and lengths.sum(1).max() == 125


@pytest.mark.parametrize("number", [2, 3])
def test_random_segments_of_few_documents_are_of_another_one(number):
    draw = np.random.default_rng(number)
    lengths = [draw.integers(1, 9, 20_000 // number) for _ in range(number)]
    sentences, documents = np.cumsum([0, *np.concatenate(lengths)]), np.cumsum([0, *map(sum, lengths)])
    pairs, labels = draw_pairs(sentences, documents, 13, 0.1, 8)
    of_document = np.searchsorted(documents, pairs[..., 0], "right") - 1  # [pairs, 2]
    assert np.all((of_document[:, 0] != of_document[:, 1]) == (labels == 1))
    assert np.all(np.bincount(of_document[labels == 1, 0], minlength=number) > 50)


def test_short_pairs_have_the_configured_share(corpus):
    full, short = (draw_pairs(*corpus, 125, share, 7)[0] for share in (0.0, 1.0))
    mean = [(pairs[..., 1] - pairs[..., 0]).sum(1).mean() for pairs in (full, short)]
    assert mean[1] < 0.6 * mean[0]


def test_text_is_read_once_and_only_truncation_drops_it(corpus):
    """Segments A, and those B that follow them, are the text in order; truncation dropped what is missing."""
    pairs, labels = draw_pairs(*corpus, 125, 0.0, 7)
    own = np.concatenate([pair[:1] if label else pair for pair, label in zip(pairs, labels)])
    assert np.all(own[1:, 0] >= own[:-1, 1])
    assert (own[:, 1] - own[:, 0]).sum() > 0.85 * corpus[0][-1]


def test_pairs_depend_on_the_seed(corpus):
    first, repeated, other = (draw_pairs(*corpus, 125, 0.1, seed)[0] for seed in (1, 1, 2))
    assert np.array_equal(first, repeated) and not np.array_equal(first[:50], other[:50])

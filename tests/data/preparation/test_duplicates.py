"""Duplicates are found, the first is kept, and the result is the same on every machine."""

import hashlib
import importlib.util
import itertools

import numpy as np
import pytest

from spanbert_jax.data.preparation import duplicates
from spanbert_jax.data.preparation.duplicates import (
    EXACT,
    HASHES,
    KEPT,
    NEAR,
    RECALL,
    SHINGLE,
    band_width,
    mark_duplicates,
    sign,
    signatures,
)

ALPHABET = np.array(list("abcdefghijklmnopqrstuvwxyz "))
needs_rensa = pytest.mark.skipif(importlib.util.find_spec("rensa") is None, reason="needs the extra prepare")


def random_text(draw, length) -> str:
    return "".join(draw.choice(ALPHABET, length))


def changed(draw, text, count) -> str:
    """The text with other characters at `count` random positions."""
    characters = list(text)
    for position in draw.choice(len(text), count, replace=False):
        characters[position] = "#"
    return "".join(characters)


def shingles(text: str) -> set[str]:
    return {text[i : i + SHINGLE] for i in range(len(text) - SHINGLE + 1)}


def jaccard(first: str, second: str) -> float:
    return len(shingles(first) & shingles(second)) / len(shingles(first) | shingles(second))


def statuses(documents, near, threshold=0.8):
    batches = list(sign(documents, near))
    digests = np.frombuffer(b"".join(batch[0] for batch in batches), "<u8").reshape(-1, 2)
    signed = np.frombuffer(b"".join(batch[1] for batch in batches), "<u4").reshape(-1, HASHES) if near else None
    return mark_duplicates(digests, signed, threshold)


@pytest.mark.parametrize("batch", [1, 1 << 20])
def test_exact_duplicates(batch, monkeypatch):
    monkeypatch.setattr(duplicates, "BATCH_CHARACTERS", batch)
    documents = [["b"], ["a", "b"], ["a b"], ["b"], ["a", "b"], ["b"], ["c"]]
    assert statuses(documents, False).tolist() == [KEPT, KEPT, KEPT, EXACT, EXACT, EXACT, KEPT]
    assert statuses([], False).tolist() == []


@needs_rensa
@pytest.mark.parametrize("batch, pairs", [(1, 1), (1 << 20, 1 << 16)])
def test_near_duplicates_agree_with_true_similarities(batch, pairs, monkeypatch):
    """Documents far above the threshold are dropped, those far below are kept, and the first of all is kept."""
    monkeypatch.setattr(duplicates, "BATCH_CHARACTERS", batch)
    monkeypatch.setattr(duplicates, "PAIRS_AT_ONCE", pairs)
    draw = np.random.default_rng(0)
    documents = []  # (family, text)
    for family in range(12):
        original = random_text(draw, 1500)
        documents.append((family, original))
        documents += [(family, changed(draw, original, count)) for count in (2, 4, 40, 80)]
    documents = [documents[i] for i in draw.permutation(len(documents))]
    result = statuses([[text] for _, text in documents], True)
    for number, (family, text) in enumerate(documents):
        earlier = [other for other_family, other in documents[:number] if other_family == family]
        closest = max((jaccard(text, other) for other in earlier), default=0.0)
        if closest > 0.93:
            assert result[number] == NEAR
        if closest < 0.67:
            assert result[number] == KEPT
    assert 12 < (result == NEAR).sum() < 36


@needs_rensa
def test_no_two_kept_documents_are_estimated_to_be_similar():
    """Also among many documents that agree in a band but differ: they are all compared, not with the first alone."""
    draw = np.random.default_rng(1)
    signed = draw.integers(0, 3, (400, HASHES)).astype("<u4")
    signed[:, :64] = draw.integers(0, 2, (20, 64))[draw.integers(0, 20, 400)]  # many share a half and agree in bands
    digests = np.stack([np.arange(400, dtype="<u8")] * 2, axis=1)
    threshold, width = 0.65, band_width(0.65)
    result = mark_duplicates(digests, signed, threshold)
    for first, second in itertools.combinations(range(400), 2):
        equal = signed[first] == signed[second]
        equal_bands = equal[: HASHES // width * width].reshape(-1, width).all(axis=1)
        if equal_bands.any() and equal.mean() >= threshold:
            assert result[second] == NEAR or result[first] == NEAR
    assert (result == NEAR).sum() > 50
    assert result[0] == KEPT


@needs_rensa
def test_signatures_estimate_similarity_and_never_change():
    draw = np.random.default_rng(2)
    original = random_text(draw, 3000)
    texts = [original, changed(draw, original, 20), random_text(draw, 3000), "short", "short", "shirt"]
    signed = signatures(texts)
    assert abs((signed[0] == signed[1]).mean() - jaccard(*texts[:2])) < 0.13  # three standard errors
    assert (signed[0] == signed[2]).mean() < 0.05
    assert (signed[3] == signed[4]).all() and not (signed[3] == signed[5]).any()
    assert (signatures([texts[1]])[0] == signed[1]).all()  # independent of the rest of the batch
    fixed = signatures(["the quick brown fox jumps over the lazy dog", "\N{GRINNING FACE}" * 20, "ß"])
    assert hashlib.sha256(fixed.tobytes()).hexdigest()[:16] == "2ae89b08f6704d6d"


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.9, 1.0])
def test_pairs_at_the_threshold_are_compared(threshold):
    width = band_width(threshold)
    recall, recall_if_wider = (1 - (1 - threshold**w) ** (HASHES // w) for w in (width, width + 1))
    assert recall >= RECALL and (recall_if_wider < RECALL or width == HASHES)

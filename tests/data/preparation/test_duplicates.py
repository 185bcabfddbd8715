"""Duplicates: found, the first kept, and the same ones on every machine."""

import hashlib
import importlib.util
import itertools

import numpy as np
import pytest

from spanbert_jax.data.preparation import duplicates
from spanbert_jax.data.preparation.duplicates import EXACT, KEPT, NEAR, SHINGLE, band_width, mark, sign, signatures

ALPHABET = np.array(list("abcdefghijklmnopqrstuvwxyz "))


def text(draw, length) -> str:
    return "".join(draw.choice(ALPHABET, length))


def changed(draw, original, places) -> str:
    """The text with other characters at so many places."""
    characters = list(original)
    for place in draw.choice(len(original), places, replace=False):
        characters[place] = "#"
    return "".join(characters)


def jaccard(one: str, other: str) -> float:
    a, b = ({string[i : i + SHINGLE] for i in range(len(string) - SHINGLE + 1)} for string in (one, other))
    return len(a & b) / len(a | b)


def fates(documents, near, threshold=0.8):
    parts = list(sign(documents, near))
    digests = np.frombuffer(b"".join(part[0] for part in parts), "<u8").reshape(-1, 2)
    marks = np.frombuffer(b"".join(part[1] for part in parts), "<u4").reshape(-1, duplicates.HASHES) if near else None
    return mark(digests, marks, threshold)


@pytest.mark.parametrize("batch", [1, 1 << 20])
def test_equal_documents(batch, monkeypatch):
    monkeypatch.setattr(duplicates, "BATCH", batch)
    documents = [["b"], ["a", "b"], ["a b"], ["b"], ["a", "b"], ["b"], ["c"]]
    assert fates(documents, False).tolist() == [KEPT, KEPT, KEPT, EXACT, EXACT, EXACT, KEPT]
    assert fates([], False).tolist() == []


near = pytest.mark.skipif(importlib.util.find_spec("rensa") is None, reason="needs the extra prepare")


@near
@pytest.mark.parametrize("batch, pairs", [(1, 1), (1 << 20, 1 << 16)])
def test_similar_documents(batch, pairs, monkeypatch):
    """Against true similarities: what is far above the threshold goes, what is far below stays, and the first of all stays."""
    monkeypatch.setattr(duplicates, "BATCH", batch)
    monkeypatch.setattr(duplicates, "PAIRS", pairs)
    draw = np.random.default_rng(0)
    documents = []
    for family in range(12):
        original = text(draw, 1500)
        documents += [(family, original), *((family, changed(draw, original, places)) for places in (2, 4, 40, 80))]
    documents = [documents[i] for i in draw.permutation(len(documents))]
    result = fates([[string] for _, string in documents], True)
    for number, (family, string) in enumerate(documents):
        before = [jaccard(string, other) for at, (same, other) in enumerate(documents[:number]) if same == family]
        closest = max(before, default=0.0)
        if closest > 0.93:
            assert result[number] == NEAR
        if closest < 0.67:
            assert result[number] == KEPT
    assert 12 < (result == NEAR).sum() < 36


@near
def test_no_two_kept_documents_are_estimated_to_be_similar():
    """Also among many that agree in a band though they differ: those are compared with each other, not with the first alone."""
    draw = np.random.default_rng(1)
    marks = draw.integers(0, 3, (400, duplicates.HASHES)).astype("<u4")
    marks[:, :64] = draw.integers(0, 2, (20, 64))[draw.integers(0, 20, 400)]  # shared halves: many agree in bands
    digests = np.stack([np.arange(400, dtype="<u8")] * 2, axis=1)
    threshold, width = 0.65, band_width(0.65)
    result = mark(digests, marks, threshold)
    for one, other in itertools.combinations(range(400), 2):
        bands = (marks[one] == marks[other])[: duplicates.HASHES // width * width].reshape(-1, width).all(axis=1)
        if bands.any() and (marks[one] == marks[other]).mean() >= threshold:
            assert result[other] == NEAR or result[one] == NEAR
    assert (result == NEAR).sum() > 50
    assert result[0] == KEPT


@near
def test_signatures_estimate_similarity_and_never_change():
    draw = np.random.default_rng(2)
    original = text(draw, 3000)
    texts = [original, changed(draw, original, 20), text(draw, 3000), "short", "short", "shirt"]
    marks = signatures(texts)
    assert abs((marks[0] == marks[1]).mean() - jaccard(*texts[:2])) < 0.13  # three standard errors
    assert (marks[0] == marks[2]).mean() < 0.05
    assert (marks[3] == marks[4]).all() and not (marks[3] == marks[5]).any()
    assert (signatures([texts[1]])[0] == marks[1]).all()  # whatever else is in the batch
    fixed = signatures(["the quick brown fox jumps over the lazy dog", "\N{GRINNING FACE}" * 20, "ß"])
    assert hashlib.sha256(fixed.tobytes()).hexdigest()[:16] == "2ae89b08f6704d6d"


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.9, 1.0])
def test_pairs_at_the_threshold_are_looked_at(threshold):
    width = band_width(threshold)
    found = [1 - (1 - threshold**w) ** (duplicates.HASHES // w) for w in (width, width + 1)]
    assert found[0] >= duplicates.RECALL and (found[1] < duplicates.RECALL or width == duplicates.HASHES)

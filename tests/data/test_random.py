"""Threefry equals its published answers and jax's, and draws from its bits have the right distribution."""

import numpy as np
import pytest
from jax.extend import random as jax_random

from spanbert_jax.data.random import below, below_wide, choose, cut_points, threefry, words


def u32(*values):
    return tuple(np.uint32(value) for value in values)


# The known answers of the Random123 distribution, threefry2x32 with 20 rounds: counter, key, result.
KNOWN_ANSWERS = [
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize("counter, key, expected", KNOWN_ANSWERS)
def test_threefry_known_answers(counter, key, expected):
    assert tuple(int(word) for word in threefry(u32(*key), u32(*counter))) == expected


def test_threefry_equals_jax():
    numbers = np.random.default_rng(0)
    for _ in range(5):
        key = numbers.integers(0, 2**32, 2, dtype=np.uint32)
        counter = numbers.integers(0, 2**32, (2, 1000), dtype=np.uint32)
        ours = np.concatenate(threefry(tuple(key), tuple(counter)))
        theirs = np.asarray(jax_random.threefry_2x32(key, counter.reshape(-1)))
        assert (ours == theirs).all()


def test_threefry_broadcasts_elementwise():
    numbers = np.random.default_rng(1)
    keys = numbers.integers(0, 2**32, (2, 7, 1), dtype=np.uint32)
    counters = numbers.integers(0, 2**32, (2, 5), dtype=np.uint32)
    together = threefry(tuple(keys), tuple(counters))
    assert together[0].shape == (7, 5)
    single = threefry((keys[0, 4, 0], keys[1, 4, 0]), (counters[0, 2], counters[1, 2]))
    assert [int(word[4, 2]) for word in together] == [int(word) for word in single]


def test_words_split_a_number():
    low, high = words(np.array([0, 1, 2**32 - 1, 2**32, 2**40 + 3, -1], np.int64))
    assert low.tolist() == [0, 1, 2**32 - 1, 0, 3, 2**32 - 1]
    assert high.tolist() == [0, 0, 0, 1, 256, 2**32 - 1]


def test_below_covers_its_range_evenly():
    bits = np.array([0, 2**31 - 1, 2**31, 2**32 - 1], np.uint32)
    assert below(bits, 510).tolist() == [0, 254, 255, 509]
    assert below(bits, 1).tolist() == [0, 0, 0, 0]
    draws = np.arange(0, 2**32, 2**12, dtype=np.uint32)
    counts = np.bincount(below(draws, 510), minlength=510)
    assert counts.min() >= counts.max() - 1


def test_below_wide_is_the_exact_remainder():
    numbers = np.random.default_rng(2)
    high, low = numbers.integers(0, 2**32, (2, 50), dtype=np.uint32)
    bound = 3_300_000_001
    expected = [((int(a) % 2**31) * 2**32 + int(b)) % bound for a, b in zip(high, low)]
    assert below_wide((high, low), bound).tolist() == expected


def test_choose_has_the_probabilities_of_the_weights():
    cuts = cut_points([4, 3, 0, 1])
    assert cuts.tolist() == [2**31, 7 * 2**29, 7 * 2**29]
    bits = np.array([0, 2**31 - 1, 2**31, 7 * 2**29 - 1, 7 * 2**29, 2**32 - 1], np.uint32)
    assert choose(bits, cuts).tolist() == [0, 0, 1, 1, 3, 3]
    assert choose(bits, cut_points([2.0])).tolist() == [0] * 6

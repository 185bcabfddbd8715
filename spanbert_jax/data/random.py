"""Stateless random numbers in numpy: the same key and counter give the same bits on every machine, with any number of
threads and any batch size.

The generator is Threefry-2x32 with 20 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011),
as in `jax.random`. numpy's own generators draw a whole array from one seed, so the bits of a row would depend on its
batch; here every element has its own key and counter.
"""

import numpy as np
from numpy.typing import ArrayLike

ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
PARITY = np.uint32(0x1BD11BDA)

Key = tuple[np.ndarray, np.ndarray]  # two uint32 words of the same shape
Words = tuple[np.ndarray | np.uint32, np.ndarray | np.uint32]  # two uint32 words of shapes that broadcast together


def threefry(key: Words, counter: Words) -> Key:
    """Returns two random uint32 words for a two-word counter under a two-word key.

    The shapes of all four words broadcast together; both results have the broadcast shape.
    """
    keys = *key, key[0] ^ key[1] ^ PARITY
    shape = np.broadcast_shapes(*(np.shape(word) for word in (*key, *counter)))
    # All steps write into these arrays: new ones would cost more than the arithmetic, and arrays, unlike numpy's
    # scalars, wrap around without a warning.
    x0, x1, high = (np.empty(shape, np.uint32) for _ in range(3))
    np.add(counter[0], keys[0], out=x0)
    np.add(counter[1], keys[1], out=x1)
    for group in range(5):  # four rounds each, then the next key words are added
        for rotation in ROTATIONS[4 * (group % 2) :][:4]:
            x0 += x1
            np.left_shift(x1, np.uint32(rotation), out=high)
            x1 >>= np.uint32(32 - rotation)
            x1 |= high
            x1 ^= x0
        x0 += keys[(group + 1) % 3]
        x1 += keys[(group + 2) % 3]
        x1 += np.uint32(group + 1)
    return x0, x1


def words(number: ArrayLike) -> Key:
    """Returns the low and the high uint32 word of int64 numbers.

    They are a key, if the number is a seed, or a counter, if it is a row number.
    """
    number = np.asarray(number, np.int64)
    return (number & 0xFFFFFFFF).astype(np.uint32), (number >> 32 & 0xFFFFFFFF).astype(np.uint32)


def below(bits: np.ndarray, bound: ArrayLike) -> np.ndarray:
    """Returns int64 in [0, bound) from a uint32 word: floor(bits * bound / 2^32), in integers.

    The probability of each value differs from 1 / bound by less than 2^-32. `bound` is at least 1, below 2^31, and
    broadcasts.
    """
    return bits.astype(np.int64) * np.asarray(bound, np.int64) >> 32


def below_wide(bits: Key, bound: int) -> np.ndarray:
    """Returns int64 in [0, bound) from two uint32 words: the remainder of their 63-bit number.

    It is for bounds up to 2^62, such as the number of tokens of a corpus.
    """
    return ((bits[0] & 0x7FFFFFFF).astype(np.int64) << 32 | bits[1].astype(np.int64)) % bound


def cut_points(weights: ArrayLike) -> np.ndarray:
    """Returns, for `choose`, where a uint32 word passes from one of k outcomes to the next: int64 [k - 1].

    Args:
      weights: [k], proportional to the probabilities of the outcomes.
    """
    weights = np.asarray(weights, np.float64)
    return np.round(np.cumsum(weights)[:-1] / weights.sum() * 2.0**32).astype(np.int64)


def choose(bits: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Returns int64 outcome numbers, in the shape of the uint32 array `bits`, with the probabilities of `cuts`.

    Args:
      bits: random words.
      cuts: int64 [k - 1], made by `cut_points`.
    """
    return np.searchsorted(cuts, bits.astype(np.int64), side="right")

"""Stateless random numbers as pure tf ops: the same key and counter give the same bits on every machine, with any
number of threads and any batch size.

The generator is Threefry-2x32 with 20 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011),
as in `jax.random`. TensorFlow's own stateless ops draw a whole tensor from one seed, so the bits of a row would depend
on its batch; here every element has its own key and counter.
"""

import functools

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
PARITY = np.uint32(0x1BD11BDA)

Key = tuple[tf.Tensor, tf.Tensor]  # two uint32 words of the same shape


def threefry(key: Key, counter: Key) -> Key:
    """Returns two random uint32 words for a two-word counter under a two-word key.

    All four words are uint32 tensors (or numpy arrays) of shapes that broadcast together; both results have the
    broadcast shape.
    """
    return _threefry(*key, *counter)


# A tf.function, so that its many small ops are traced only once.
@functools.partial(tf.function, input_signature=[tf.TensorSpec(None, tf.uint32)] * 4, autograph=False)
def _threefry(key0, key1, x0, x1):
    keys = key0, key1, key0 ^ key1 ^ PARITY
    x0 = x0 + keys[0]
    x1 = x1 + keys[1]
    for group in range(5):  # four rounds each, then the next key words are added
        for rotation in ROTATIONS[4 * (group % 2) :][:4]:
            x0 = x0 + x1
            x1 = tf.bitwise.left_shift(x1, np.uint32(rotation)) | tf.bitwise.right_shift(x1, np.uint32(32 - rotation))
            x1 = x1 ^ x0
        x0 = x0 + keys[(group + 1) % 3]
        x1 = x1 + keys[(group + 2) % 3] + np.uint32(group + 1)
    return x0, x1


def words(number: tf.Tensor) -> Key:
    """Returns the low and the high uint32 word of an int64 tensor (or a Python int).

    They are a key, if the number is a seed, or a counter, if it is a row number.
    """
    number = tf.convert_to_tensor(number, tf.int64)
    high = tf.bitwise.right_shift(number, np.int64(32))
    return tf.cast(number & 0xFFFFFFFF, tf.uint32), tf.cast(high & 0xFFFFFFFF, tf.uint32)


def below(bits: tf.Tensor, bound: tf.Tensor) -> tf.Tensor:
    """Returns int64 in [0, bound) from a uint32 word: floor(bits * bound / 2^32), in integers.

    The probability of each value differs from 1 / bound by less than 2^-32. `bound` is at least 1, below 2^31, and
    broadcasts.
    """
    return tf.bitwise.right_shift(tf.cast(bits, tf.int64) * tf.cast(bound, tf.int64), np.int64(32))


def below_wide(bits: Key, bound: tf.Tensor) -> tf.Tensor:
    """Returns int64 in [0, bound) from two uint32 words: the remainder of their 63-bit number.

    It is for bounds up to 2^62, such as the number of tokens of a corpus.
    """
    high = tf.bitwise.left_shift(tf.cast(bits[0], tf.int64) & 0x7FFFFFFF, np.int64(32))
    return (high | tf.cast(bits[1], tf.int64)) % tf.cast(bound, tf.int64)


def cut_points(weights: ArrayLike) -> np.ndarray:
    """Returns, for `choose`, where a uint32 word passes from one of k outcomes to the next: int64 [k - 1].

    Args:
      weights: [k], proportional to the probabilities of the outcomes.
    """
    weights = np.asarray(weights, np.float64)
    return np.round(np.cumsum(weights)[:-1] / weights.sum() * 2.0**32).astype(np.int64)


def choose(bits: tf.Tensor, cuts: np.ndarray) -> tf.Tensor:
    """Returns int32 outcome numbers, in the shape of the uint32 tensor `bits`, with the probabilities of `cuts`.

    Args:
      bits: random words.
      cuts: int64 [k - 1], made by `cut_points`.
    """
    if not len(cuts):
        return tf.zeros_like(bits, tf.int32)
    flat = tf.searchsorted(tf.constant(cuts), tf.reshape(tf.cast(bits, tf.int64), [-1]), side="right")
    return tf.reshape(flat, tf.shape(bits))

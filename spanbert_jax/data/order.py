"""Which row stands at which position of a run: a pure function of (seed, position), so any place of a run can be gone to at once.

Every row of a corpus comes once in each epoch, in a new order. Of several corpora, each run of CYCLE positions holds exact shares of them,
in an order that changes from one to the next; and each corpus goes through epochs of its own (those that meet in a cycle are mixed in it).
"""

import numpy as np
import tensorflow as tf

from spanbert_jax.data import masking

CYCLE = 1 << 16  # positions in which the shares of several corpora are exact, to 1 / CYCLE
PERMUTATION, INTERLEAVING = 2, 3  # streams: what a key is for; masking has the first two
PERMUTATION_ROUNDS = (
    16  # of the cipher behind RandomIndexShuffle; with its usual 4, orders of 2^16 rows were visibly alike
)


class Order:
    """The order of the rows of one or more corpora, whose rows are numbered on through all of them.

    sizes: rows of each corpus.  weights: the odds of each, above 0.  seed: of the run.
    """

    def __init__(self, sizes: list[int], weights: list[float], seed: int):
        cycle = CYCLE if len(sizes) > 1 else 1
        self.seed = seed
        self.shares = apportion(weights, cycle)  # [corpora] rows of each in a cycle
        self._sizes = np.array(sizes, np.int64)
        self._first = np.cumsum(self._sizes) - self._sizes  # number of each corpus's first row
        self._corpus = np.repeat(np.arange(len(sizes)), self.shares)  # [cycle] of each slot, before shuffling
        self._rank = np.arange(cycle) - np.repeat(
            np.cumsum(self.shares) - self.shares, self.shares
        )  # [cycle] among its corpus's slots

    def at(self, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(epoch, row number) of positions int64 [n], both int64 [n]; the epoch is that of the row's corpus."""
        corpus, place = self._place(position)
        size = tf.gather(self._sizes, corpus)
        epoch = place // size
        row = permute(place % size, size, masking.row_key(self.seed, PERMUTATION, epoch, corpus))
        return epoch, tf.gather(self._first, corpus) + row

    def drawn(self, position: int) -> np.ndarray:
        """int64 [corpora]: how many rows of each stand before a position."""
        cycles, rest = divmod(position, len(self._corpus))
        corpus, _ = self._place(cycles * len(self._corpus) + tf.range(rest, dtype=tf.int64))
        return cycles * self.shares + np.bincount(corpus.numpy(), minlength=len(self.shares))

    def _place(self, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(corpus, how many of its rows stand before) of positions, all int64 [n]."""
        length = len(self._corpus)
        cycle = position // length
        slot = position % length
        if length > 1:
            key = masking.row_key(self.seed, INTERLEAVING, cycle, tf.zeros_like(cycle))
            slot = permute(slot, tf.fill(tf.shape(slot), np.int64(length)), key)
        corpus = tf.gather(self._corpus, slot)
        return corpus, cycle * tf.gather(self.shares, corpus) + tf.gather(self._rank, slot)


def permute(index: tf.Tensor, size: tf.Tensor, key: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
    """Where a permutation of 0..size-1, one for each key, takes `index`. index, size and the result: int64 [n]; key: two uint32 words [n].

    No table is kept: the permutation is a block cipher walked along until it lands below `size`.
    """
    cipher_key = tf.stack([key[0], key[1], key[0] ^ 0x9E3779B9], 1)  # [n, 3]
    return tf.raw_ops.RandomIndexShuffle(index=index, seed=cipher_key, max_index=size - 1, rounds=PERMUTATION_ROUNDS)


def apportion(weights: list[float], total: int) -> np.ndarray:
    """int64 [n]: `total` divided as the weights say, by largest remainders, but at least 1 each."""
    exact = np.array(weights, np.float64) / np.sum(weights) * total
    shares = np.maximum(np.floor(exact).astype(np.int64), 1)
    while shares.sum() != total:
        step = 1 if shares.sum() < total else -1
        shares[np.argmax(step * (exact - shares))] += step
    return shares

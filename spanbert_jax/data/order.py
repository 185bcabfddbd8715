"""The order of rows in a run: a pure function from (seed, position) to a row, so a run can start at any position.

Every row of a corpus is read once in each epoch, in a new order. With several corpora, each cycle of CYCLE positions
has exact shares of them, in an order that changes from cycle to cycle, and each corpus has its own epochs (two epochs
that meet in a cycle are mixed in it).
"""

import copy

import numpy as np
import tensorflow as tf

from spanbert_jax.data import masking

CYCLE = 1 << 16  # positions in which the shares of several corpora are exact, to 1 / CYCLE
PERMUTATION, INTERLEAVING = 2, 3  # what a key is for; masking.py has the first two
PERMUTATION_ROUNDS = 16  # of the cipher behind RandomIndexShuffle; its usual 4 gave visibly similar orders of 2^16 rows
# Greatest indices for which that op takes a cipher of one bit too few, so that two indices get one image: it takes
# their logarithm, rounded up to an even number, as bits, if that is over 16. (From 4^25 on there are others too.)
SHORT_OF_BITS = 4 ** np.arange(8, 25)


class Order:
    """The order of the rows of one or more corpora, which are numbered consecutively through all of them.

    Attributes:
      seed: of the run.
      shares: int64 [corpora], rows of each corpus in a cycle.
    """

    def __init__(self, sizes: list[int], weights: list[float], seed: int, begun: np.ndarray | None = None):
        """Prepares an order.

        Args:
          sizes: number of rows of each corpus.
          weights: proportional to how often each corpus is drawn from, above 0.
          seed: of the run.
          begun: int64 [corpora], rows of each corpus that were read before position 0; None: none.
        """
        cycle = CYCLE if len(sizes) > 1 else 1
        self.seed = seed
        self.shares = apportion(weights, cycle)
        self._sizes = np.array(sizes, np.int64)
        self._first = np.cumsum(self._sizes) - self._sizes  # [corpora] number of the first row of each
        self._begun = np.zeros_like(self._sizes) if begun is None else begun
        self._shift = 0  # position of the first one

        # The positions of a cycle before they are shuffled: those of the first corpus, then those of the second, ...
        first_in_cycle = np.cumsum(self.shares) - self.shares  # [corpora]
        self._corpus = np.repeat(np.arange(len(sizes)), self.shares)  # [cycle]
        self._rank = np.arange(cycle) - first_in_cycle[self._corpus]  # [cycle] number among those of its corpus

    def after(self, position: int) -> "Order":
        """Returns the order of what comes after a position, where that one is position 0."""
        later = copy.copy(self)
        later._shift += position
        return later

    def at(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns (epoch, row number) at positions int64 [n], both int64 [n]. The epoch is that of the row's corpus."""
        corpus, rank = self._corpus_and_rank(self._shift + position)
        size = self._sizes[corpus]
        epoch = rank // size
        row = permute(rank % size, size, masking.row_key(self.seed, PERMUTATION, epoch, corpus))
        return epoch, self._first[corpus] + row

    def drawn(self, position: int) -> np.ndarray:
        """Returns how many rows of each corpus are read before a position, begun ones too: int64 [corpora]."""
        cycles, rest = divmod(self._shift + position, len(self._corpus))
        corpus, _ = self._corpus_and_rank(cycles * len(self._corpus) + np.arange(rest))
        return self._begun + cycles * self.shares + np.bincount(corpus, minlength=len(self.shares))

    def _corpus_and_rank(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns (corpus, how many rows of this corpus are read before) at positions, all int64 [n]."""
        length = len(self._corpus)
        cycle = position // length
        index = position % length
        if length > 1:
            key = masking.row_key(self.seed, INTERLEAVING, cycle, np.zeros_like(cycle))
            index = permute(index, np.full_like(index, length), key)
        corpus = self._corpus[index]
        return corpus, self._begun[corpus] + cycle * self.shares[corpus] + self._rank[index]


def permute(index: np.ndarray, size: np.ndarray, key: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Returns the images of `index` under pseudo-random permutations of 0..size-1: int64 [n].

    No table is kept: the permutation is a block cipher, applied until the result is below `size`.

    Args:
      index: int64 [n].
      size: int64 [n].
      key: two uint32 words [n] for each permutation.
    """
    seed = np.stack([key[0], key[1], key[0] ^ np.uint32(0x9E3779B9)], 1)  # [n, 3]
    # Where the greatest index is one of SHORT_OF_BITS, the permutation is made with one index more, and the index whose
    # image is that one gets the image of that one instead.
    greatest = size - 1
    arguments = dict(seed=seed, max_index=greatest + np.isin(greatest, SHORT_OF_BITS), rounds=PERMUTATION_ROUNDS)
    image = tf.raw_ops.RandomIndexShuffle(index=index, **arguments).numpy()
    if (image < size).all():
        return image
    return np.where(image < size, image, tf.raw_ops.RandomIndexShuffle(index=image, **arguments).numpy())


def apportion(weights: list[float], total: int) -> np.ndarray:
    """Divides `total` in proportion to the weights, by largest remainders, but with at least 1 each: int64 [n].

    Args:
      weights: [n], above 0.
      total: at least n.
    """
    exact = np.array(weights, np.float64) / np.sum(weights) * total
    shares = np.maximum(np.floor(exact).astype(np.int64), 1)
    while shares.sum() < total:
        shares[np.argmax(exact - shares)] += 1
    while shares.sum() > total:
        shares[np.argmax(np.where(shares > 1, shares - exact, -np.inf))] -= 1
    return shares

"""Several stores as one corpus.

config.data.store names the stores; config.data.weights and data.temperature decide how often each is drawn from.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from spanbert_jax.data.rows import Rows
from spanbert_jax.data.store import Store
from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.data.tokenizer_files import UNKNOWN
from spanbert_jax.errors import InputError

MAX_UNKNOWN = 0.01  # share of [UNK] in a text that is not warned of; 0.1 % is usual


class Mixture:
    """One or more stores with the same vocabulary and different text.

    Attributes:
      stores: in the order of config.data.store.
      names: of each store, the last component of its path, or its whole path if two are alike.
    """

    def __init__(self, stores: list[Store]):
        """Joins stores.

        Raises:
          InputError: two of them are the same, by whatever paths, or copies of each other.
        """
        same: dict[str, list[str]] = {}
        for store in stores:
            same.setdefault(store.fingerprint, []).append(store.where)
        repeated = [", ".join(paths) for paths in same.values() if len(paths) > 1]
        if repeated:
            raise InputError(
                "\n".join(
                    f"data.store: {paths} have the same content; name one of them, and give it a larger share"
                    " of data.weights to read it more often"
                    for paths in repeated
                )
            )
        self.stores = stores
        last_components = [store.where.rstrip("/").rpartition("/")[2] for store in stores]
        distinct = len(set(last_components)) == len(stores)
        self.names = last_components if distinct else [store.where for store in stores]

    @property
    def fingerprint(self) -> str:
        """Sha256 (hex) of the content of all stores; of a single store, its own fingerprint."""
        prints = [store.fingerprint for store in self.stores]
        return prints[0] if len(prints) == 1 else hashlib.sha256("\n".join(prints).encode("utf-8")).hexdigest()

    def token_counts(self, split: str) -> np.ndarray:
        """Returns how often each token occurs in a split of all stores together: int64 [V]."""
        return np.sum([store.split(split).token_counts for store in self.stores], axis=0)

    def totals(self) -> dict[str, dict[str, int]]:
        """Returns {split: {"num_tokens", "num_sentences", "num_documents"}} of all stores together."""
        keys = ("num_tokens", "num_sentences", "num_documents")
        splits = [store.index["splits"] for store in self.stores]
        return {name: {key: sum(split[name][key] for split in splits) for key in keys} for name in splits[0]}


class MixedRows:
    """The rows of several corpora, numbered consecutively through all of them.

    Attributes:
      parts: the rows of each corpus.
      sizes: number of rows of each corpus.
      num_rows, padding_fraction: of all together, as in Rows.
    """

    def __init__(self, parts: list[Rows]):
        self.parts = parts
        self.sizes = [rows.num_rows for rows in parts]
        self.num_rows = sum(self.sizes)
        self.padding_fraction = sum(rows.padding_fraction * rows.num_rows for rows in parts) / max(self.num_rows, 1)
        self._ends = np.cumsum(self.sizes)

    def read(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the rows number `ids` int64 [B], in that order; see Rows.read."""
        if len(self.parts) == 1:
            return self.parts[0].read(ids)
        corpus_of_row = np.searchsorted(self._ends, ids, "right")  # [B]
        batch: dict[str, np.ndarray] = {}
        for corpus in np.unique(corpus_of_row):
            selected = corpus_of_row == corpus
            first = self._ends[corpus] - self.sizes[corpus]
            for name, field in self.parts[corpus].read(ids[selected] - first).items():
                if name not in batch:
                    batch[name] = np.zeros((len(ids), *field.shape[1:]), field.dtype)
                batch[name][selected] = field
        return batch


def weights_of(rows: list[int], weights: Sequence[float], temperature: float) -> list[float]:
    """Returns how often each corpus is drawn from, up to a common factor.

    Args:
      rows: number of rows of each corpus.
      weights: of each corpus; (0.0,): by their numbers of rows.
      temperature: flattens weights by rows to rows ** (1 / temperature).
    """
    if tuple(weights) != (0.0,):
        return list(weights)
    try:
        return [count ** (1 / temperature) for count in rows]
    except OverflowError:  # a low temperature: only the largest counts are not 0 beside each other
        return [(count / max(rows)) ** (1 / temperature) for count in rows]


def unknown_warnings(stores: Sequence[Store], tokenizer: Tokenizer) -> list[str]:
    """Returns a line for each store of which too much is [UNK], as of text in another language."""
    lines = []
    for store in stores:
        counts = store.split("train").token_counts
        share = counts[tokenizer.unk_id] / counts.sum()
        if share > MAX_UNKNOWN:
            lines.append(
                f"warning: {share:.1%} of the tokens of {store.where} are {UNKNOWN}: check that the vocabulary is of "
                f"its language, and made for text that is {tokenizer.rules} (settings lowercase and strip_accents)"
            )
    return lines

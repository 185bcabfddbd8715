"""Several stores as one corpus: config.data.store names them, config.data.weights and data.temperature say how often each is drawn from."""

import hashlib

import numpy as np

from spanbert_jax.data.rows import Rows
from spanbert_jax.data.store import Store


class Mixture:
    """One or more stores of one vocabulary. `names`: of each, the last part of its path, or all of it where two are alike."""

    def __init__(self, stores: list[Store]):
        self.stores = stores
        short = [store.where.rstrip("/").rpartition("/")[2] for store in stores]
        self.names = short if len(set(short)) == len(short) else [store.where for store in stores]

    @property
    def fingerprint(self) -> str:
        """Of what it holds, sha256 hex: the store's own if it is one alone."""
        prints = [store.fingerprint for store in self.stores]
        return prints[0] if len(prints) == 1 else hashlib.sha256("\n".join(prints).encode("utf-8")).hexdigest()

    def token_counts(self, split: str) -> np.ndarray:
        """int64 [V]: how often each token occurs in a split of all stores together."""
        return sum(store.split(split).token_counts for store in self.stores)

    def totals(self) -> dict[str, dict[str, int]]:
        """{split: {"num_tokens", "num_sentences", "num_documents"}} of all stores together."""
        splits = [store.index["splits"] for store in self.stores]
        return {
            name: {
                key: sum(split[name][key] for split in splits)
                for key in ("num_tokens", "num_sentences", "num_documents")
            }
            for name in splits[0]
        }


class MixedRows:
    """The rows of several corpora, numbered on through all of them. Attributes: `parts`, and as of Rows `num_rows`, `padding_fraction`."""

    def __init__(self, parts: list[Rows]):
        self.parts = parts
        self.sizes = [rows.num_rows for rows in parts]
        self.num_rows = sum(self.sizes)
        self.padding_fraction = sum(rows.padding_fraction * rows.num_rows for rows in parts) / max(self.num_rows, 1)
        self._ends = np.cumsum(self.sizes)

    def read(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """Rows number `ids` int64 [n], in that order; see Rows.read."""
        if len(self.parts) == 1:
            return self.parts[0].read(ids)
        part_of = np.searchsorted(self._ends, ids, "right")
        result = {}
        for part in np.unique(part_of):
            mine = part_of == part
            for name, field in self.parts[part].read(ids[mine] - (self._ends[part] - self.sizes[part])).items():
                result.setdefault(name, np.zeros((len(ids), *field.shape[1:]), field.dtype))[mine] = field
        return result


def weights_of(rows: list[int], weights: tuple[float, ...], temperature: float) -> list[float]:
    """Odds of corpora with so many rows: `weights`, or for (0.0,) by their rows, flattened by a temperature: rows ** (1 / temperature)."""
    return [count ** (1 / temperature) for count in rows] if tuple(weights) == (0.0,) else list(weights)

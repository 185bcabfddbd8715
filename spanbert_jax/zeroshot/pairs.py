"""Minimal pairs: is a good sentence more probable than a bad one that differs in little? BLiMP's, or any JSONL file.

A masked language model has no probability of a sentence; its pseudo-log-likelihood stands for it, the sum of the
log-probabilities of the tokens, each hidden alone (Salazar et al. 2020, arXiv:1910.14659). By word, the rest of a
token's word is hidden too, so that the ends of rare words do not give away their beginnings (Kauf and Ivanova 2023,
arXiv:2305.10588: PLL-word-l2r).

A line has "sentence_good" and "sentence_bad", or "good" and "bad". GROUPS are names of groups, of which each gets an
accuracy of its own.
"""

import json
from collections.abc import Iterator, Sequence

import numpy as np

from spanbert_jax.data.sources.lines import text_lines
from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.errors import InputError
from spanbert_jax.objectives import MLM
from spanbert_jax.zeroshot.suite import Arrays, Scores, Suite, empty_batch

KEYS = (("sentence_good", "sentence_bad"), ("good", "bad"))
GROUPS = ("field", "linguistics_term", "UID", "phenomenon")
SPECIAL = 2  # tokens of a row beside the sentence: [CLS] and [SEP]
MULTIPLE = 8  # of which each length of rows is one
FULL = 128  # rows as short as this are as many as are asked for; there are more of shorter ones


class Pairs(Suite):
    """The pairs of a file."""

    title = "minimal pairs"

    def __init__(self, label: str, file: str, tokenizer: Tokenizer, longest: int, by_word: bool = False):
        """Reads a file.

        Args:
          label: of the metrics.
          file: of pairs, JSON lines, possibly compressed.
          tokenizer: of the model.
          longest: row that the model can read, in tokens.
          by_word: whether the rest of a token's word is hidden with it.

        Raises:
          InputError: a line is no pair, or too long; or there is none.
        """
        super().__init__(label, (MLM,))
        self._tokenizer, self._by_word = tokenizer, by_word
        sentences, self._groups, places = read_pairs(file)
        self._tokens = tokenizer.encode(sentences)  # of good and bad sentences in turn
        lengths = np.array([len(tokens) for tokens in self._tokens])
        for wrong in np.flatnonzero((lengths == 0) | (lengths > longest - SPECIAL)):
            raise InputError(
                f"{places[wrong // 2]}: a sentence of {lengths[wrong]} tokens; 1 to {longest - SPECIAL} fit"
            )
        self._sizes = -(-(lengths + SPECIAL) // MULTIPLE) * MULTIPLE  # of the rows of each sentence
        self._sentence = np.repeat(np.arange(len(lengths)), lengths)  # of each hidden token
        self._index = np.arange(len(self._sentence)) - np.repeat(np.cumsum(lengths) - lengths, lengths)  # in it

    def _plan(self, rows: int) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yields (length, rows, numbers of the hidden tokens, at most one for each row) of the batches."""
        sizes = self._sizes[self._sentence]
        for size in np.unique(sizes).tolist():
            of_size = np.flatnonzero(sizes == size)
            number = rows * max(FULL // size, 1)
            yield from ((size, number, of_size[first : first + number]) for first in range(0, len(of_size), number))

    def count(self, rows: int) -> int:
        """See Suite."""
        return sum(1 for _ in self._plan(rows))

    def batches(self, rows: int) -> Iterator[Arrays]:
        """See Suite."""
        starts_word, mask_id = self._tokenizer.starts_word, self._tokenizer.mask_id
        for size, number, chosen in self._plan(rows):
            batch = empty_batch(number, size, 1, self._tokenizer.pad_id)
            for row, (sentence, index) in enumerate(zip(self._sentence[chosen], self._index[chosen])):
                tokens = np.array(self._tokens[sentence], np.int32)
                end = index + 1
                if self._by_word:
                    while end < len(tokens) and not starts_word[tokens[end]]:
                        end += 1
                used = len(tokens) + SPECIAL
                batch["targets"][row], batch["mlm_positions"][row] = tokens[index], index + 1
                tokens[index:end] = mask_id
                batch["tokens"][row, :used] = self._tokenizer.cls_id, *tokens, self._tokenizer.sep_id
                batch["segments"][row, :used], batch["positions"][row, :used] = 1, np.arange(used)
            yield batch

    def sentence_scores(self, scores: Sequence[Scores], rows: int) -> np.ndarray:
        """Returns the pseudo-log-likelihood of each sentence in nats, float64 [2 * pairs]: good and bad in turn."""
        sums = np.zeros(len(self._tokens))
        for (_, _, chosen), each in zip(self._plan(rows), scores, strict=True):
            np.add.at(sums, self._sentence[chosen], each[MLM.name][0][: len(chosen), 0].astype(np.float64))
        return sums

    def examples(self, scores: Sequence[Scores], rows: int) -> dict[str, np.ndarray]:
        """Returns "LABEL_accuracy": 1 for a pair whose good sentence is the more probable one, else 0."""
        sums = self.sentence_scores(scores, rows)
        return {f"{self.label}_accuracy": (sums[0::2] > sums[1::2]).astype(np.float32)}

    def groups(self) -> dict[str, np.ndarray]:
        """Returns the pairs of each phenomenon, as "KEY/NAME"."""
        named = {key: np.array(names) for key, names in self._groups.items()}
        return {f"{key}/{name}": names == name for key, names in named.items() for name in np.unique(names).tolist()}


def read_pairs(file: str) -> tuple[list[str], dict[str, list[str]], list[str]]:
    """Returns good and bad sentences in turn, the names of groups of each pair, by key, and "FILE, line N" of each.

    Raises:
      InputError: a line is no pair; or there is none.
    """
    sentences: list[str] = []
    records, places = [], []
    for number, line in enumerate(text_lines(file), 1):
        if not line:
            continue
        place = f"{file}, line {number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{place}: is no JSON ({error})") from None
        keys = next((keys for keys in KEYS if isinstance(record, dict) and set(keys) <= record.keys()), None)
        if keys is None or not all(isinstance(record[key], str) for key in keys):
            raise InputError(f"{place}: needs the texts {KEYS[0][0]!r} and {KEYS[0][1]!r} (or 'good' and 'bad')")
        sentences += [record[key] for key in keys]
        records.append(record)
        places.append(place)
    if not records:
        raise InputError(f"{file}: has no pairs")
    shared = [group for group in GROUPS if all(group in record for record in records)]
    return sentences, {group: [str(record[group]) for record in records] for group in shared}, places

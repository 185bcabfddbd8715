"""Span cloze: one to five words of each block of text are hidden, all at once, and every token of them is predicted.

Measured are the spans of which every token is right, and the log-likelihood of a span, by MLM, SBO and both. The spans
depend on the text and the vocabulary alone, so models of one vocabulary are compared on the same ones.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from spanbert_jax.data.rows import Rows
from spanbert_jax.data.sources.lines import text_lines
from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.errors import InputError
from spanbert_jax.model.encoder import FIELDS
from spanbert_jax.objectives import MLM, SBO
from spanbert_jax.objectives.pretraining import Objectives
from spanbert_jax.zeroshot.suite import Arrays, Scores, Suite, empty_batch

WORDS = (1, 2, 3, 4, 5)
SEED = 0


class Span(NamedTuple):
    """A hidden span."""

    row: int
    first: int  # position of its first token
    last: int  # position of its last token
    words: int
    slot: int  # of its first token


class Cloze(Suite):
    """The spans of rows of text."""

    title = "span cloze"

    def __init__(self, label: str, rows: Arrays, tokenizer: Tokenizer, masking, heads: Objectives):
        """Chooses the spans.

        Args:
          label: of the metrics.
          rows: FIELDS int32 [N, L]; each block of a row begins with [CLS] and ends with [SEP].
          tokenizer: of the text.
          masking: config.masking; spans have at most max_targets tokens.
          heads: of the model.

        Raises:
          InputError: no block is long enough.
        """
        super().__init__(label, tuple(head for head in (MLM, SBO) if head in heads))
        self._rows, self._tokenizer = rows, tokenizer
        self._outside = int(masking.boundaries == "external")
        self.spans = list(choose_spans(rows, tokenizer, masking.max_targets))
        if not self.spans:
            raise InputError(f"suite {label}: no block of the text has words enough to hide some")
        self._slots = -(-max(span.slot + span.last - span.first + 1 for span in self.spans) // 8) * 8

    def count(self, rows: int) -> int:
        """See Suite."""
        return -(-len(self._rows["tokens"]) // rows)

    def batches(self, rows: int) -> Iterator[Arrays]:
        """See Suite."""
        number, length = self._rows["tokens"].shape
        of_batch: list[list[Span]] = [[] for _ in range(self.count(rows))]
        for span in self.spans:
            of_batch[span.row // rows].append(span)
        for first, spans in zip(range(0, number, rows), of_batch):
            batch = empty_batch(rows, length, self._slots, self._tokenizer.pad_id)
            for name in FIELDS:
                part = self._rows[name][first : first + rows]
                batch[name][: len(part)] = part
            for span in spans:
                row, size = span.row - first, span.last - span.first + 1
                inside, slots = slice(span.first, span.last + 1), slice(span.slot, span.slot + size)
                batch["targets"][row, slots] = batch["tokens"][row, inside]
                batch["tokens"][row, inside] = self._tokenizer.mask_id
                batch["mlm_positions"][row, slots] = np.arange(span.first, span.last + 1)
                batch["sbo_left"][row, slots] = span.first - self._outside
                batch["sbo_right"][row, slots] = span.last + self._outside
                batch["sbo_offset"][row, slots] = np.arange(size)
            yield batch

    def span_scores(self, scores: Sequence[Scores]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Returns (log-likelihoods in nats [spans], whether all tokens are right [spans]) by head."""
        found = {}
        for head in scores[0]:
            log_p, is_top = (np.concatenate([each[head][part] for each in scores]) for part in (0, 1))
            slots = [(span.row, slice(span.slot, span.slot + span.last - span.first + 1)) for span in self.spans]
            found[head] = np.array([log_p[slot].sum() for slot in slots]), np.array([is_top[s].all() for s in slots])
        return found

    def examples(self, scores: Sequence[Scores], rows: int) -> dict[str, np.ndarray]:
        """Returns of each span "LABEL_HEAD_exact" (1 if every token is right) and "LABEL_HEAD_log_likelihood"."""
        found = {}
        for head, (log_likelihood, exact) in self.span_scores(scores).items():
            found[f"{self.label}_{head}_exact"] = exact.astype(np.float32)
            found[f"{self.label}_{head}_log_likelihood"] = log_likelihood.astype(np.float32)
        return found

    def groups(self) -> dict[str, np.ndarray]:
        """Returns the spans of each number of words."""
        words = np.array([span.words for span in self.spans])
        return {f"{number}_words": words == number for number in np.unique(words).tolist()}


def choose_spans(rows: Arrays, tokenizer: Tokenizer, longest: int) -> Iterator[Span]:
    """Yields at most one span of each block, of 1 to 5 words in turn, with words on both sides."""
    for row, (tokens, segments) in enumerate(zip(rows["tokens"], rows["segments"])):
        slot = 0
        for number, segment in enumerate(np.unique(segments[segments > 0]).tolist()):
            positions = np.flatnonzero(segments == segment)[1:-1]  # without [CLS] and [SEP]
            starts = positions[tokenizer.starts_word[tokens[positions]]]
            words = WORDS[(row + number) % len(WORDS)]
            if len(starts) < words + 2:
                continue
            random = np.random.Generator(np.random.Philox(key=[SEED, 0], counter=[0, 0, row, segment]))
            chosen = int(random.integers(1, len(starts) - words))
            first, last = int(starts[chosen]), int(starts[chosen + words]) - 1
            inside = tokens[first : last + 1]
            if last - first < longest and not np.isin(inside, (tokenizer.sep_id, tokenizer.mask_id)).any():
                yield Span(row, first, last, words, slot)
                slot += last - first + 1


def held_out_rows(stores: Sequence[Rows], most: int) -> Arrays:
    """Returns FIELDS [N, L] of `most` rows (0: all), as many of each store, and evenly spread over it."""
    parts = []
    for rows in stores:
        count = min(-(-most // len(stores)) or rows.num_rows, rows.num_rows)
        if count:
            parts.append(rows.read(np.arange(count) * rows.num_rows // count))
    if not parts:
        raise InputError("suite cloze: there is no held-out text; name a file of texts, as in cloze=FILE")
    return {name: np.concatenate([part[name] for part in parts]) for name in FIELDS}


def rows_of_lines(file: str, tokenizer: Tokenizer, length: int) -> Arrays:
    """Returns FIELDS [N, L] of the lines of a file of texts, each a block, cut to L = length tokens.

    Raises:
      InputError: there is no text in it.
    """
    texts = [line for line in text_lines(file) if line]
    if not texts:
        raise InputError(f"{file}: has no text")
    rows = empty_batch(len(texts), length, 0, tokenizer.pad_id)
    for row, tokens in enumerate(tokenizer.encode(texts)):
        block = [tokenizer.cls_id, *tokens[: length - 2], tokenizer.sep_id]
        rows["tokens"][row, : len(block)], rows["segments"][row, : len(block)] = block, 1
        rows["positions"][row, : len(block)] = np.arange(len(block))
    return rows

"""Filling hidden spans of text with the two heads of a pretraining run.

    filler = SpanFiller.from_run(workdir)
    texts = filler.parse({"my text": "Four score and [[seven years]] ago our [MASK:2] brought forth"})
    for filled in filler.fill(texts, top_k=5, batch_size=16):
        filled.spans[0].mlm.probabilities  # [tokens, 5]

Each head gives every hidden token a distribution over the vocabulary: MLM from the token's own hidden state, SBO from the states at the
boundaries of its span and its place in the span. "both" is their normalised geometric mean, p ~ sqrt(p_mlm * p_sbo): the heads read one
encoder, so their plain product would count what they share twice. Tokens are guessed independently of each other, as in training.

SBO speaks only of the spans it was trained on (reference 1.4): up to masking.max_targets tokens, and with a token on each side. Elsewhere
MLM stands alone, and "both" is MLM.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.errors import InputError
from spanbert_jax.model import spanbert
from spanbert_jax.model.spec import ModelSpec
from spanbert_jax.tasks.marks import MarkedText, Span, parse_marks
from spanbert_jax.training.restore import restore_run

LENGTH_STEP, SLOT_STEP = (
    32,
    8,
)  # shapes are rounded up to these, so that texts of like length share one compiled program


@dataclasses.dataclass(frozen=True)
class Guess:
    """What was made of a span of n tokens."""

    ids: np.ndarray  # int32 [n, k], likeliest token first
    probabilities: np.ndarray  # float32 [n, k], of these
    of_true: np.ndarray | None  # float32 [n], of the true tokens, if they are known


@dataclasses.dataclass(frozen=True)
class FilledSpan:
    """The guesses at one span."""

    span: Span
    mlm: Guess
    sbo: Guess | None  # None: see without_sbo
    both: Guess
    without_sbo: str  # why there is no SBO guess; "" if there is one


@dataclasses.dataclass(frozen=True)
class FilledText:
    """A marked text and the guesses at its spans."""

    text: MarkedText
    spans: tuple[FilledSpan, ...]


class SpanFiller:
    """A pretrained model at work on marked texts, on one device."""

    def __init__(self, config, tokenizer: Tokenizer, spec: ModelSpec, params: Any):
        """config: of the run. params: of the model of `spec`.

        Raises:
          InputError: the run trained no MLM head.
        """
        if config.objectives.mlm_weight == 0:
            raise InputError(
                "the run has objectives.mlm_weight = 0, so its MLM head knows nothing: fill spans with a run that trained it"
            )
        self.config, self.tokenizer, self.spec, self.params = config, tokenizer, spec, params
        self._predict = jax.jit(functools.partial(predict, spec), static_argnames="top_k")

    @classmethod
    def from_run(cls, workdir: Path, step: int | None) -> "SpanFiller":
        """With the parameters of a run's checkpoint of `step` (None: its newest). Raises InputError when there is none."""
        return cls(*restore_run(workdir, step))

    def parse(self, texts: Mapping[str, str]) -> list[MarkedText]:
        """Reads marked texts (see tasks/marks.py) by what to call them in errors.

        Raises:
          InputError: for all texts with bad marks or too long for the model, one a line.
        """
        parsed, problems = [], []
        for where, text in texts.items():
            try:
                parsed.append(parse_marks(text, self.tokenizer, where))
                self._check_length(parsed[-1], where)
            except InputError as problem:
                problems.append(str(problem))
        if problems:
            raise InputError("\n".join(problems))
        return parsed

    def _check_length(self, text: MarkedText, where: str) -> None:
        capacity = self.config.seq_len - 2
        if len(text.tokens) > capacity:
            raise InputError(
                f"{where}: {len(text.tokens)} tokens, but the model was trained on at most {capacity}; shorten the text"
            )

    def fill(self, texts: list[MarkedText], top_k: int, batch_size: int) -> Iterator[FilledText]:
        """Guesses at every span of every text, `batch_size` texts at a time, in the order of the texts.

        Args:
          texts: as `parse` gives them.
          top_k: k, how many tokens to tell of each hidden one, 1 to V.
          batch_size: at most so many texts go through the model together. Changes memory and speed, not the guesses.

        Raises:
          InputError: top_k or batch_size out of range.
        """
        if not 1 <= top_k <= self.spec.vocab_size:
            raise InputError(
                f"top_k must be from 1 to the {self.spec.vocab_size} tokens of the vocabulary, not {top_k}"
            )
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {batch_size}")
        return self._filled(texts, top_k, batch_size)

    def _filled(self, texts: list[MarkedText], top_k: int, batch_size: int) -> Iterator[FilledText]:
        longest = max((len(text.tokens) + 2 for text in texts), default=0)
        most = max((sum(span.length for span in text.spans) for text in texts), default=0)
        shape = (
            min(batch_size, len(texts)),
            min(round_up(longest, LENGTH_STEP), self.config.seq_len),
            round_up(most, SLOT_STEP),
        )
        for first in range(0, len(texts), batch_size):
            some = texts[first : first + batch_size]
            guessed = jax.device_get(self._predict(self.params, self._batch(some, *shape), top_k=top_k))
            for row, text in enumerate(some):
                yield self._read(
                    text, {name: tuple(array[row] for array in arrays) for name, arrays in guessed.items()}
                )

    def _batch(self, texts: list[MarkedText], rows: int, length: int, slots: int) -> dict[str, np.ndarray]:
        """The model's input: text r is row r, and slot i of a row its i-th hidden token, for both heads. Rows and slots left over are 0."""
        batch = {name: np.zeros((rows, length), np.int32) for name in spanbert.ENCODER_FIELDS}  # [B, L]
        batch |= {
            name: np.zeros((rows, slots), np.int32) for name in (*spanbert.MLM_FIELDS, *spanbert.SBO_FIELDS, "targets")
        }  # [B, M]
        batch["tokens"][:] = self.tokenizer.pad_id
        for row, text in enumerate(texts):
            used = len(text.tokens) + 2
            batch["tokens"][row, :used] = self.tokenizer.cls_id, *text.tokens, self.tokenizer.sep_id
            batch["segments"][row, :used] = 1
            batch["positions"][row, :used] = np.arange(used)
            slot = 0
            for span in text.spans:
                here = row, slice(slot, slot + span.length)
                slot += span.length
                places = span.start + 1 + np.arange(span.length)  # in the row, which begins with [CLS]
                batch["mlm_positions"][here] = places
                batch["targets"][here] = span.true or 0
                if not self.without_sbo(text, span):
                    outside = self.config.masking.boundaries == "external"
                    batch["sbo_left"][here], batch["sbo_right"][here] = places[0] - outside, places[-1] + outside
                    batch["sbo_offset"][here] = np.arange(span.length)
        return batch

    def without_sbo(self, text: MarkedText, span: Span) -> str:
        """Why the SBO head cannot speak of a span; "" if it can."""
        masking = self.config.masking
        if not self.spec.sbo:
            return "the run has no SBO head"
        if span.length > masking.max_targets:
            return f"the span is longer than {masking.max_targets} tokens"
        if masking.boundaries == "external" and (span.start == 0 or span.end == len(text.tokens)):
            return "the span touches an end of the text"
        return ""

    def _read(self, text: MarkedText, guessed: dict[str, tuple[np.ndarray, ...]]) -> FilledText:
        """Guesses of one row, slot by slot (see predict), put back into spans."""
        spans, slot = [], 0
        for span in text.spans:

            def guess(name: str) -> Guess:
                ids, probabilities, of_true = (array[slot : slot + span.length] for array in guessed[name])
                return Guess(ids, probabilities, None if span.true is None else of_true)

            why = self.without_sbo(text, span)
            spans.append(
                FilledSpan(span, guess("mlm"), None if why else guess("sbo"), guess("mlm" if why else "both"), why)
            )
            slot += span.length
        return FilledText(text, tuple(spans))


def predict(spec: ModelSpec, params: Any, batch: dict[str, jax.Array], top_k: int) -> dict[str, tuple[jax.Array, ...]]:
    """Guesses at all slots, by head: "mlm", and if the model has an SBO head, "sbo" and "both".

    Args:
      batch: as for spanbert.apply, and "targets" int [B, M], the true tokens (of MLM and SBO slot i alike).
      top_k: k.

    Returns:
      By head: ids int32 [B, M, k] of the likeliest tokens, their probabilities [B, M, k], and those of the targets [B, M].
    """
    logits = spanbert.apply(spec, params, batch)
    log_p = {
        name: jax.nn.log_softmax(of_head) for name, of_head in logits.items() if name in ("mlm", "sbo")
    }  # [B, M, V]; NSP fills nothing
    if "sbo" in log_p:
        log_p["both"] = jax.nn.log_softmax((log_p["mlm"] + log_p["sbo"]) / 2)

    def told(of_head: jax.Array) -> tuple[jax.Array, ...]:
        best, ids = jax.lax.top_k(of_head, top_k)
        of_true = jnp.take_along_axis(of_head, batch["targets"][..., None], axis=-1)[..., 0]
        return ids, jnp.exp(best), jnp.exp(of_true)

    return {name: told(of_head) for name, of_head in log_p.items()}


def round_up(number: int, multiple: int) -> int:
    """The least multiple that is not below number."""
    return -(-number // multiple) * multiple

"""Filling hidden spans of text with the two heads of a pretrained model.

    filler = SpanFiller.restored(path, step=None)
    texts = filler.parse({"my text": "Four score and [[seven years]] ago our [MASK:2] brought forth"})
    for filled in filler.fill(texts, top_k=5, batch_size=16):
        filled.spans[0].mlm.probabilities  # [n, 5]

Each head predicts a distribution over the vocabulary for every hidden token: MLM from the token's own hidden state, SBO
from the states at the boundaries of its span and its offset in the span. "both" is their normalised geometric mean,
p ~ sqrt(p_mlm * p_sbo): the heads read the same encoder, so their product would count twice what they share. Tokens are
predicted independently of each other, as in training.

SBO predicts only spans of the kind that it was trained on (docs/original.md 1.4): of up to masking.max_targets tokens,
and with a token on each side. For other spans there is no SBO guess, and "both" is MLM.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from spanbert_jax.errors import InputError
from spanbert_jax.model.encoder import FIELDS
from spanbert_jax.model.layout import ONE_DEVICE
from spanbert_jax.model.spec import ModelSpec
from spanbert_jax.objectives import MLM, SBO, pretraining
from spanbert_jax.objectives.pretraining import Objectives
from spanbert_jax.tasks.marks import HiddenSpan, MarkedText, parse_marks
from spanbert_jax.training.trained import restore
from spanbert_jax.training.workdir import TrainedModel
from spanbert_jax.zeroshot.suite import log_probabilities

# Lengths and slots are rounded up to multiples of these, so that texts of similar length share one compiled program.
LENGTH_MULTIPLE = 32
SLOT_MULTIPLE = 8


@dataclasses.dataclass(frozen=True)
class Guess:
    """The prediction of one head, or of both, for a span of n tokens."""

    ids: np.ndarray  # int32 [n, k]: the k most probable tokens, in descending order
    probabilities: np.ndarray  # float32 [n, k]: their probabilities
    true_probabilities: np.ndarray | None  # float32 [n]: those of the true tokens; None if they are unknown


@dataclasses.dataclass(frozen=True)
class FilledSpan:
    """The guesses for one span."""

    span: HiddenSpan
    mlm: Guess
    sbo: Guess | None  # None: see no_sbo_reason
    both: Guess
    no_sbo_reason: str  # why there is no SBO guess; "" if there is one


@dataclasses.dataclass(frozen=True)
class FilledText:
    """A marked text and the guesses for its spans."""

    text: MarkedText
    spans: tuple[FilledSpan, ...]


class SpanFiller:
    """A pretrained model that fills the spans of marked texts, on one device."""

    def __init__(self, model: TrainedModel, notes: Sequence[str] = ()):
        """Takes a trained model.

        Args:
          model: of a run, or of files.
          notes: what it lacks, in clauses.

        Raises:
          InputError: it has no trained MLM head.
        """
        config = model.config
        if MLM not in model.objectives:
            raise InputError(
                "the model is fine-tuned and has no MLM head: name the pretraining run that it started from"
            )
        if config.objectives.mlm_weight == 0:
            raise InputError(
                "the model has no trained MLM head (objectives.mlm_weight = 0): use one that was trained with it"
            )
        self.notes = tuple(notes)
        self.config, self.tokenizer, self.spec, self.params = config, model.tokenizer, model.spec, model.params
        self.model = model
        self.heads = tuple(objective for objective in (MLM, SBO) if objective in model.objectives)
        self._predict = jax.jit(functools.partial(predict, model.spec, self.heads), static_argnames="top_k")

    @classmethod
    def restored(cls, path: Path, step: int | None) -> "SpanFiller":
        """Restores a model from a run's checkpoint of `step` (None: the newest one), or from files of weights.

        Raises:
          InputError: there is no such model or checkpoint.
        """
        return cls(*restore(path, step))

    def parse(self, texts: Mapping[str, str]) -> list[MarkedText]:
        """Parses marked texts (see tasks/marks.py), each under a name that is used in errors.

        Raises:
          InputError: some texts have wrong marks or are too long for the model; one line per text.
        """
        parsed, problems = [], []
        for name, text in texts.items():
            try:
                parsed.append(parse_marks(text, self.tokenizer, name))
                self._check_length(parsed[-1], name)
            except InputError as problem:
                problems.append(str(problem))
        if problems:
            raise InputError("\n".join(problems))
        return parsed

    def _check_length(self, text: MarkedText, name: str) -> None:
        length, capacity = len(text.tokens), self.config.seq_len - 2
        if length > capacity:
            raise InputError(
                f"{name}: {length} tokens, but the model was trained on at most {capacity}; shorten the text"
            )

    def fill(self, texts: list[MarkedText], top_k: int, batch_size: int) -> Iterator[FilledText]:
        """Predicts every span of every text, `batch_size` texts at a time, in the order of the texts.

        Args:
          texts: as `parse` returns them.
          top_k: k, the number of tokens to report for each hidden one, from 1 to V.
          batch_size: the number of texts that go through the model together. It changes memory and speed, not guesses.

        Raises:
          InputError: top_k or batch_size is out of range.
        """
        if not 1 <= top_k <= self.spec.vocab_size:
            raise InputError(
                f"top_k must be from 1 to the {self.spec.vocab_size} tokens of the vocabulary, not {top_k}"
            )
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {batch_size}")
        return self._fill(texts, top_k, batch_size)

    def _fill(self, texts: list[MarkedText], top_k: int, batch_size: int) -> Iterator[FilledText]:
        max_length = max((len(text.tokens) + 2 for text in texts), default=0)
        max_hidden = max((sum(span.length for span in text.spans) for text in texts), default=0)
        rows = min(batch_size, len(texts))
        length = min(round_up(max_length, LENGTH_MULTIPLE), self.config.seq_len)
        slots = round_up(max_hidden, SLOT_MULTIPLE)
        for first in range(0, len(texts), batch_size):
            chosen = texts[first : first + batch_size]
            batch = self._batch(chosen, rows, length, slots)
            predicted = jax.device_get(self._predict(self.params, batch, top_k=top_k))
            for row, text in enumerate(chosen):
                of_row = {head: tuple(array[row] for array in arrays) for head, arrays in predicted.items()}
                yield self._filled_text(text, of_row)

    def _batch(self, texts: list[MarkedText], rows: int, length: int, slots: int) -> dict[str, np.ndarray]:
        """Returns the input of `predict`, B = rows, L = length, M = slots.

        Text r is row r, and slot i of a row is its i-th hidden token, for both heads. Unused rows and slots are 0.
        """
        slot_fields = ("mlm_positions", "sbo_left", "sbo_right", "sbo_offset", "targets")
        batch = {name: np.zeros((rows, length), np.int32) for name in FIELDS}  # [B, L]
        batch |= {name: np.zeros((rows, slots), np.int32) for name in slot_fields}  # [B, M]
        batch["tokens"][:] = self.tokenizer.pad_id
        outside = int(self.config.masking.boundaries == "external")
        for row, text in enumerate(texts):
            used = len(text.tokens) + 2
            batch["tokens"][row, :used] = self.tokenizer.cls_id, *text.tokens, self.tokenizer.sep_id
            batch["segments"][row, :used] = 1
            batch["positions"][row, :used] = np.arange(used)
            first_slot = 0
            for span in text.spans:
                of_span = row, slice(first_slot, first_slot + span.length)
                first_slot += span.length
                first, last = span.start + 1, span.end  # positions in the row, which begins with [CLS]
                batch["mlm_positions"][of_span] = np.arange(first, last + 1)
                batch["targets"][of_span] = span.true or 0
                if not self.no_sbo_reason(text, span):
                    batch["sbo_left"][of_span], batch["sbo_right"][of_span] = first - outside, last + outside
                    batch["sbo_offset"][of_span] = np.arange(span.length)
        return batch

    def no_sbo_reason(self, text: MarkedText, span: HiddenSpan) -> str:
        """Returns why the SBO head cannot predict a span; "" if it can."""
        masking = self.config.masking
        if SBO not in self.heads:
            return "the model has no SBO head"
        if span.length > masking.max_targets:
            return f"the span is longer than {masking.max_targets} tokens"
        if masking.boundaries == "external" and (span.start == 0 or span.end == len(text.tokens)):
            return "the span touches an end of the text"
        return ""

    def _filled_text(self, text: MarkedText, predicted: dict[str, tuple[np.ndarray, ...]]) -> FilledText:
        """Groups the predictions of one row (see `predict`, without the dimension B) by span."""
        spans, first_slot = [], 0
        for span in text.spans:
            slots = slice(first_slot, first_slot + span.length)
            first_slot += span.length
            guesses = {}
            for head, arrays in predicted.items():
                ids, probabilities, true_probabilities = (array[slots] for array in arrays)
                guesses[head] = Guess(ids, probabilities, None if span.true is None else true_probabilities)
            if reason := self.no_sbo_reason(text, span):
                spans.append(FilledSpan(span, guesses["mlm"], None, guesses["mlm"], reason))
            else:
                spans.append(FilledSpan(span, guesses["mlm"], guesses["sbo"], guesses["both"], ""))
        return FilledText(text, tuple(spans))


def predict(
    spec: ModelSpec, heads: Objectives, params: Any, batch: dict[str, jax.Array], top_k: int
) -> dict[str, tuple[jax.Array, ...]]:
    """Predicts the tokens of all slots: with the head "mlm" and, if the model has it, "sbo", then also with "both".

    Args:
      spec: of the model.
      heads: MLM, and SBO if the model has it.
      params: its parameters.
      batch: as for objectives.pretraining.apply, and "targets" int [B, M], the true tokens. Slot i of both heads is the
        same token.
      top_k: k.

    Returns:
      By head: ids int32 [B, M, k] of the most probable tokens, their probabilities [B, M, k], and those of the targets
      [B, M].
    """
    logits = pretraining.apply(spec, ONE_DEVICE, heads, params, batch)
    log_p = log_probabilities(logits)  # [B, M, V]

    def top_and_true(log_p: jax.Array) -> tuple[jax.Array, ...]:
        top, ids = jax.lax.top_k(log_p, top_k)
        true = jnp.take_along_axis(log_p, batch["targets"][..., None], axis=-1)[..., 0]
        return ids, jnp.exp(top), jnp.exp(true)

    return {head: top_and_true(of_head) for head, of_head in log_p.items()}


def round_up(number: int, multiple: int) -> int:
    """Returns the smallest multiple that is at least `number`."""
    return -(-number // multiple) * multiple

"""Targets: the batch arrays of each objective, made from masked rows.

A maker is a function (masked, settings) -> {name: array [T]} in TARGETS: it gives a value for each masked token, under
the names that the objective's record lists (spanbert_jax/objectives). Names that end in "weights" become float32,
others int32. Slot i of every objective belongs to the i-th masked token of a row; all arrays are 0 in slots without a
target.

An objective that needs other inputs than masked text changes the rows before they are masked, by a function
(rows, key) -> (rows, {name: array [B, ...]}) in INPUTS.
"""

from collections.abc import Callable

import numpy as np

from spanbert_jax.data import masking, random
from spanbert_jax.data.masking import Masked
from spanbert_jax.data.schemes import MaskingSettings

Arrays = dict[str, np.ndarray]
Maker = Callable[[Masked, MaskingSettings], Arrays]


def masked_tokens(masked: Masked, settings: MaskingSettings) -> Arrays:
    """Makes every masked token a target, at its position."""
    return {"mlm_positions": masked.position, "mlm_targets": masked.token, "mlm_weights": np.ones_like(masked.token)}


def span_boundaries(masked: Masked, settings: MaskingSettings) -> Arrays:
    """Makes a masked token a target of the two tokens around its merged span (docs/original.md 1.4).

    There is no target if one of these would be [CLS] or [SEP], or beyond the first `max_targets` tokens of a span.
    """
    external = settings.boundaries == "external"
    inside = (masked.first > masked.block_first) & (masked.last < masked.block_last)
    offset = masked.position - masked.first
    seen = offset < settings.max_targets
    if external:
        seen &= inside
    left, right = (masked.first - 1, masked.last + 1) if external else (masked.first, masked.last)
    values = {
        "sbo_left": left,
        "sbo_right": right,
        "sbo_offset": offset,
        "sbo_targets": masked.token,
        "sbo_weights": np.ones_like(masked.token),
    }
    return {name: np.where(seen, value, 0) for name, value in values.items()}


TARGETS: dict[str, Maker] = {"mlm": masked_tokens, "sbo": span_boundaries}
ALWAYS = ("mlm",)  # objectives whose arrays are in every batch: the masked tokens themselves

INPUTS: dict[str, Callable[[Arrays, random.Key], tuple[Arrays, Arrays]]] = {
    "tags": lambda rows, key: (rows, {"tags": rows["tags"]})  # for printing: no objective, so no config asks for it
}


def enabled_targets(config) -> tuple[str, ...]:
    """Returns the objectives of a config whose arrays are made here; "pair" blocks bring theirs with their rows."""
    known = dict.fromkeys([*TARGETS, *INPUTS])
    return tuple(name for name in known if name in ALWAYS or config.objectives.get(f"{name}_weight", 0))


def mask(
    rows: Arrays,
    key: random.Key,
    settings: MaskingSettings,
    slots: int,
    starts_word: np.ndarray,
    counts_upto: np.ndarray,
    mask_id: int,
    targets: tuple[str, ...],
) -> Arrays:
    """Masks rows and lists what to predict.

    Args:
      rows: masking.FIELDS.
      key, settings, counts_upto, mask_id: as for masking.mask_tokens.
      slots: M, of masking.mask_slots.
      starts_word: bool [V], of the tokenizer: every token without "##" begins a word (docs/original.md 1.3.3).
      targets: the objectives to make arrays for; see enabled_targets.

    Returns:
      tokens [B, L] int32 with replacements, and the arrays [B, M] of the objectives, such as mlm_positions, mlm_targets
      int32 and mlm_weights float32; sbo_left, sbo_right (positions in the row), sbo_offset (position in the merged
      span), sbo_targets int32 and sbo_weights float32.
    """
    extra: Arrays = {}
    for name in targets:
        if name in INPUTS:
            rows, arrays = INPUTS[name](rows, key)
            extra |= arrays
    rows = {**rows, "starts_word": starts_word[rows["tokens"]]}
    tokens, masked = masking.mask_tokens(rows, key, settings, counts_upto, mask_id)
    values: Arrays = {}
    for name in targets:
        if name in TARGETS:
            values |= TARGETS[name](masked, settings)
    return {**extra, **to_slots(values, masked.row, len(tokens), slots), "tokens": tokens}


def to_slots(values: Arrays, row: np.ndarray, rows: int, slots: int) -> Arrays:
    """Returns values of masked tokens, [T] each, as batch arrays [B, M]: 0 in the slots that a row does not use.

    Args:
      values: by name of the batch array.
      row: of each masked token, ascending [T].
      rows: B.
      slots: M.
    """
    counts = np.bincount(row, minlength=rows)  # [B]
    slot = np.arange(len(row)) - (np.cumsum(counts) - counts)[row]  # [T]
    arrays = {}
    for name, value in values.items():
        arrays[name] = np.zeros((rows, slots), np.float32 if name.endswith("weights") else np.int32)
        arrays[name][row, slot] = value
    return arrays


class Masker:
    """Masking with a fixed config, vocabulary and corpus, to be called with rows."""

    def __init__(
        self, settings: MaskingSettings, slots: int, tokenizer, token_counts: np.ndarray, targets: tuple[str, ...]
    ):
        """Prepares the constants.

        Args:
          settings: how to mask.
          slots: M, of masking.mask_slots.
          tokenizer: gives starts_word, mask_id and pad_id.
          token_counts: int64 [V], how often each token occurs in the training split.
          targets: the objectives to make arrays for.
        """
        self.settings = settings
        self.slots = slots
        self.targets = targets
        self.mask_id = tokenizer.mask_id
        self.pad_id = tokenizer.pad_id
        self.starts_word = tokenizer.starts_word  # [V]
        self.counts_upto = np.cumsum(token_counts, dtype=np.int64)  # [V]

    def __call__(self, rows: Arrays, key: random.Key) -> Arrays:
        """Returns a batch from the fields of rows and their keys; see mask for what it adds."""
        constants = self.starts_word, self.counts_upto, self.mask_id
        fields = {name: rows[name] for name in rows if name in masking.FIELDS}
        masked = mask(fields, key, self.settings, self.slots, *constants, self.targets)
        return {name: rows[name] for name in rows if name not in fields} | masked

"""Span masking for other training loops: a collator in the style of Hugging Face's, from examples to numpy arrays."""

import hashlib
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from spanbert_jax.data import masking
from spanbert_jax.data.masking import TRAINING
from spanbert_jax.data.rows import ragged_range
from spanbert_jax.data.schemes import settings_from_config, tags_of
from spanbert_jax.data.targets import TARGETS, Masker
from spanbert_jax.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from spanbert_jax.errors import InputError

SEGMENTS = 2  # largest number of segments in an example: a text, or a pair of texts
IGNORED = -100  # the label that torch's and transformers' losses leave out


class SpanCollator:
    """Pads examples to config.seq_len and masks spans according to config.masking."""

    def __init__(self, tokenizer, config, seed: int, token_counts: np.ndarray | None = None):
        """Prepares the masker.

        Args:
          tokenizer: of this package, or of transformers, with a WordPiece vocabulary.
          config: a config of this package; seq_len and masking.* are read.
          seed: of all draws.
          token_counts: int64 [V], frequencies by which random replacement tokens are drawn; None: uniformly, without
            special tokens.

        Raises:
          InputError: the vocabulary is not WordPiece, or the masking needs tags.
        """
        if not isinstance(tokenizer, Tokenizer):
            tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
            tokenizer = Tokenizer(tokens, False, f"of {type(tokenizer).__name__}")  # its casing does not matter here
        settings = settings_from_config(config)
        if tags_of(settings):
            raise InputError(f"masking.schemes {', '.join(settings.schemes)}: some need tags, which only a store has")
        if token_counts is None:
            token_counts = np.array([token not in SPECIAL_TOKENS for token in tokenizer.tokens], np.int64)
        layouts = [(number, config.seq_len - 1 - number) for number in range(1, SEGMENTS + 1)]
        slots = masking.mask_slots(settings.rate, layouts)
        self.seq_len, self.seed = config.seq_len, seed
        special = [tokenizer.pad_id, tokenizer.cls_id, tokenizer.sep_id]
        self._special = np.isin(np.arange(tokenizer.vocab_size), special)  # [V]
        self._pad_id = tokenizer.pad_id
        self._masker = Masker(settings, slots, tokenizer, token_counts, tuple(TARGETS))
        self._calls = itertools.count()

    def __call__(self, examples: Sequence[Mapping], epoch: int | None = None) -> dict[str, np.ndarray]:
        """Returns a masked batch.

        The masks of an example are a function of the seed, its ids and `epoch`.

        Args:
          examples: each with `input_ids` ([CLS] ... [SEP], or [CLS] ... [SEP] ... [SEP]) and perhaps `token_type_ids`.
          epoch: a new one gives new masks; None: the number of calls before this one.

        Returns:
          int32 arrays: input_ids, attention_mask, token_type_ids [B, L]; labels [B, L], IGNORED where nothing is to be
          predicted; and for the span boundary objective sbo_left, sbo_right (positions in the row), sbo_offset
          (position in the span), sbo_targets [B, M], with sbo_weights float32 [B, M], 0 in unused slots.

        Raises:
          InputError: an example is too long or has more than two segments.
        """
        rows = self._rows(examples)
        digests = [hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows["tokens"]]
        row = np.frombuffer(b"".join(digests), "<i8").astype(np.int64)
        epoch = next(self._calls) if epoch is None else epoch
        masked = self._masker(rows, masking.row_key(self.seed, TRAINING, epoch, row))
        labels = np.full_like(masked["tokens"], IGNORED)
        used = np.nonzero(masked["mlm_weights"])
        labels[used[0], masked["mlm_positions"][used]] = masked["mlm_targets"][used]
        result = {
            "input_ids": masked["tokens"],
            "attention_mask": masked["segments"],
            "token_type_ids": masked["token_types"],
            "labels": labels,
        }
        return result | {name: field for name, field in masked.items() if name.startswith("sbo_")}

    def _rows(self, examples: Sequence[Mapping]) -> dict[str, np.ndarray]:
        """Returns the examples as rows of the pipeline."""
        lengths = np.array([len(example["input_ids"]) for example in examples])
        longest = lengths.argmax()
        if lengths[longest] > self.seq_len:
            problem = f"{lengths[longest]} tokens, more than seq_len {self.seq_len}; truncate it before"
            raise InputError(f"example {longest}: {problem}")
        at = np.repeat(np.arange(len(examples)), lengths), ragged_range(lengths)
        shape = (len(examples), self.seq_len)
        rows = {name: np.zeros(shape, np.int32) for name in ("tokens", "segments", "token_types")}
        rows["tokens"][:] = self._pad_id
        rows["tokens"][at] = np.concatenate([example["input_ids"] for example in examples])
        rows["token_types"][at] = np.concatenate(
            [example.get("token_type_ids") or np.zeros(length, np.int32) for example, length in zip(examples, lengths)]
        )
        rows["segments"][at] = 1
        text = ~self._special[rows["tokens"]]
        edges = np.diff(np.pad(text, ((0, 0), (1, 1))).astype(np.int8), axis=1)
        (row, start), (_, end) = np.nonzero(edges == 1), np.nonzero(edges == -1)
        number = ragged_range(np.bincount(row, minlength=len(examples)))
        if len(number) and number.max() >= SEGMENTS:
            raise InputError(
                f"example {int(row[number.argmax()])}: more than {SEGMENTS} segments between its special tokens"
            )
        for name, values in (("block_start", start), ("block_length", end - start)):
            rows[name] = np.zeros((len(examples), SEGMENTS), np.int32)
            rows[name][row, number] = values
        return rows

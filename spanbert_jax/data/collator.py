"""Span masking for other training loops: a collator in the style of Hugging Face's, from examples to numpy or torch.

It needs neither TensorFlow nor JAX, so it runs in the workers of a torch DataLoader and in transformers.Trainer.
"""

import dataclasses
import hashlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from spanbert_jax.data import masking
from spanbert_jax.data.schemes import settings_from_config, tags_of
from spanbert_jax.data.targets import span_boundaries, to_slots
from spanbert_jax.data.tokenizer import CONTINUATION, SPECIAL_TOKENS, Tokenizer
from spanbert_jax.errors import InputError

SEGMENTS = 2  # largest number of segments in an example: a text, or a pair of texts
IGNORED = -100  # the label that torch's and transformers' losses leave out
PADDING, TENSORS = ("longest", "max_length"), ("np", "pt")
SEPARATORS = ("pad", "cls", "sep", "bos", "eos")  # special tokens around the segments of an example


class SpanCollator:
    """Pads examples and masks spans in them according to config.masking."""

    def __init__(
        self,
        tokenizer,
        config,
        seed: int,
        token_counts: np.ndarray | None = None,
        *,
        padding: str = "longest",
        pad_to_multiple_of: int = 1,
        return_tensors: str = "np",
        sbo: bool = False,
    ):
        """Prepares the masking.

        Args:
          tokenizer: of this package or of transformers. Unless it is a WordPiece tokenizer, whose vocabulary shows by
            "##" which tokens continue a word, examples need `word_ids`.
          config: a config of this package; seq_len and masking.* are read.
          seed: of all draws.
          token_counts: int64 [V], frequencies by which random replacement tokens are drawn; None: uniformly, without
            special tokens. V is the largest id and one.
          padding: length L of the rows: that of the "longest" example, or config.seq_len ("max_length").
          pad_to_multiple_of: L is rounded up to a multiple of this, which must divide config.seq_len.
          return_tensors: "np" for numpy, "pt" for torch.
          sbo: whether batches have the arrays of the span boundary objective.

        Raises:
          InputError: an argument is not one of these, the tokenizer lacks a special token, or the masking needs tags.
        """
        settings, vocabulary = settings_from_config(config), _vocabulary_of(tokenizer)
        if token_counts is None:
            token_counts = vocabulary.is_text.astype(np.int64)
        problems = []
        if tags_of(settings):
            problems.append(f"masking.schemes {', '.join(settings.schemes)}: some need tags, which only a store has")
        for name, value, choices in (("padding", padding, PADDING), ("return_tensors", return_tensors, TENSORS)):
            if value not in choices:
                problems.append(f"SpanCollator: {name} must be one of {', '.join(choices)}, not {value!r}")
        if pad_to_multiple_of < 1 or config.seq_len % pad_to_multiple_of:
            problems.append(f"SpanCollator: pad_to_multiple_of {pad_to_multiple_of} does not divide {config.seq_len=}")
        if len(token_counts) != len(vocabulary.is_text):
            size = len(vocabulary.is_text)
            problems.append(f"SpanCollator: {len(token_counts)} token_counts for the ids 0 to {size - 1}; give {size}")
        if problems:
            raise InputError("\n".join(problems))
        self.seq_len, self.seed = config.seq_len, seed
        self._settings, self._vocabulary = settings, vocabulary
        self._counts_upto = np.cumsum(token_counts, dtype=np.int64)
        self._padding, self._multiple, self._tensors, self._sbo = padding, pad_to_multiple_of, return_tensors, sbo
        self._calls = 0

    def __call__(self, examples: Sequence[Mapping], epoch: int | None = None) -> dict[str, Any]:
        """Returns a masked batch.

        The masks of an example are a function of the seed, its ids (and words) and `epoch`.

        Args:
          examples: each with `input_ids` ([CLS] ... [SEP], or [CLS] ... [SEP] ... [SEP]), and perhaps `attention_mask`
            (where it is 0 nothing is masked), `token_type_ids`, and `word_ids`: the number of each token's word, None
            or negative for special tokens. Lists, numpy arrays or torch tensors; or what a fast tokenizer of
            transformers returns for a text, which knows the words. Other fields are left out.
          epoch: a new one gives new masks; None: one for each call, and in a worker of a torch DataLoader also for each
            start of the workers, so that no epoch repeats the masks of another. It then follows from torch's seed.

        Returns:
          Integers (int32 in numpy, int64 in torch): input_ids, attention_mask, token_type_ids (unless the tokenizer's
          models have none) [B, L]; labels [B, L], IGNORED where nothing is to be predicted. With `sbo` also sbo_left,
          sbo_right (positions in the row), sbo_offset (position in the span), sbo_targets [B, M], and sbo_weights
          float32 [B, M], 0 in unused slots.

        Raises:
          InputError: an example is too long, has more than two segments or fields that do not fit together, or its
            words are unknown.
        """
        arrays = [self._example(number, example) for number, example in enumerate(examples)]
        rows, number = self._rows(arrays), np.array([self._number(array["input_ids"]) for array in arrays], np.int64)
        key = masking.row_key(self.seed, masking.TRAINING, self._next_epoch() if epoch is None else epoch, number)
        tokens, masked = masking.mask_tokens(rows, key, self._settings, self._counts_upto, self._vocabulary.mask_id)
        labels = np.full_like(tokens, IGNORED)
        labels[masked.row, masked.position] = masked.token
        batch = {"input_ids": tokens, "attention_mask": rows["attention_mask"], "labels": labels}
        if self._vocabulary.has_types or any("token_type_ids" in array for array in arrays):
            batch["token_type_ids"] = rows["token_type_ids"]
        batch = {name: field[:, :-1] for name, field in batch.items()}
        if self._sbo:
            length = tokens.shape[1] - 1
            slots = masking.mask_slots(self._settings.rate, [(n, length + 1 - n) for n in range(1, SEGMENTS + 1)])
            batch |= to_slots(span_boundaries(masked, self._settings), masked.row, len(tokens), slots)
        return batch if self._tensors == "np" else {name: _torch_tensor(field) for name, field in batch.items()}

    def _next_epoch(self) -> int:
        """Returns the number of earlier calls.

        In a worker of a torch DataLoader it is one that no call has in any worker, from a start that torch's generator
        draws whenever workers are started.
        """
        call, self._calls = self._calls, self._calls + 1
        loader = sys.modules.get("torch.utils.data")  # a worker has imported it
        worker = loader.get_worker_info() if loader else None
        return call if worker is None else (worker.seed + call * worker.num_workers) % 2**32  # its seed: start + its id

    def _number(self, ids: np.ndarray) -> int:
        """Returns a hash of the ids of an example, whatever its padding."""
        row = np.full(self.seq_len, self._vocabulary.pad_id, np.int32)
        row[: len(ids)] = ids
        return int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=8).digest(), "little", signed=True)

    def _example(self, number: int, example: Any) -> dict[str, np.ndarray]:
        """Returns those fields of an example that are read, and `starts_word`, as arrays [tokens]."""
        words = example.get("word_ids")
        if words is None and getattr(example, "is_fast", False):  # what a tokenizer of transformers returns
            words = example.word_ids()
        if example.get("input_ids") is None:
            raise InputError(f"example {number}: no input_ids, only {', '.join(example)}; tokenise it before")
        fields = {name: example.get(name) for name in ("input_ids", "attention_mask", "token_type_ids")}
        fields["word_ids"] = None if words is None else [-1 if word is None else int(word) for word in words]
        arrays = {name: np.asarray(field) for name, field in fields.items() if field is not None}
        shape, vocab_size = arrays["input_ids"].shape, len(self._vocabulary.is_text)
        for name, array in arrays.items():
            if len(array.shape) != 1 or array.shape != shape:
                problem = f"its {name} have the shape {array.shape}, its input_ids {shape}"
                raise InputError(f"example {number}: {problem}; give one sequence, with one value for each token")
        if shape[0] > self.seq_len:
            problem = f"{shape[0]} tokens, more than seq_len {self.seq_len}; truncate it before"
            raise InputError(f"example {number}: {problem}")
        if shape[0] and not 0 <= arrays["input_ids"].min() <= arrays["input_ids"].max() < vocab_size:
            raise InputError(f"example {number}: one of its input_ids is not in the vocabulary, 0 to {vocab_size - 1}")
        if "word_ids" in arrays:
            of_token = arrays.pop("word_ids")
            return arrays | {"starts_word": (of_token < 0) | (of_token != np.append(-1, of_token[:-1]))}
        if self._vocabulary.starts_word is None:
            raise InputError(
                f"example {number}: no word_ids, and its tokenizer is not WordPiece, whose ## shows where words begin;"
                " add word_ids = tokenizer(text).word_ids() (and give remove_unused_columns=False to TrainingArguments)"
            )
        return arrays | {"starts_word": self._vocabulary.starts_word[arrays["input_ids"]]}

    def _rows(self, examples: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Returns the examples as rows for masking, [B, L + 1]; the last column, padding, ends the spans of a row."""
        lengths = [len(example["input_ids"]) for example in examples]
        longest = self.seq_len if self._padding == "max_length" else max(lengths)
        width = -(-longest // self._multiple) * self._multiple + 1
        shape = len(examples), width
        rows = {"tokens": np.full(shape, self._vocabulary.pad_id, np.int32), "starts_word": np.ones(shape, np.bool_)}
        rows |= {name: np.zeros(shape, np.int32) for name in ("attention_mask", "token_type_ids")}
        for index, (example, length) in enumerate(zip(examples, lengths)):
            for name, target in (("input_ids", "tokens"), ("starts_word", "starts_word")):
                rows[target][index, :length] = example[name]
            rows["attention_mask"][index, :length] = example.get("attention_mask", 1)
            rows["token_type_ids"][index, :length] = example.get("token_type_ids", 0)
        text = (rows["attention_mask"] > 0) & ~self._vocabulary.separates[rows["tokens"]]
        edges = np.diff(text.astype(np.int8), axis=1, prepend=0)
        (row, start), (_, end) = np.nonzero(edges == 1), np.nonzero(edges == -1)
        number = np.arange(len(row)) - np.searchsorted(row, row)  # of the segment in its row
        if number.max(initial=0) >= SEGMENTS:
            example_number = int(row[number.argmax()])
            raise InputError(f"example {example_number}: more than {SEGMENTS} segments between its special tokens")
        for name, values in (("block_start", start), ("block_length", end - start)):
            rows[name] = np.zeros((len(examples), SEGMENTS), np.int32)
            rows[name][row, number] = values
        return rows


@dataclasses.dataclass(frozen=True)
class _Vocabulary:
    """What the collator knows of a tokenizer. Arrays are bool [V]; V is the largest id and one."""

    pad_id: int
    mask_id: int
    separates: np.ndarray  # whether the token stands around the segments of an example
    is_text: np.ndarray  # whether there is a token of this id that is not special
    starts_word: np.ndarray | None  # None: the vocabulary does not say
    has_types: bool  # whether its models read token types


def _vocabulary_of(tokenizer) -> _Vocabulary:
    """Returns what the collator needs of a tokenizer. Raises InputError if it lacks a special token."""
    if isinstance(tokenizer, Tokenizer):
        ids = {token: number for number, token in enumerate(tokenizer.tokens)}
    else:
        ids = tokenizer.get_vocab()
    special: dict[str, Any] = {
        name: getattr(tokenizer, f"{name}_token_id", ids.get(f"[{name.upper()}]")) for name in SEPARATORS
    }
    special["mask"] = getattr(tokenizer, "mask_token_id", ids.get("[MASK]"))
    missing = [name for name in ("pad", "mask") if special[name] is None]
    if missing:
        raise InputError(f"{type(tokenizer).__name__}: no {' and no '.join(missing)} token; add it to the tokenizer")
    vocab_size = max(ids.values()) + 1
    separators = [special[name] for name in SEPARATORS if special[name] is not None]
    not_text = {*SPECIAL_TOKENS, *getattr(tokenizer, "all_special_tokens", ())}
    text = [number for token, number in ids.items() if token not in not_text]
    continues = [number for token, number in ids.items() if token.startswith(CONTINUATION)]
    return _Vocabulary(
        pad_id=special["pad"],
        mask_id=special["mask"],
        separates=np.isin(np.arange(vocab_size), separators),
        is_text=np.isin(np.arange(vocab_size), text),
        starts_word=~np.isin(np.arange(vocab_size), continues) if _is_wordpiece(tokenizer, ids) else None,
        has_types="token_type_ids" in getattr(tokenizer, "model_input_names", ("token_type_ids",)),
    )


def _is_wordpiece(tokenizer, tokens: Iterable[str]) -> bool:
    """Returns whether tokens that begin with "##" continue a word, and others begin one."""
    backend = getattr(tokenizer, "backend_tokenizer", None)  # of the fast tokenizers of transformers
    if backend is not None:
        return getattr(backend.model, "continuing_subword_prefix", None) == CONTINUATION
    return isinstance(tokenizer, Tokenizer) or (
        any(token.startswith(CONTINUATION) for token in tokens)
        and not any(token.startswith(("Ġ", "▁")) and len(token) > 1 for token in tokens)
    )


def _torch_tensor(field: np.ndarray):
    import torch

    return torch.from_numpy(field.astype(np.int64 if field.dtype == np.int32 else field.dtype))

"""Filled spans as JSON lines, an object a text:

{"text": marked text, "filled": the text with the first guess of both heads in its spans, "spans": [
  {"start": index of the first hidden token, "length": tokens, "true_text": as written or null, "true_tokens": [token] or null,
   "mlm": GUESS, "sbo": GUESS or null, "both": GUESS, "without_sbo": why sbo is null, or null}]}
GUESS: {"text": first guess, "top": for each token [{"token", "probability"}, likeliest first],
        "true_probabilities": [of each true token] or null}
"""

import json
from collections.abc import Iterable
from pathlib import Path

from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.folders import new_file
from spanbert_jax.tasks.fill_spans import FilledSpan, FilledText, Guess


def write_json_lines(path: Path, filled: Iterable[FilledText], tokenizer: Tokenizer) -> int:
    """Writes a line a text, the file whole or not at all; returns the number of lines.

    Raises:
      InputError: the file cannot be written; said before the first text is filled.
    """
    count = 0
    with new_file(path) as file:
        for count, text in enumerate(filled, 1):
            file.write(json.dumps(as_json(text, tokenizer), ensure_ascii=False) + "\n")
    return count


def as_json(filled: FilledText, tokenizer: Tokenizer) -> dict:
    """One object, as above."""
    fillings = [tokenizer.decode(span.both.ids[:, 0]) for span in filled.spans]
    return {
        "text": filled.text.marked,
        "filled": filled.text.filled(fillings),
        "spans": [_span(span, tokenizer) for span in filled.spans],
    }


def _span(filled: FilledSpan, tokenizer: Tokenizer) -> dict:
    span = filled.span
    return {
        "start": span.start,
        "length": span.length,
        "true_text": span.text,
        "true_tokens": None if span.true is None else [tokenizer.tokens[i] for i in span.true],
        **{head: _guess(getattr(filled, head), tokenizer) for head in ("mlm", "sbo", "both")},
        "without_sbo": filled.without_sbo or None,
    }


def _guess(guess: Guess | None, tokenizer: Tokenizer) -> dict | None:
    if guess is None:
        return None
    return {
        "text": tokenizer.decode(guess.ids[:, 0]),
        "top": [
            [{"token": tokenizer.tokens[i], "probability": float(p)} for i, p in zip(ids, probabilities)]
            for ids, probabilities in zip(guess.ids, guess.probabilities)
        ],
        "true_probabilities": None if guess.of_true is None else guess.of_true.tolist(),
    }

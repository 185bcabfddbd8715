"""Filled spans as JSON lines for programs, and as tables for a terminal.

Colour only repeats what the text says, so that the tables read the same without it.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich.box
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.folders import atomic_file
from spanbert_jax.tasks.fill_spans import FilledSpan, FilledText, Guess

CORRECT, WRONG, UNKNOWN = "bold green", "bold red", "bold cyan"  # styles of a guess; UNKNOWN: there is no true text
HEADS = {"mlm": "MLM", "sbo": "SBO", "both": "both"}
CELL_WIDTH = 16  # characters; guesses that need more are written one per line
SENTENCE_END = re.compile(r"[.!?]['\")\]]*\s")


def write_json_lines(path: Path, filled: Iterable[FilledText], tokenizer: Tokenizer) -> int:
    """Writes one line per text (see to_json) to a file, atomically, and returns the number of lines.

    Raises:
      InputError: the file cannot be written. This is raised before the first text is filled.
    """
    count = 0
    with atomic_file(path) as file:
        for text in filled:
            file.write(json.dumps(to_json(text, tokenizer), ensure_ascii=False) + "\n")
            count += 1
    return count


def to_json(filled: FilledText, tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns a filled text as one JSON object.

    {"text": the marked text, "filled": the text with the first guess of both heads in its spans, "spans": [
      {"start": index of the first hidden token, "length": tokens, "true_text": as written or null,
       "true_tokens": [token] or null, "mlm": GUESS, "sbo": GUESS or null, "both": GUESS,
       "without_sbo": why sbo is null, or null}]}
    GUESS: {"text": first guess, "top": for each token [{"token", "probability"}, in descending order],
            "true_probabilities": [of each true token] or null}
    """
    fillings = [tokenizer.decode(span.both.ids[:, 0]) for span in filled.spans]
    return {
        "text": filled.text.marked,
        "filled": filled.text.filled(fillings),
        "spans": [_span_to_json(span, tokenizer) for span in filled.spans],
    }


def _span_to_json(filled: FilledSpan, tokenizer: Tokenizer) -> dict[str, Any]:
    span = filled.span
    return {
        "start": span.start,
        "length": span.length,
        "true_text": span.text,
        "true_tokens": None if span.true is None else [tokenizer.tokens[i] for i in span.true],
        **{head: _guess_to_json(getattr(filled, head), tokenizer) for head in HEADS},
        "without_sbo": filled.no_sbo_reason or None,
    }


def _guess_to_json(guess: Guess | None, tokenizer: Tokenizer) -> dict[str, Any] | None:
    if guess is None:
        return None
    return {
        "text": tokenizer.decode(guess.ids[:, 0]),
        "top": [
            [{"token": tokenizer.tokens[i], "probability": float(p)} for i, p in zip(ids, probabilities)]
            for ids, probabilities in zip(guess.ids, guess.probabilities)
        ],
        "true_probabilities": None if guess.true_probabilities is None else guess.true_probabilities.tolist(),
    }


def show_all(texts: list[FilledText], tokenizer: Tokenizer, excerpts: bool) -> Group:
    """Returns all texts one after another (excerpts: see show_filled), and how often each head was correct."""
    return Group(*(show_filled(text, tokenizer, excerpts) for text in texts), accuracy_line(texts))


def show_filled(filled: FilledText, tokenizer: Tokenizer, excerpt: bool) -> Group:
    """Returns the text with the guess of both heads in each span, and a table of guesses, one line per hidden token.

    Args:
      filled: the text.
      tokenizer: of the run.
      excerpt: show only the sentence around the first span with an SBO guess. The model has read the whole text.
    """
    if excerpt:
        first, last, before, after = sentence(filled)
    else:
        first, last, before, after = 0, len(filled.spans) - 1, filled.text.context[0], filled.text.context[-1]
    spans = filled.spans[first : last + 1]
    context = [before, *filled.text.context[first + 1 : last + 1], after]
    indented = Padding(guess_table(spans, tokenizer), (0, 0, 0, 2))
    return Group(filled_sentence(context, spans, tokenizer), indented, *no_sbo_notes(spans), Text())


def sentence(filled: FilledText) -> tuple[int, int, str, str]:
    """Returns the sentence around the first span with an SBO guess, or around the first span if none has one.

    Returns:
      (index of its first span, index of its last span, its text before the first one, its text after the last one).
    """
    context = filled.text.context
    first = last = next((number for number, span in enumerate(filled.spans) if span.sbo), 0)
    while not (ends := list(SENTENCE_END.finditer(context[first]))) and first > 0:
        first -= 1
    while not (end := SENTENCE_END.search(context[last + 1])) and last + 1 < len(filled.spans):
        last += 1
    before = context[first][ends[-1].end() if ends else 0 :]
    after = context[last + 1][: end.end() if end else None].rstrip()
    return first, last, before, after


def filled_sentence(context: Sequence[str], spans: Sequence[FilledSpan], tokenizer: Tokenizer) -> Text:
    """Returns the text with "{NUMBER GUESS}" in each span. The context is one string longer than the spans."""
    text = Text(context[0])
    for number, (span, after) in enumerate(zip(spans, context[1:], strict=True), 1):
        ids = span.both.ids[:, 0]
        text.append(f"{{{number} {tokenizer.decode(ids)}}}", guess_style(ids, span.span.true))
        text.append(after)
    return text


def guess_style(ids: np.ndarray, true: tuple[int, ...] | None) -> str:
    """Returns the style of a guess, ids [n], for a span."""
    if true is None:
        return UNKNOWN
    return CORRECT if tuple(ids.tolist()) == true else WRONG


def guess_table(spans: Sequence[FilledSpan], tokenizer: Tokenizer) -> Table:
    """Returns a table with one line per hidden token: the true one, and the most probable ones of each head."""
    any_known = any(span.span.true is not None for span in spans)
    table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name in ("span", *(["true"] if any_known else []), *HEADS.values()):
        table.add_column(name, justify="right" if name == "span" else "left", overflow="fold")
    for number, span in enumerate(spans, 1):
        for offset in range(span.span.length):
            true = span.span.true[offset] if span.span.true else None
            cells = [Text(str(number) if offset == 0 else "")]
            if any_known:
                cells.append(Text("-" if true is None else tokenizer.tokens[true]))
            table.add_row(*cells, *(guess_cell(getattr(span, head), offset, true, tokenizer) for head in HEADS))
    return table


def guess_cell(guess: Guess | None, offset: int, true: int | None, tokenizer: Tokenizer) -> Text:
    """Returns "TOKEN PROBABILITY" for each guess of one token of a span, with a tick after the true token."""
    if guess is None:
        return Text("-")
    entries = []
    for token, probability in zip(guess.ids[offset].tolist(), guess.probabilities[offset]):
        entry = f"{tokenizer.tokens[token]} {probability:.2f}"
        entries.append(Text(f"{entry} ✓", CORRECT) if token == true else Text(entry))
    return Text("\n" if sum(map(len, entries)) > CELL_WIDTH else "  ").join(entries)


def no_sbo_notes(spans: Iterable[FilledSpan]) -> list[Text]:
    """Returns one line per reason for which spans have no SBO guess."""
    numbers_by_reason = defaultdict(list)
    for number, span in enumerate(spans, 1):
        if span.no_sbo_reason:
            numbers_by_reason[span.no_sbo_reason].append(str(number))
    return [
        Text(f"  no SBO guess for span {', '.join(numbers)}: {reason}", "dim")
        for reason, numbers in numbers_by_reason.items()
    ]


def accuracy_line(texts: Iterable[FilledText]) -> Text:
    """Returns the accuracy and the mean negative log-likelihood of each head over all hidden tokens that are known."""
    spans = [span for text in texts for span in text.spans if span.span.true]
    scores = []
    for head, title in HEADS.items():
        guesses = [(guess, span.span.true) for span in spans if (guess := getattr(span, head))]
        if guesses:
            correct = sum(int(np.sum(guess.ids[:, 0] == true)) for guess, true in guesses)
            nats = -np.log(np.concatenate([guess.true_probabilities for guess, _ in guesses]))
            scores.append(f"{title} {correct} of {len(nats)} correct, {nats.mean():.2f} nats per token")
    return Text("all hidden tokens: " + "; ".join(scores) if scores else "")

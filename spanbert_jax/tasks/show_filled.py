"""Filled spans for a person. Colour only repeats what the text says, so it reads the same through a pipe."""

import re
from collections.abc import Iterable

import numpy as np
import rich.box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.tasks.fill_spans import FilledSpan, FilledText, Guess

RIGHT, WRONG, OPEN = "bold green", "bold red", "bold cyan"  # OPEN: nobody knows what was there
HEADS = {"mlm": "MLM", "sbo": "SBO", "both": "both"}
CELL = 16  # characters of guesses that go on one line of a cell; more get a line each
SENTENCE_END = re.compile(r"[.!?]['\")\]]*\s")


def show_all(texts: list[FilledText], tokenizer: Tokenizer, excerpts: bool) -> Group:
    """All texts, one after another (excerpts: see show_filled), and how often each head was right."""
    return Group(*(show_filled(text, tokenizer, excerpts) for text in texts), score(texts))


def show_filled(filled: FilledText, tokenizer: Tokenizer, excerpt: bool) -> Group:
    """The text with the guess of both heads in each span, and a table of guesses, a line a hidden token.

    excerpt: only the sentence around the first span that both heads speak of; the rest of the text was read by the model nonetheless.
    """
    first, last, lead, tail = (
        sentence(filled) if excerpt else (0, len(filled.spans) - 1, filled.text.parts[0], filled.text.parts[-1])
    )
    spans = filled.spans[first : last + 1]
    parts = [lead, *filled.text.parts[first + 1 : last + 1], tail]
    return Group(
        sentence_text(parts, spans, tokenizer), Padding(table(spans, tokenizer), (0, 0, 0, 2)), *notes(spans), Text()
    )


def sentence(filled: FilledText) -> tuple[int, int, str, str]:
    """The sentence around the first span with an SBO guess (else the first span): its first and last span, the text before and after."""
    parts = filled.text.parts
    first = last = next((number for number, span in enumerate(filled.spans) if span.sbo), 0)
    while not (ends := list(SENTENCE_END.finditer(parts[first]))) and first > 0:
        first -= 1
    while not (end := SENTENCE_END.search(parts[last + 1])) and last + 1 < len(filled.spans):
        last += 1
    return (
        first,
        last,
        parts[first][ends[-1].end() if ends else 0 :],
        parts[last + 1][: end.end() if end else None].rstrip(),
    )


def sentence_text(parts: list[str], spans: Iterable[FilledSpan], tokenizer: Tokenizer) -> Text:
    """The text with "{number guess}" in each span."""
    text = Text(parts[0])
    for number, (span, part) in enumerate(zip(spans, parts[1:], strict=True), 1):
        text.append(f"{{{number} {tokenizer.decode(span.both.ids[:, 0])}}}", style(span.both.ids[:, 0], span.span.true))
        text.append(part)
    return text


def table(spans: Iterable[FilledSpan], tokenizer: Tokenizer) -> Table:
    """A line a hidden token: what was there, and each head's likeliest tokens with their probabilities, the true one ticked."""
    spans = list(spans)
    known = any(span.span.true is not None for span in spans)
    result = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name in ("span", *(["true"] if known else []), *HEADS.values()):
        result.add_column(name, justify="right" if name == "span" else "left", overflow="fold")
    for number, span in enumerate(spans, 1):
        for token in range(span.span.length):
            true = span.span.true[token] if span.span.true else None
            cells = [Text(str(number) if token == 0 else "")]
            cells += [Text("-" if true is None else tokenizer.tokens[true])] if known else []
            cells += [guessed(getattr(span, head), token, true, tokenizer) for head in HEADS]
            result.add_row(*cells)
    return result


def guessed(guess: Guess | None, token: int, true: int | None, tokenizer: Tokenizer) -> Text:
    """One cell: "token probability" of the likeliest ones, and a tick behind the true one."""
    if guess is None:
        return Text("-")
    told = []
    for one, probability in zip(guess.ids[token].tolist(), guess.probabilities[token]):
        told.append(
            Text(f"{tokenizer.tokens[one]} {probability:.2f}" + " ✓" * (one == true), RIGHT if one == true else "")
        )
    return Text("\n" if sum(map(len, told)) > CELL else "  ").join(told)


def style(ids: np.ndarray, true: tuple[int, ...] | None) -> str:
    """Colour of a guess [n] at a span."""
    return OPEN if true is None else RIGHT if tuple(ids.tolist()) == true else WRONG


def notes(spans: Iterable[FilledSpan]) -> list[RenderableType]:
    """Why some cells of the SBO column are empty."""
    reasons = {}
    for number, span in enumerate(spans, 1):
        if span.without_sbo:
            reasons.setdefault(span.without_sbo, []).append(str(number))
    return [Text(f"  no SBO guess at {', '.join(numbers)}: {reason}", "dim") for reason, numbers in reasons.items()]


def score(filled: Iterable[FilledText]) -> Text:
    """One line: how many of the known hidden tokens of all texts each head put first, and how likely it found them."""
    told = []
    for head, title in HEADS.items():
        pairs = [
            (getattr(span, head), span.span.true)
            for text in filled
            for span in text.spans
            if span.span.true and getattr(span, head)
        ]
        if pairs:
            right = sum(int(np.sum(guess.ids[:, 0] == true)) for guess, true in pairs)
            nats = -np.log(np.concatenate([guess.of_true for guess, _ in pairs]))
            told.append(f"{title} {right} of {len(nats)} right, {nats.mean():.2f} nats a token")
    return Text("all hidden tokens together: " + "; ".join(told) if told else "")

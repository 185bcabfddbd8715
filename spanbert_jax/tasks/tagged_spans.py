"""What is predicted of spans: which of them fit beside each other, and from which probability on they are taken."""

from collections.abc import Iterable, Sequence, Set
from typing import Any

import numpy as np

from spanbert_jax.labelled.conll import Span
from spanbert_jax.labelled.tagged import Tagged

UNTUNED = 0.5  # probability from which a span is predicted, if no validation data say better
LEAST = 0.02  # probability below which it never is


def spans_of(prediction: dict[str, Any]) -> list[Span]:
    """Returns the spans of a prediction."""
    return [(span["type"], span["first"], span["last"]) for span in prediction["spans"]]


def best_threshold(gold: Sequence[Set[Span]], predicted: Sequence[list[dict[str, Any]]]) -> tuple[float, float]:
    """Returns the best F1 in percent of the spans whose score is at least a threshold, and that threshold.

    Spans are chosen in the order of their scores (see compatible), so those of a higher threshold are among those of a
    lower one. The threshold is in the middle between the scores of the last span that it takes and of the next one.
    """
    scored = sorted(
        (
            (span["score"], (span["type"], span["first"], span["last"]) in of)
            for of, spans in zip(gold, predicted)
            for span in spans
        ),
        reverse=True,
    )
    total, correct = sum(map(len, gold)), np.cumsum([is_right for _, is_right in scored])
    best, threshold = 0.0, UNTUNED
    for number, (score, _) in enumerate(scored):
        after = scored[number + 1][0] if number + 1 < len(scored) else LEAST
        f1 = 200 * float(correct[number]) / (number + 1 + total)
        if f1 > best and after < score:
            best, threshold = f1, (score + after) / 2
    return best, threshold


def described(example: Tagged, score: float, span: Span) -> dict[str, Any]:
    """Returns a span as it is predicted; see Tagging.decode."""
    kind, first, last = span
    found = {"type": kind, "first": first, "last": last, "score": score}
    if example.ranges:
        start, end = example.ranges[first][0], example.ranges[last][1]
        found |= {"start": start, "end": end, "text": example.text[start:end]}
    return found


def compatible(scored: Iterable[tuple[float, Span]], nested: bool) -> list[tuple[float, Span]]:
    """Returns spans that do not overlap, or, if `nested`, do not cross, in order; the best ones are taken first."""
    taken: list[tuple[float, Span]] = []
    for score, (kind, first, last) in sorted(scored, key=lambda one: (-one[0], one[1][1:])):
        apart = all(
            last < begin
            or end < first
            or (nested and ((first <= begin and end <= last) or (begin <= first and last <= end)))
            for _, (_, begin, end) in taken
        )
        if apart:
            taken.append((score, (kind, first, last)))
    return sorted(taken, key=lambda one: (one[1][1], -one[1][2]))

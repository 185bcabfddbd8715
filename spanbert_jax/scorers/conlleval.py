"""Typed spans of sentences: precision, recall and F1 of exact spans, from tags as conlleval.pl reads them or as sets.

Equal to conlleval.pl (version 2004-01-26) on O, B-TYPE and I-TYPE.
"""

from collections import Counter
from collections.abc import Sequence, Set
from typing import Any

from spanbert_jax.errors import InputError
from spanbert_jax.scorers.ratios import precision_recall_f1, ratio

Span = tuple[str, int, int]  # type, first and last token
Tags = Sequence[str]


def chunks(tags: Tags) -> list[Span]:
    """Returns the spans (type, first, last) of a sentence's tags, in order.

    Nothing is repaired or dropped: I-X begins a span after O, at the beginning, or after a tag of another type. The
    type is all after the first hyphen.

    Raises:
      InputError: a tag is not O, B-TYPE or I-TYPE.
    """
    spans: list[Span] = []
    open_type = ""  # of the span that the previous token belongs to
    for position, tag in enumerate(tags):
        prefix, _, kind = tag.partition("-")
        if tag != "O" and (prefix not in ("B", "I") or not kind):
            raise InputError(
                f"token {position}: tag {tag!r} is not O, B-TYPE or I-TYPE; convert other schemes, as BIOES, to these"
            )
        if kind and prefix == "I" and kind == open_type:
            spans[-1] = (kind, spans[-1][1], position)
        elif kind:
            spans.append((kind, position, position))
        open_type = kind
    return spans


def score(gold: Sequence[Tags], predicted: Sequence[Tags]) -> dict[str, Any]:
    """Returns conlleval's scores in percent of sentences of tags.

    Those of `span_f1`, and "accuracy", the share of equal tags among all "tokens". A span is right if its type and both
    ends are: its prefixes need not agree, but count in the accuracy.

    Args:
      gold: the tags of each sentence.
      predicted: the same number of sentences, each with the same number of tags.

    Raises:
      InputError: the numbers of sentences or tags differ, or a tag is not O, B-TYPE or I-TYPE.
    """
    _check_lengths(gold, predicted)
    for number, (sentence, answer) in enumerate(zip(gold, predicted)):
        if len(sentence) != len(answer):
            raise InputError(
                f"sentence {number} has {len(sentence)} gold and {len(answer)} predicted tags; give one for each token"
            )
    tokens = sum(map(len, gold))
    equal = sum(tag == other for sentence, answer in zip(gold, predicted) for tag, other in zip(sentence, answer))
    spans = span_f1(_spans("gold", gold), _spans("predicted", predicted))
    return {**spans, "accuracy": ratio(equal, tokens, 100), "tokens": tokens}


def span_f1(gold: Sequence[Set[Span]], predicted: Sequence[Set[Span]]) -> dict[str, Any]:
    """Returns micro-averaged scores in percent of exact spans, which may be nested or overlap.

    "precision", "recall", "f1", the counts "gold", "found" (predicted) and "correct", and "per_type" with the same of
    every type of either side, in alphabetical order. What is undefined is 0.

    Args:
      gold: the spans (type, first, last) of each sentence.
      predicted: those of the same sentences.

    Raises:
      InputError: the numbers of sentences differ.
    """
    _check_lengths(gold, predicted)
    sets = [(set(spans), set(others)) for spans, others in zip(gold, predicted)]
    counts = {
        "gold": Counter(kind for spans, _ in sets for kind, *_ in spans),
        "found": Counter(kind for _, others in sets for kind, *_ in others),
        "correct": Counter(kind for spans, others in sets for kind, *_ in spans & others),
    }
    types = sorted(counts["gold"] | counts["found"])
    per_type = {kind: _scores(**{name: count[kind] for name, count in counts.items()}) for kind in types}
    return {**_scores(**{name: count.total() for name, count in counts.items()}), "per_type": per_type}


def report(scores: dict[str, Any]) -> str:
    """Returns the result of `score` as the text that conlleval.pl prints."""
    line = "precision: {precision:6.2f}%; recall: {recall:6.2f}%; FB1: {f1:6.2f}"
    head = "processed {tokens} tokens with {gold} phrases; found: {found} phrases; correct: {correct}.\n"
    total = (head + "accuracy: {accuracy:6.2f}%; " + line + "\n").format(**scores)
    types = [f"{kind:>17}: {line.format(**of)}  {of['found']}\n" for kind, of in scores["per_type"].items()]
    return total + "".join(types)


def _scores(gold: int, found: int, correct: int) -> dict[str, Any]:
    return {**precision_recall_f1(correct, found, gold, 100), "gold": gold, "found": found, "correct": correct}


def _spans(side: str, sentences: Sequence[Tags]) -> list[set[Span]]:
    sets = []
    for number, tags in enumerate(sentences):
        try:
            sets.append(set(chunks(tags)))
        except InputError as error:
            raise InputError(f"{side} sentence {number}, {error}") from error
    return sets


def _check_lengths(gold: Sequence, predicted: Sequence) -> None:
    if len(gold) != len(predicted):
        raise InputError(f"{len(gold)} gold and {len(predicted)} predicted sentences; they must be the same sentences")

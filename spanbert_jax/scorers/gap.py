"""Gendered ambiguous pronouns: F1 of "does the pronoun refer to this name", by gender of the pronoun, and its bias.

Equal to gap_scorer.py of google-research-datasets/gap-coreference.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spanbert_jax.errors import InputError
from spanbert_jax.scorers.ratios import precision_recall_f1, ratio

PRONOUNS = {
    "she": "feminine",
    "her": "feminine",
    "hers": "feminine",
    "he": "masculine",
    "his": "masculine",
    "him": "masculine",
}
LABELS = {"true": True, "false": False}
Decisions = tuple[bool | None, bool | None]  # of name A and name B; None: no decision


def score(gold: Iterable[Mapping[str, Any]], predictions: Mapping[str, Sequence[bool | None]]) -> dict[str, Any]:
    """Returns scores in percent, over all items and by gender of the pronoun, and the bias.

    "overall", "masculine" and "feminine" are each a dict of "precision", "recall", "f1" and the counts "tp", "fp",
    "fn", "tn", with 0 for what is undefined; "bias" is the feminine F1 over the masculine, None if either is 0;
    "missing" is the number of names without decision, each of which is a false negative even where gold is false.

    Args:
      gold: items of "id", "pronoun", "a_coref" and "b_coref". Other pronouns than PRONOUNS count overall alone.
      predictions: by id, whether the pronoun refers to name A and to name B; None for no decision. Ids that gold lacks
        are ignored.

    Raises:
      InputError: there is nothing to score, an id of gold is there twice, or a prediction is not two decisions.
    """
    items = list(gold)
    _check(items, predictions)
    outcomes = {group: Counter[str]() for group in ("overall", "masculine", "feminine")}
    missing = 0
    for item in items:
        decisions = predictions.get(item["id"], (None, None))
        groups = {"overall", PRONOUNS.get(item["pronoun"].lower(), "overall")}
        for decision, truth in zip(decisions, (item["a_coref"], item["b_coref"])):
            missing += decision is None
            outcome = "fn" if decision is None else ("t" if decision == truth else "f") + ("p" if decision else "n")
            for group in groups:
                outcomes[group][outcome] += 1
    scores: dict[str, Any] = {group: _scores(counts) for group, counts in outcomes.items()}
    feminine, masculine = scores["feminine"]["f1"], scores["masculine"]["f1"]
    return {**scores, "bias": ratio(feminine, masculine) or None, "missing": missing}


def decisions_of(rows: Iterable[Sequence[str]]) -> dict[str, Decisions]:
    """Returns the predictions of the rows (id, label of A, label of B) of a system's file.

    The first row of an id counts. A label is "true" or "false" in any case; another one is no decision.
    """
    decisions: dict[str, Decisions] = {}
    for name, a, b in rows:
        decisions.setdefault(name, (LABELS.get(a.lower()), LABELS.get(b.lower())))
    return decisions


def _scores(counts: Counter[str]) -> dict[str, float]:
    right = counts["tp"]
    scores = precision_recall_f1(right, right + counts["fp"], right + counts["fn"], 100)
    return scores | {name: counts[name] for name in ("tp", "fp", "fn", "tn")}


def _check(items: list[Mapping[str, Any]], predictions: Mapping[str, Sequence[bool | None]]) -> None:
    if not items:
        raise InputError("there is no gold item to score")
    for name, times in Counter(item["id"] for item in items).items():
        if times > 1:
            raise InputError(f"gold has {times} items {name!r}; an id must be unique")
    for item in items:
        if any(item[name] not in (True, False) for name in ("a_coref", "b_coref")):
            raise InputError(f"gold item {item['id']!r}: a_coref and b_coref must be True or False, not labels of text")
    for name, decisions in predictions.items():
        if len(decisions) != 2 or any(decision not in (True, False, None) for decision in decisions):
            raise InputError(
                f"prediction of {name!r} is {decisions!r}; give True, False or None for name A and for name B"
            )

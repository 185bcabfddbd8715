"""Relations between two entities: micro F1 of TACRED and macro F1 of SemEval-2010 Task 8.

Equal to utils/scorer.py of tacred-relation and to the official scorer of the task, version 1.2.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spanbert_jax.errors import InputError
from spanbert_jax.scorers.ratios import harmonic, precision_recall_f1, ratio

OTHER = "Other"
RELATIONS = (
    "Cause-Effect",
    "Component-Whole",
    "Content-Container",
    "Entity-Destination",
    "Entity-Origin",
    "Instrument-Agency",
    "Member-Collection",
    "Message-Topic",
    "Product-Producer",
)
LABEL = re.compile(rf"{OTHER}|(?:{'|'.join(RELATIONS)})\((?:e1,e2|e2,e1)\)")
Labels = Mapping[str, str]


def score_tacred(gold: Sequence[str], predicted: Sequence[str], no_relation: str = "no_relation") -> dict[str, Any]:
    """Returns micro-averaged "precision", "recall" and "f1" as fractions, without `no_relation` on both sides.

    "per_relation" has the same with the count "gold" of each relation that gold has, in alphabetical order. Precision
    is 1 where nothing is predicted, recall 0 where gold has nothing.

    Args:
      gold: the label of each example.
      predicted: the labels of the same examples.

    Raises:
      InputError: there is nothing to score, or the numbers of labels differ.
    """
    if len(gold) == 0 or len(gold) != len(predicted):
        raise InputError(f"{len(gold)} gold and {len(predicted)} predicted labels; each example needs one of both")
    golds = Counter(label for label in gold if label != no_relation)
    guesses = Counter(label for label in predicted if label != no_relation)
    correct = Counter(label for label, guess in zip(gold, predicted) if label == guess != no_relation)

    def scores(right: int, guessed: int, true: int) -> dict[str, Any]:
        precision, recall = ratio(right, guessed) if guessed else 1.0, ratio(right, true)
        return {"precision": precision, "recall": recall, "f1": harmonic(precision, recall)}

    per_relation = {
        name: {**scores(correct[name], guesses[name], golds[name]), "gold": golds[name]} for name in sorted(golds)
    }
    return {**scores(correct.total(), guesses.total(), golds.total()), "per_relation": per_relation}


def score_semeval(gold: Labels, predicted: Labels) -> dict[str, Any]:
    """Returns the scores of SemEval-2010 Task 8 in percent.

    "macro_f1" is the official score: the mean F1 of the relations in gold without Other, in which a wrong direction is
    an error. "accuracy" is that of the labelled examples. Further, one block for each way of counting: "official" (nine
    relations, with direction), "with_direction" (eighteen directed relations) and "without_direction". A block has the
    counts "count", "labelled" and "correct", "coverage", "accuracy" (of labelled examples), "accuracy_skipped_wrong"
    and "accuracy_skipped_other" (of all), "per_relation", "micro" and "macro" (both without Other). "not_in_gold"
    counts the predictions of each label that gold lacks: they are false positives of no relation if gold lacks the
    relation, as with the official scorer. Means are over the relations that gold has.

    Args:
      gold: the label of each example, "Other" or as "Cause-Effect(e1,e2)".
      predicted: the same. Examples may be missing: they count like Other in the micro and macro scores.

    Raises:
      InputError: there is nothing to score, a label is unknown, or an example is not in gold.
    """
    _check_labels(gold, predicted)
    block = {
        "official": _block(gold, predicted, _relation, _same),
        "with_direction": _block(gold, predicted, _same, _same),
        "without_direction": _block(gold, predicted, _relation, _relation),
    }
    present = set(gold.values())
    return {
        "macro_f1": block["official"]["macro"]["f1"],
        "accuracy": block["official"]["accuracy"],
        **block,
        "not_in_gold": dict(sorted(Counter(label for label in predicted.values() if label not in present).items())),
    }


def _same(label: str) -> str:
    return label


def _relation(label: str) -> str:
    """The label without direction."""
    return label.partition("(")[0]


def _block(
    gold: Labels, predicted: Labels, group: Callable[[str], str], compared: Callable[[str], str]
) -> dict[str, Any]:
    """Scores of one way of counting.

    Args:
      group: from a label to the row of the table in which it is counted.
      compared: from a label to what must be equal.
    """
    golds = Counter(map(group, gold.values()))
    guesses = Counter(map(group, predicted.values()))
    right = Counter(group(guess) for name, guess in predicted.items() if compared(guess) == compared(gold[name]))
    in_group = Counter(group(guess) for name, guess in predicted.items() if group(guess) == group(gold[name]))
    names = [name for name in sorted(golds) if name != OTHER]
    rows = {name: _row(right[name], guesses[name], golds[name]) for name in [*names, OTHER]}
    for name, row in rows.items():
        row["wrong_direction"] = in_group[name] - right[name]
    count, labelled, correct = len(gold), len(predicted), right.total()
    skipped_other = sum(label == OTHER for name, label in gold.items() if name not in predicted)
    return {
        "count": count,
        "labelled": labelled,
        "correct": correct,
        "coverage": ratio(labelled, count, 100),
        "accuracy": ratio(correct, labelled, 100),
        "accuracy_skipped_wrong": ratio(correct, count, 100),
        "accuracy_skipped_other": ratio(correct + skipped_other, count, 100),
        "per_relation": rows,
        "micro": _row(*(sum(rows[name][part] for name in names) for part in ("correct", "predicted", "gold"))),
        "macro": {
            part: ratio(sum(rows[name][part] for name in names), len(names)) for part in ("precision", "recall", "f1")
        },
    }


def _row(correct: int, predicted: int, gold: int) -> dict[str, Any]:
    return {
        **precision_recall_f1(correct, predicted, gold, 100),
        "correct": correct,
        "predicted": predicted,
        "gold": gold,
    }


def _check_labels(gold: Labels, predicted: Labels) -> None:
    if not gold:
        raise InputError("there is no gold label to score")
    problems = [
        f"{side} label of {name!r} is {label!r}; it must be {OTHER} or a relation of the task with (e1,e2) or (e2,e1)"
        for side, labels in (("gold", gold), ("predicted", predicted))
        for name, label in labels.items()
        if not LABEL.fullmatch(label)
    ]
    if unknown := [name for name in predicted if name not in gold]:
        problems.append(f"{len(unknown)} predicted examples are not in gold, {unknown[0]!r} is one: compare the ids")
    if problems:
        raise InputError("\n".join(problems[:5] + [f"and {len(problems) - 5} more"] * (len(problems) > 5)))

"""Answers to questions: exact match and F1 of SQuAD 1.1, MRQA and SQuAD 2.0.

Equal to evaluate-v1.1.py, mrqa_official_eval.py and evaluate-v2.0.py.
"""

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from spanbert_jax.errors import InputError
from spanbert_jax.scorers.ratios import precision_recall_f1

ARTICLES = re.compile(r"\b(a|an|the)\b")
WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)  # ASCII alone: curly quotes and dashes stay
Answers = Mapping[str, Sequence[str]]
Texts = Mapping[str, str]


def normalise(text: str) -> str:
    """Returns a text in lower case, without ASCII punctuation and articles, with single spaces between tokens.

    The order matters: punctuation goes before articles, so "the-rapist" is "therapist" and "vitamin A." is "vitamin".
    """
    return " ".join(ARTICLES.sub(" ", text.lower().translate(WITHOUT_PUNCTUATION)).split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """Returns 1 if the prediction equals one of the gold answers (at least one) after normalisation, else 0."""
    return max(_equal(prediction, answer) for answer in answers)


def f1(prediction: str, answers: Sequence[str]) -> float:
    """Returns the largest F1 of tokens with one of the gold answers (at least one), from 0 to 1.

    It is 0 if no token is left on a side, also where `exact_match` is 1: that is how SQuAD 1.1 scores the answer "The".
    """
    return max(_overlap(prediction, answer) for answer in answers)


def score_v1(gold: Answers, predictions: Texts, skip_missing: bool = False) -> dict[str, float]:
    """Returns the scores of SQuAD 1.1 and MRQA: "exact_match" and "f1" in percent, and "count", the questions scored.

    Args:
      gold: the answers of each question, at least one.
      predictions: the predicted text of each question. Those of questions that gold lacks are ignored.
      skip_missing: a question without prediction is left out (MRQA's --skip-no-answer) instead of scoring 0.

    Raises:
      InputError: there is nothing to score, a question has no answer, or gold or predictions are not such texts.
    """
    _check_texts(gold, predictions)
    if unanswerable := [question for question, answers in gold.items() if not answers]:
        raise InputError(
            f"{_named(unanswerable)}: no gold answer, which SQuAD 1.1 cannot score; score unanswerable questions as "
            "SQuAD 2.0, or leave them out"
        )
    questions = [question for question in gold if question in predictions]
    count = len(questions) if skip_missing else len(gold)
    if not count:
        raise InputError(f"none of the {len(gold)} gold questions has a prediction: compare the ids of both")
    pairs = [(predictions[question], gold[question]) for question in questions]
    return {
        "exact_match": 100 * sum(exact_match(*pair) for pair in pairs) / count,
        "f1": 100 * sum(f1(*pair) for pair in pairs) / count,
        "count": count,
    }


def score_v2(
    gold: Answers, predictions: Texts, na_probs: Mapping[str, float] | None = None, threshold: float = 1.0
) -> dict[str, float]:
    """Returns the scores of SQuAD 2.0 in percent under the names of the official script.

    "exact", "f1" and "total", the same with "HasAns_" and "NoAns_" where there are such questions, and with `na_probs`
    also "best_exact", "best_exact_thresh", "best_f1", "best_f1_thresh" and, if a question has an answer, the average
    precisions "pr_exact_ap", "pr_f1_ap" and "pr_oracle_ap". The best thresholds do not depend on `threshold`.

    Args:
      gold: the answers of each question; [] if it has none.
      predictions: the predicted text of every question; "" for no answer.
      na_probs: a number for every question that is larger the less likely an answer is, of any range. Their order
        decides ties, as in the official script. None: 0 for all.
      threshold: questions with a larger number count as predicted to have no answer.

    Raises:
      InputError: there is nothing to score, a prediction or number is missing or NaN, or gold or predictions are
        not such texts.
    """
    _check_texts(gold, predictions)
    numbers = dict.fromkeys(gold, 0.0) if na_probs is None else na_probs
    for name, given in (("prediction", predictions), ("no-answer probability", numbers)):
        if missing := [question for question in gold if question not in given]:
            raise InputError(f'{_named(missing)}: no {name}; SQuAD 2.0 needs one for every question ("" is no answer)')
    if unordered := [question for question, number in numbers.items() if math.isnan(number)]:
        raise InputError(f"{_named(unordered)}: the no-answer probability is NaN, which no threshold can order")
    raw = {
        "exact": {question: _v2(_equal, predictions[question], answers) for question, answers in gold.items()},
        "f1": {question: _v2(_overlap_or_empty, predictions[question], answers) for question, answers in gold.items()},
    }
    scores = _at_threshold(gold, raw, numbers, threshold)
    if na_probs is None:
        return scores
    for name in ("exact", "f1"):
        scores |= _best_threshold(name, gold, predictions, raw[name], numbers)
    if any(gold.values()):
        oracle = {question: float(bool(answers)) for question, answers in gold.items()}
        for name, values in (*raw.items(), ("oracle", oracle)):
            scores[f"pr_{name}_ap"] = _average_precision(gold, values, numbers)
    return scores


def _equal(prediction: str, answer: str) -> float:
    return float(normalise(prediction) == normalise(answer))


def _overlap(prediction: str, answer: str) -> float:
    predicted, gold = normalise(prediction).split(), normalise(answer).split()
    common = sum((Counter(predicted) & Counter(gold)).values())
    return precision_recall_f1(common, len(predicted), len(gold))["f1"]


def _overlap_or_empty(prediction: str, answer: str) -> float:
    """SQuAD 2.0: two sides without tokens agree."""
    return 1.0 if not normalise(prediction) and not normalise(answer) else _overlap(prediction, answer)


def _v2(measure: Callable[[str, str], float], prediction: str, answers: Sequence[str]) -> float:
    """The largest value with the answers of which something is left; if there is none, the right answer is ""."""
    return max(measure(prediction, answer) for answer in [a for a in answers if normalise(a)] or [""])


def _at_threshold(
    gold: Answers, raw: dict[str, dict[str, float]], numbers: Mapping[str, float], threshold: float
) -> dict[str, float]:
    """The scores if questions with a number above the threshold have no answer, of all and of both kinds."""
    values = {
        name: {
            question: of[question] if numbers[question] <= threshold else float(not gold[question]) for question in of
        }
        for name, of in raw.items()
    }
    kinds = (
        ("", list(gold)),
        ("HasAns_", [question for question in gold if gold[question]]),
        ("NoAns_", [question for question in gold if not gold[question]]),
    )
    scores: dict[str, float] = {}
    for kind, questions in kinds:
        if questions:
            for name, of in values.items():
                scores[kind + name] = 100 * sum(of[question] for question in questions) / len(questions)
            scores[f"{kind}total"] = len(questions)
    return scores


def _best_threshold(
    name: str, gold: Answers, predictions: Texts, values: dict[str, float], numbers: Mapping[str, float]
) -> dict[str, float]:
    """The best score of any threshold, and that threshold, found as the official script does.

    It starts from no answer to any question at threshold 0, whatever the range of the numbers, and answers one question
    after another. It may stop within questions of equal numbers, and an answer to an unanswerable question is wrong
    even if nothing is left of it after normalisation.
    """
    best = score = float(sum(not answers for answers in gold.values()))
    threshold = 0.0
    for question in _by_number(gold, numbers):
        score += values[question] if gold[question] else -bool(predictions[question])
        if score > best:
            best, threshold = score, numbers[question]
    return {f"best_{name}": 100 * best / len(gold), f"best_{name}_thresh": threshold}


def _average_precision(gold: Answers, values: dict[str, float], numbers: Mapping[str, float]) -> float:
    """The area under the steps of precision over recall; questions of equal numbers are one step."""
    answerable = sum(map(bool, gold.values()))
    order = _by_number(gold, numbers)
    right = recall = area = 0.0
    for rank, question in enumerate(order, 1):
        right += values[question] if gold[question] else 0.0
        if rank == len(order) or numbers[question] != numbers[order[rank]]:
            area += right / rank * (right / answerable - recall)
            recall = right / answerable
    return 100 * area


def _by_number(gold: Answers, numbers: Mapping[str, float]) -> list[str]:
    """The questions by rising number; those of equal numbers in the order of `numbers`."""
    return sorted((question for question in numbers if question in gold), key=lambda question: numbers[question])


def _check_texts(gold: Answers, predictions: Texts) -> None:
    """Refuses what would be scored letter by letter, or not at all."""
    if not gold:
        raise InputError("there is no gold question to score")
    if single := [question for question, answers in gold.items() if isinstance(answers, str)]:
        raise InputError(f"{_named(single)}: the gold answers are one string; give a list of strings")
    if other := [question for question, text in predictions.items() if not isinstance(text, str)]:
        raise InputError(f"{_named(other)}: the prediction is not a string; give one text for each question")


def _named(questions: list[str]) -> str:
    shown = ", ".join(map(repr, questions[:3]))
    return f"question {shown}" + (f" and {len(questions) - 3} more" if len(questions) > 3 else "")

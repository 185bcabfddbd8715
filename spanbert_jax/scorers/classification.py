"""Accuracy, F1, Matthews correlation of classes, and correlations of numbers, as GLUE reports them.

Equal to scikit-learn's accuracy_score, precision_score, recall_score, f1_score and matthews_corrcoef, and made with
scipy's pearsonr and spearmanr. All are fractions; what is undefined is 0, but NaN for a correlation of numbers.
"""

import math
import operator
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from scipy import stats

from spanbert_jax.errors import InputError
from spanbert_jax.scorers.ratios import precision_recall_f1, ratio

Classes = Sequence[Hashable]


def accuracy(gold: Classes, predicted: Classes) -> float:
    """Returns the share of predictions that equal gold.

    Raises:
      InputError: the lengths differ, or are 0.
    """
    _check_lengths(gold, predicted)
    return sum(map(operator.eq, gold, predicted)) / len(gold)


def precision_recall(gold: Classes, predicted: Classes, positive: Hashable = 1) -> dict[str, float]:
    """Returns "precision", "recall" and "f1" of one class.

    Raises:
      InputError: the lengths differ, or are 0.
    """
    _check_lengths(gold, predicted)
    correct = sum(label == guess == positive for label, guess in zip(gold, predicted))
    return precision_recall_f1(
        correct, sum(guess == positive for guess in predicted), sum(label == positive for label in gold)
    )


def f1(gold: Classes, predicted: Classes, positive: Hashable = 1) -> float:
    """Returns the F1 of one class.

    Raises:
      InputError: the lengths differ, or are 0.
    """
    return precision_recall(gold, predicted, positive)["f1"]


def macro_f1(gold: Classes, predicted: Classes) -> float:
    """Returns the mean F1 of all classes of either side.

    Raises:
      InputError: the lengths differ, or are 0.
    """
    _check_lengths(gold, predicted)
    classes = {*gold, *predicted}
    return sum(f1(gold, predicted, each) for each in classes) / len(classes)


def matthews(gold: Classes, predicted: Classes) -> float:
    """Returns the Matthews correlation of two or more classes; 0 if a side is constant.

    Raises:
      InputError: the lengths differ, or are 0.
    """
    _check_lengths(gold, predicted)
    count, correct = len(gold), sum(map(operator.eq, gold, predicted))
    golds, guesses = Counter(gold), Counter(predicted)
    covariance = correct * count - sum(golds[each] * guesses[each] for each in golds)
    spread = count * count - sum(n * n for n in golds.values())
    guess_spread = count * count - sum(n * n for n in guesses.values())
    return ratio(covariance, math.sqrt(spread * guess_spread))


def pearson(gold: Sequence[float], predicted: Sequence[float]) -> float:
    """Returns Pearson's correlation, in float64; NaN if a side is constant.

    Raises:
      InputError: the lengths differ, or are less than 2.
    """
    return _correlation(stats.pearsonr, gold, predicted)


def spearman(gold: Sequence[float], predicted: Sequence[float]) -> float:
    """Returns Spearman's correlation, with average ranks for ties; NaN if a side is constant.

    Raises:
      InputError: the lengths differ, or are less than 2.
    """
    return _correlation(stats.spearmanr, gold, predicted)


def _correlation(function: Callable, gold: Sequence[float], predicted: Sequence[float]) -> float:
    _check_lengths(gold, predicted, least=2)
    sides = [np.asarray(side, np.float64) for side in (gold, predicted)]  # float32 loses small spreads
    if any(np.ptp(side) == 0 for side in sides):
        return math.nan  # scipy's value too, but with a warning
    return float(function(*sides).statistic)


def _check_lengths(gold: Sequence, predicted: Sequence, least: int = 1) -> None:
    if len(gold) != len(predicted) or len(gold) < least:
        raise InputError(
            f"{len(gold)} gold and {len(predicted)} predicted values; give one for each example, and at least {least}"
        )

"""Precision, recall and F1 from counts, with 0 for what is undefined."""


def ratio(numerator: float, denominator: float, unit: float = 1.0) -> float:
    """Returns `unit * numerator / denominator`, or 0 if the denominator is 0."""
    return unit * numerator / denominator if denominator else 0.0


def harmonic(precision: float, recall: float) -> float:
    """Returns F1, the harmonic mean of both in their unit; 0 if both are 0."""
    return ratio(2 * precision * recall, precision + recall)


def precision_recall_f1(correct: float, predicted: float, gold: float, unit: float = 1.0) -> dict[str, float]:
    """Returns "precision", "recall" and "f1".

    Args:
      correct: what is predicted and gold.
      predicted: the denominator of precision.
      gold: the denominator of recall.
      unit: 1 for fractions, 100 for percent.
    """
    precision, recall = ratio(correct, predicted, unit), ratio(correct, gold, unit)
    return {"precision": precision, "recall": recall, "f1": harmonic(precision, recall)}

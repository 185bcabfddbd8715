"""Metrics of GLUE: equal to those of scikit-learn and scipy."""

import math
import warnings

import numpy as np
import pytest

from spanbert_jax.errors import InputError
from spanbert_jax.scorers.classification import accuracy, f1, macro_f1, matthews, pearson, precision_recall, spearman
from tests.scorers.goldens import close, load


def binary(gold, predicted):
    of = precision_recall(gold, predicted)
    assert of["f1"] == f1(gold, predicted)
    share = accuracy(gold, predicted)
    return {**of, "accuracy": share, "matthews": matthews(gold, predicted), "acc_and_f1": (share + of["f1"]) / 2}


def multiclass(gold, predicted):
    return {
        "accuracy": accuracy(gold, predicted),
        "matthews_multiclass": matthews(gold, predicted),
        "macro_f1": macro_f1(gold, predicted),
    }


def regression(gold, predicted):
    of = {"pearson": pearson(gold, predicted), "spearman": spearman(gold, predicted)}
    return of | {"pearson_spearman_mean": sum(of.values()) / 2}


def test_metrics_are_those_of_the_libraries():
    cases = load("glue_metrics")["cases"]
    assert len(cases) == 20
    for case in cases:
        measure = {"binary": binary, "multiclass": multiclass, "regression": regression}[case["kind"]]
        expected = {name: float(value) for name, value in case["expected"].items()}
        for convert in (list, np.array):
            got = measure(convert(case["gold"]), convert(case["prediction"]))
            assert got == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True), case["name"]


def test_classes_may_be_names():
    gold, predicted = ["yes", "no", "maybe", "yes"], ["yes", "no", "yes", "no"]
    assert accuracy(gold, predicted) == 0.5
    assert f1(gold, predicted, positive="yes") == 0.5
    assert macro_f1(gold, predicted) == close((1 / 2 + 2 / 3) / 3)


def test_the_order_of_classes_does_not_matter():
    gold, predicted = [0, 0, 1, 1, 2, 2, 2], [0, 1, 1, 1, 2, 0, 2]
    renamed = [[{0: "c", 1: "a", 2: "b"}[label] for label in side] for side in (gold, predicted)]
    assert matthews(*renamed) == close(matthews(gold, predicted)) == close(matthews(predicted, gold))


def test_what_is_undefined():
    constant = [0, 0, 0]
    assert (matthews(constant, [0, 1, 0]), f1(constant, constant), accuracy(constant, constant)) == (0, 0, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(pearson([1, 2, 3], [2, 2, 2])) and math.isnan(spearman([2, 2, 2], [1, 2, 3]))


def test_many_examples_of_small_integers_do_not_overflow():
    gold = np.tile(np.array([0, 1, 1, 0], np.int8), 50_000)
    predicted = np.tile(np.array([0, 1, 0, 0], np.int8), 50_000)
    assert matthews(gold, predicted) == close(1 / math.sqrt(3))


@pytest.mark.parametrize("measure", [accuracy, f1, macro_f1, matthews, pearson, spearman])
def test_lengths_must_agree(measure):
    for gold, predicted in (([1, 0], [1]), ([], [])):
        with pytest.raises(InputError, match=f"{len(gold)} gold and {len(predicted)} predicted"):
            measure(gold, predicted)

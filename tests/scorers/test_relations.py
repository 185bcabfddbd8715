"""Scores of relations: equal to those of TACRED and SemEval-2010 Task 8, and their rules by hand."""

import re

import pytest

from spanbert_jax.errors import InputError
from spanbert_jax.scorers.relations import score_semeval, score_tacred
from tests.scorers.goldens import assert_same, close, load

WAYS = {
    "way19_with_direction": "with_direction",
    "way10_ignoring_direction": "without_direction",
    "way10_with_direction_official": "official",
}


def assert_tacred(gold, predicted, expected):
    scores = score_tacred(gold, predicted)
    assert scores["per_relation"].keys() == expected["per_relation"].keys()
    for name, of in expected["per_relation"].items():
        assert_same(scores["per_relation"][name], of)
    values = [scores[name] for name in ("precision", "recall", "f1")]
    assert values == close([expected[f"{name}_micro"] for name in ("precision", "recall", "f1")])
    shown = (f"{name:>9} (micro): {100 * value:.3f}%" for name, value in zip(("Precision", "Recall", "F1"), values))
    assert "\n".join(["Final Score:", *shown, ""]) == expected["printed_final"]


def test_scores_of_tacred_are_the_official_ones():
    golden = load("relation_tacred")
    for system, predicted in golden["predictions"].items():
        assert_tacred(golden["gold"], predicted, golden["expected"][system])
    for case in golden["edge_cases"]:
        assert_tacred(case["gold"], case["prediction"], case["expected"])


def assert_rows(got, expected):
    """Both have the same counts and percents; ours may have more."""
    names = {"proposed": "predicted", "of_these_wrong_direction": "wrong_direction"}
    assert {name: got[names.get(name, name)] for name in expected} == close(expected)


def assert_semeval(gold, predicted, expected):
    scores = score_semeval(gold, predicted)
    assert scores["macro_f1"] == close(expected["official_macro_f1"])
    assert f"macro-averaged F1 = {scores['macro_f1']:.2f}%" in expected["official_line_as_printed"]
    assert scores["accuracy"] == scores["official"]["accuracy"]
    warned = (re.search(r"contains (\d+) label\(s\) of type '(.*)', which", line) for line in expected["warnings"])
    assert scores["not_in_gold"] == {match[2]: int(match[1]) for match in warned}
    for way, ours in WAYS.items():
        of, official = scores[ours], expected[way]
        rows = {name.removeprefix("_"): row for name, row in official["per_relation"].items()}
        assert of["per_relation"].keys() == rows.keys()
        for name, row in rows.items():
            assert_rows(of["per_relation"][name], row)
        assert_rows(of["micro"], official["micro"])
        assert_rows(of["macro"], official["macro"])
        correct, labelled, percent = official["accuracy"]
        assert (of["correct"], of["labelled"]) == (correct, labelled) and of["accuracy"] == close(percent)
        assert [of["labelled"], of["count"], of["coverage"]] == close(official["coverage"])
        for name in ("accuracy_skipped_wrong", "accuracy_skipped_other"):
            right, count, percent = official[name]
            assert count == of["count"] and of[name] == close(percent) == close(100 * right / count)


def test_scores_of_semeval_are_the_official_ones():
    golden = load("relation_semeval2010")
    for system, predicted in golden["predictions"].items():
        assert_semeval(golden["gold"], predicted, golden["expected"][system])
    for case in golden["extra_cases"]:
        assert_semeval(case["gold"], case["prediction"], case["expected"])


def test_tacred_leaves_no_relation_out_and_counts_predicted_relations_that_gold_lacks():
    scores = score_tacred(["a", "none", "a", "b"], ["a", "c", "none", "none"], no_relation="none")
    assert (scores["precision"], scores["recall"]) == close((1 / 2, 1 / 3))
    assert list(scores["per_relation"]) == ["a", "b"]
    assert scores["per_relation"]["b"] == {"precision": 1, "recall": 0, "f1": 0, "gold": 1}  # never predicted


def test_tacred_without_any_prediction_is_precise():
    scores = score_tacred(["no_relation"] * 3, ["no_relation"] * 3)
    assert scores == {"precision": 1, "recall": 0, "f1": 0, "per_relation": {}}


C, C_BACK, P = "Cause-Effect(e1,e2)", "Cause-Effect(e2,e1)", "Product-Producer(e1,e2)"


def test_semeval_counts_a_wrong_direction_in_the_precision_of_its_relation():
    scores = score_semeval({1: C, 2: C, 3: P, 4: "Other"}, {1: C, 2: C_BACK, 3: P, 4: "Other"})
    row = scores["official"]["per_relation"]["Cause-Effect"]
    assert (row["precision"], row["recall"], row["wrong_direction"]) == (50, 50, 1)
    assert (scores["macro_f1"], scores["accuracy"]) == (75, 75)
    assert scores["without_direction"]["macro"]["f1"] == 100
    assert scores["not_in_gold"] == {C_BACK: 1}


def test_semeval_averages_f1_over_the_relations_of_gold_and_skipped_examples_are_misses():
    scores = score_semeval({1: C, 2: C, 3: "Other"}, {1: C, 3: P})
    assert scores["macro_f1"] == close(200 / 3)  # precision 1, recall 1/2; the false P counts for no relation
    official = scores["official"]
    assert (official["accuracy"], official["coverage"]) == close((50, 200 / 3))
    assert official["accuracy_skipped_wrong"] == close(100 / 3)


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: score_tacred([], []), "0 gold and 0 predicted"),
        (lambda: score_tacred(["a"], []), "1 gold and 0 predicted"),
        (lambda: score_semeval({}, {}), "no gold label"),
        (lambda: score_semeval({"1": "Cause-Effect"}, {}), "gold label of '1' is 'Cause-Effect'"),
        (lambda: score_semeval({"1": C}, {"1": "_Other"}), "predicted label of '1' is '_Other'"),
        (lambda: score_semeval({"1": C}, {"2": C}), "1 predicted examples are not in gold, '2'"),
    ],
)
def test_what_cannot_be_scored_is_refused(call, said):
    with pytest.raises(InputError, match=said):
        call()

"""Scores of ambiguous pronouns: equal to gap_scorer.py's, and its rules by hand."""

import pytest

from spanbert_jax.errors import InputError
from spanbert_jax.scorers.gap import decisions_of, score
from tests.scorers.goldens import assert_same, close, load

GROUPS = ("overall", "masculine", "feminine")


def printed(scores) -> str:
    """Scores as the official script prints them."""
    lines = [
        f"{group.capitalize()} recall: {of['recall']:.1f} precision: {of['precision']:.1f} f1: {of['f1']:.1f}\n"
        f"\t\ttp {of['tp']}\tfp {of['fp']}\n\t\tfn {of['fn']}\ttn {of['tn']}"
        for group, of in ((group, scores[group]) for group in GROUPS)
    ]
    bias = "-" if scores["bias"] is None else f"{scores['bias']:.2f}"
    return "\n".join([*lines, f"Bias (F/M): {bias}"])


def assert_official(scores, expected):
    for group in GROUPS:
        assert_same(scores[group], expected[group])
    assert scores["bias"] == (None if expected["bias_f_over_m"] is None else close(expected["bias_f_over_m"]))
    assert printed(scores) == expected["printed"]
    assert 2 * scores["missing"] == expected["missing_output_messages"]  # one overall and one of the gender


def test_scores_are_the_official_ones():
    golden = load("gap")
    for system, predictions in golden["predictions"].items():
        assert_official(score(golden["gold"], predictions), golden["expected"][system])
        assert golden["expected"][system]["repeated_id_messages"] == 0
    for case in golden["extra_cases"]:
        rows = case["system_lines"]
        decisions = decisions_of(rows)
        assert_official(score(case["gold"], decisions), case["expected"])
        assert len(rows) - len(decisions) == case["expected"]["repeated_id_messages"]


def item(name, pronoun, a, b):
    return {"id": name, "pronoun": pronoun, "a_coref": a, "b_coref": b}


GOLD = [item("1", "Her", True, False), item("2", "he", False, True), item("3", "his", False, False)]


def test_decisions_are_counted_by_gender():
    scores = score(GOLD, {"1": (True, False), "2": (True, True), "3": (False, False), "4": (True, True)})
    assert (scores["feminine"]["f1"], scores["masculine"]["f1"]) == close((100, 200 / 3))
    assert scores["bias"] == close(1.5)
    assert [scores["overall"][name] for name in ("tp", "fp", "fn", "tn")] == [2, 1, 0, 3]


def test_a_missing_decision_is_a_false_negative_whatever_gold_says():
    scores = score(GOLD, {"1": (None, False), "2": (False, True)})
    assert scores["missing"] == 3 and scores["overall"]["fn"] == 3
    assert scores["overall"]["recall"] == 25 and scores["bias"] is None


def test_another_pronoun_counts_overall_alone():
    scores = score([item("1", "they", True, False)], {"1": (True, True)})
    assert (scores["overall"]["tp"], scores["overall"]["fp"]) == (1, 1)
    assert scores["feminine"]["tp"] == scores["masculine"]["tp"] == 0


def test_rows_of_a_file():
    rows = [("1", "TRUE", "false"), ("1", "FALSE", "TRUE"), ("2", "maybe", "")]
    assert decisions_of(rows) == {"1": (True, False), "2": (None, None)}


@pytest.mark.parametrize(
    "gold, predictions, said",
    [
        ([], {}, "no gold item"),
        ([GOLD[0], GOLD[0]], {}, "gold has 2 items '1'"),
        ([item("1", "her", "TRUE", "FALSE")], {}, "'1': a_coref and b_coref must be True or False"),
        (GOLD, {"1": ("TRUE", "FALSE")}, "prediction of '1'"),
        (GOLD, {"1": (True,)}, "prediction of '1'"),
    ],
)
def test_what_cannot_be_scored_is_refused(gold, predictions, said):
    with pytest.raises(InputError, match=said):
        score(gold, predictions)

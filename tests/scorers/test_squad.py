"""Scores of answers: equal to the official ones of SQuAD 1.1, MRQA and SQuAD 2.0, and the rules by hand."""

import pytest

from spanbert_jax.errors import InputError
from spanbert_jax.scorers.squad import exact_match, f1, normalise, score_v1, score_v2
from tests.scorers.goldens import assert_same, close, load


@pytest.mark.parametrize("name", ["squad_v1", "mrqa"])
def test_scores_of_version_1_are_the_official_ones(name):
    golden = load(name)
    gold, predictions, expected = golden["gold"], golden["predictions"], golden["expected"]
    scores, skipping = score_v1(gold, predictions), score_v1(gold, predictions, skip_missing=True)
    official = expected if name == "squad_v1" else expected["default"]
    assert scores["count"] == official["total"]
    assert [scores["exact_match"], scores["f1"]] == close([official["exact_match"], official["f1"]])
    assert gold.keys() - predictions.keys() == set(expected["missing_predictions"])
    if name == "mrqa":
        official = expected["skip_no_answer"]
        assert skipping["count"] == official["total"]
        assert [skipping["exact_match"], skipping["f1"]] == close([official["exact_match"], official["f1"]])
    else:
        empty = score_v1(gold, dict.fromkeys(gold, "") | predictions)
        assert empty["exact_match"] == close(expected["exact_match_if_missing_are_empty_strings"])
        assert empty["f1"] == close(expected["f1_if_missing_are_empty_strings"])
    assert expected["per_question_em_f1"].keys() == predictions.keys()
    for question, pair in expected["per_question_em_f1"].items():
        text, answers = predictions[question], gold[question]
        assert [exact_match(text, answers), f1(text, answers)] == close(pair), question
    for case in golden["edge_cases"]:
        scores = score_v1({"q": case["gold"]}, {"q": case["prediction"]})
        assert [scores["exact_match"], scores["f1"]] == close([case["exact_match"], case["f1"]]), case


def test_scores_of_version_2_are_the_official_ones():
    golden = load("squad_v2")
    gold, predictions = golden["gold"], golden["predictions"]
    for expected in golden["expected"].values():
        na_set, threshold = expected.pop("na_prob_set", None), expected.pop("na_prob_thresh", 1.0)
        assert_same(score_v2(gold, predictions, golden["na_probs"].get(na_set), threshold), expected)
    for case in golden["extra_cases"]:
        threshold = case["expected"].pop("na_prob_thresh")
        na_probs = golden["na_probs"][case["na_prob_set"]]
        assert_same(score_v2(gold, case["prediction"], na_probs, threshold), case["expected"])
    for question, pair in golden["raw_per_question_exact_f1"].items():
        scores = score_v2({question: gold[question]}, {question: predictions[question]})
        assert [scores["exact"], scores["f1"]] == close([100 * value for value in pair]), question
    for case in golden["edge_cases"]:
        question = {"q": case["gold"]}, {"q": case["prediction"]}
        assert_same(score_v2(*question), case["official"])
        assert_same(score_v2(*question, {"q": 0.3}), case["official_with_na_prob_0.3"])


@pytest.mark.parametrize(
    "text, normal",
    [
        ("the-rapist", "therapist"),
        ("co-operate", "cooperate"),
        ("co operate", "co operate"),
        ("$12", "12"),
        ("1,000", "1000"),
        ("vitamin A.", "vitamin"),
        ("An apple  a day", "apple day"),
        ("another", "another"),
        ("\u201cThriller\u201d \u2014 \u20ac5", "\u201cthriller\u201d \u2014 \u20ac5"),
        ("a\u2014b", "\u2014b"),
        ("new\u00a0york\u2009x\u3000y", "new york x y"),
        ("new\u200byork", "new\u200byork"),
        ("?! the", ""),
    ],
)
def test_normalisation(text, normal):
    assert normalise(text) == normal


def test_each_measure_takes_its_own_best_answer_and_counts_repeated_tokens():
    assert exact_match("the U.S.", ["United States", "us"]) == 1
    assert f1("alpha gamma", ["alpha beta", "beta gamma"]) == 0.5
    assert f1("cat cat cat", ["the cat sat on the cat mat"]) == 0.5  # 2 common of 3 and 5


def test_an_answer_of_which_nothing_is_left_matches_without_overlap_in_version_1_and_empties_version_2():
    assert (exact_match("", ["The"]), f1("", ["The"])) == (1, 0)
    scores = score_v2({"q": ["The"]}, {"q": "?!"})
    assert (scores["exact"], scores["f1"], scores["HasAns_total"]) == (100, 100, 1)
    assert score_v2({"q": ["The", "word"]}, {"q": ""})["exact"] == 0


def test_a_missing_prediction_is_wrong_or_left_out():
    gold = {"a": ["x"], "b": ["y"], "c": ["z"]}
    assert score_v1(gold, {"a": "x", "b": "y", "other": "z"}) == close(
        {"exact_match": 200 / 3, "f1": 200 / 3, "count": 3}
    )
    assert score_v1(gold, {"a": "x", "b": "y"}, skip_missing=True) == {"exact_match": 100, "f1": 100, "count": 2}


def test_the_threshold_is_strict_and_the_best_one_needs_an_improvement():
    gold, predictions = {"answer": ["x"], "none": []}, {"answer": "x", "none": "?"}
    at = score_v2(gold, predictions, {"answer": 0.5, "none": 0.7}, threshold=0.5)
    assert (at["exact"], at["HasAns_exact"], at["NoAns_exact"]) == (100, 100, 100)
    assert (at["best_exact"], at["best_exact_thresh"]) == (100, 0.5)
    # "?" is right at any threshold, but for the search an answer to an unanswerable question is wrong.
    turned = score_v2(gold, predictions, {"none": -3.0, "answer": -2.0})
    assert (turned["exact"], turned["best_exact"], turned["best_exact_thresh"]) == (100, 50, 0.0)


def test_equal_numbers_are_walked_in_their_order_for_the_threshold_and_are_one_step_of_precision():
    gold, predictions = {"a": ["x"], "b": ["x"]}, {"a": "x", "b": "y"}
    right_first = score_v2(gold, predictions, {"a": 0.5, "b": 0.5})
    assert right_first == score_v2(gold, predictions, {"b": 0.5, "a": 0.5})
    assert (right_first["best_exact"], right_first["pr_exact_ap"], right_first["pr_oracle_ap"]) == (50, 25, 100)
    gold["c"] = []
    predictions["c"] = "z"
    best = [score_v2(gold, predictions, dict.fromkeys(order, 0.5))["best_exact"] for order in ("acb", "cab")]
    assert best == close([200 / 3, 100 / 3])


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: score_v1({}, {}), "no gold question"),
        (lambda: score_v1({"q": []}, {"q": ""}), "'q': no gold answer"),
        (lambda: score_v1({"q": "text"}, {"q": "text"}), "give a list of strings"),
        (lambda: score_v1({"q": ["text"]}, {"q": None}), "'q': the prediction is not a string"),
        (lambda: score_v1({"q": ["x"]}, {"p": "x"}, skip_missing=True), "none of the 1 gold questions"),
        (lambda: score_v2({c: [] for c in "abcde"}, {}), "'a', 'b', 'c' and 2 more: no prediction"),
        (lambda: score_v2({"q": []}, {"q": ""}, {}), "no no-answer probability"),
        (lambda: score_v2({"q": []}, {"q": ""}, {"q": float("nan")}), "is NaN"),
    ],
)
def test_what_cannot_be_scored_is_refused(call, said):
    with pytest.raises(InputError, match=said):
        call()

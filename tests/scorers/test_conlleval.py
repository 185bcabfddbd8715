"""Scores of typed spans: equal to conlleval's, and spans as sets, which may be nested."""

import random

import pytest

from spanbert_jax.errors import InputError
from spanbert_jax.scorers.conlleval import chunks, report, score, span_f1
from tests.scorers.goldens import close, load

OFFICIAL = {"gold_phrases": "gold", "found_phrases": "found", "correct_phrases": "correct"}


def assert_official(gold, predicted, expected):
    scores = score(gold, predicted)
    assert report(scores) == expected.pop("printed")
    per_type = expected.pop("per_type")
    assert list(scores["per_type"]) == sorted(per_type)
    for kind, of in per_type.items():
        assert {name: scores["per_type"][kind][name] for name in of} == close(of)
    assert {name: scores[OFFICIAL.get(name, name)] for name in expected} == close(expected)


def test_scores_are_the_official_ones():
    golden = load("ner_conlleval")
    for system, predicted in golden["predictions"].items():
        assert_official(golden["gold"], predicted, golden["expected"][system])
    for case in golden["edge_cases"]:
        assert_official(case["gold"], case["prediction"], case["expected"])


def test_sets_of_spans_score_as_tags_do_where_these_are_flat():
    draw = random.Random(0)
    tags = ["O", "O", "B-a", "I-a", "B-b", "I-b"]
    gold, predicted = ([draw.choices(tags, k=12) for _ in range(60)] for _ in range(2))
    scores = score(gold, predicted)
    assert scores.pop("tokens") == 720 and 10 < scores.pop("accuracy") < 40
    assert scores == span_f1(*([set(chunks(sentence)) for sentence in side] for side in (gold, predicted)))
    assert scores["correct"] > 5


@pytest.mark.parametrize(
    "tags, spans",
    [
        ("O B-X I-X O", [("X", 1, 2)]),
        ("O I-X I-X O", [("X", 1, 2)]),
        ("B-X I-Y O", [("X", 0, 0), ("Y", 1, 1)]),
        ("I-X I-X I-Y I-X", [("X", 0, 1), ("Y", 2, 2), ("X", 3, 3)]),
        ("B-X B-X I-X", [("X", 0, 0), ("X", 1, 2)]),
        ("B-X O I-X", [("X", 0, 0), ("X", 2, 2)]),
        ("B-creative-work I-creative-work I-creative", [("creative-work", 0, 1), ("creative", 2, 2)]),
        ("O O", []),
        ("", []),
    ],
)
def test_spans_of_tags(tags, spans):
    assert chunks(tags.split()) == spans


def test_a_sentence_ends_a_span_and_prefixes_count_in_the_accuracy_alone():
    scores = score([["O", "B-X"], ["B-X", "O"]], [["O", "I-X"], ["I-X", "O"]])
    assert (scores["f1"], scores["found"], scores["accuracy"]) == (100, 2, 50)


def test_what_is_undefined_is_0_and_types_of_one_side_are_listed():
    scores = score([["B-gold", "O"]], [["O", "B-guess"]])
    assert list(scores["per_type"]) == ["gold", "guess"]
    assert scores["per_type"]["gold"] == dict(precision=0, recall=0, f1=0, gold=1, found=0, correct=0)
    nothing = score([["O"]], [["O"]])
    assert (nothing["precision"], nothing["f1"], nothing["accuracy"], nothing["per_type"]) == (0, 0, 100, {})
    assert score([], [])["accuracy"] == 0


def test_nested_spans_are_scored_one_by_one():
    gold = [{("ORG", 0, 5), ("LOC", 2, 2), ("ORG", 2, 2)}, set()]
    predicted = [{("ORG", 0, 5), ("LOC", 2, 2), ("LOC", 2, 3)}, {("ORG", 0, 0)}]
    scores = span_f1(gold, predicted)
    assert (scores["precision"], scores["recall"]) == close((50.0, 200 / 3))
    assert scores["f1"] == close(400 / 7)
    assert {kind: (of["gold"], of["found"], of["correct"]) for kind, of in scores["per_type"].items()} == {
        "LOC": (1, 2, 1),
        "ORG": (2, 2, 1),
    }


@pytest.mark.parametrize(
    "gold, predicted, said",
    [
        ([["O"]], [], "1 gold and 0 predicted sentences"),
        ([["O"], ["O", "O"]], [["O"], ["O"]], "sentence 1 has 2 gold and 1 predicted tags"),
        ([["O"]], [["S-X"]], "predicted sentence 0, token 0: tag 'S-X' is not"),
        ([["O", "B"]], [["O", "O"]], "gold sentence 0, token 1: tag 'B' is not"),
        ([["O-X"]], [["O"]], "tag 'O-X' is not"),
    ],
)
def test_other_tags_and_lengths_are_refused(gold, predicted, said):
    with pytest.raises(InputError, match=said):
        score(gold, predicted)

"""Scores of coreference clusters: equal to the reference scorer's, and properties of each metric."""

import itertools
import random

import pytest

from spanbert_jax.errors import InputError
from spanbert_jax.scorers.coreference import count, score
from tests.scorers.goldens import close, load

OFFICIAL = {"muc": "muc", "b3": "b_cubed", "ceafe": "ceaf_e", "ceafm": "ceaf_m", "mentions": "mentions"}
LINKS = ("coreference_links", "non_coreference_links")
NAMES = ("recall", "precision", "f1")


def assert_official(scores, counts, expected):
    """All numbers of a golden: scores, numerators and denominators, and what the scorer printed."""
    ours = {
        **{name: expected[name] for name in OFFICIAL},
        **{f"blanc_{name}": expected["blanc"][name] for name in LINKS},
    }
    for name, of in ours.items():
        metric, numbers = OFFICIAL.get(name, name), counts[OFFICIAL.get(name, name)]
        assert numbers == close(tuple(of[side][part] for side in NAMES[:2] for part in ("num", "den"))), name
        fractions = {"recall": of["recall"]["value"], "precision": of["precision"]["value"], "f1": of["f1"]}
        assert scores[metric] == close(fractions), name
    assert scores["blanc"] == close({name: expected["blanc"][name] for name in NAMES})
    assert scores["conll_f1"] == close(expected["conll_f1"])
    for name, printed in expected.get("printed", {}).items():
        if name == "conll_f1_of_printed_values":
            assert 0 <= 100 * scores["conll_f1"] - printed < 0.02
            continue
        metric = OFFICIAL.get(name, name)
        for side, percent in zip(NAMES, printed):  # cut off after two decimals, with the scorer's own rounding
            assert -1e-9 <= 100 * scores[metric][side] - percent < 0.01 + 1e-9, name


def test_scores_of_small_cases_are_the_official_ones():
    cases = load("coref_tiny")["cases"]
    assert len(cases) == 21
    for case in cases:
        gold, predicted = case["gold"], case["prediction"]
        scores = score({"d": gold}, {"d": predicted})
        assert scores.pop("per_document") == {"d": scores}
        assert_official(scores, count(gold, predicted), case["expected"])


def test_scores_of_documents_and_their_sum_are_the_official_ones():
    golden = load("coref_ontogum")
    gold = golden["gold"]
    for system, predicted in golden["predictions"].items():
        scores, expected = score(gold, predicted), golden["expected"][system]
        counts = {document: count(clusters, predicted.get(document, [])) for document, clusters in gold.items()}
        total = {
            metric: tuple(map(sum, zip(*(of[metric] for of in counts.values()))))
            for metric in next(iter(counts.values()))
        }
        assert_official(scores, total, expected["aggregate"])
        assert scores["per_document"].keys() == expected["per_document"].keys() == gold.keys()
        for document, of in expected["per_document"].items():
            assert_official(scores["per_document"][document], counts[document], of)


def drawn_clusters(draw: random.Random, mentions: int, clusters: int) -> list[list[tuple[int, int]]]:
    """Spans of one or two tokens in random clusters, of which some are empty."""
    made: list[list[tuple[int, int]]] = [[] for _ in range(clusters)]
    for first in draw.sample(range(2 * mentions), mentions):
        draw.choice(made).append((first, first + first % 2))
    return made


def best_by_trying(weights: list[list[float]]) -> float:
    """The best assignment of all."""
    rows, columns = len(weights), len(weights[0])
    if rows > columns:
        return best_by_trying([list(row) for row in zip(*weights)])
    return max(sum(map(list.__getitem__, weights, chosen)) for chosen in itertools.permutations(range(columns), rows))


def test_the_closed_forms_are_the_definitions():
    draw = random.Random(1)
    for _ in range(20):
        gold, predicted = ([set(c) for c in drawn_clusters(draw, 9, 4) if c] for _ in range(2))
        of = count(gold, predicted)
        common = [[len(a & b) for b in predicted] for a in gold]
        assert of["ceaf_m"].recall_correct == best_by_trying(common)
        alike = [[2 * len(a & b) / (len(a) + len(b)) for b in predicted] for a in gold]
        assert of["ceaf_e"].recall_correct == close(best_by_trying(alike))
        parts = [sum(bool(a & b) for b in predicted) + len(a.difference(*predicted)) for a in gold]
        assert of["muc"].recall_correct == sum(len(a) - n for a, n in zip(gold, parts))
        pairs = [
            {frozenset(pair): any({*pair} <= c for c in side) for pair in itertools.combinations(set().union(*side), 2)}
            for side in (gold, predicted)
        ]
        for links, is_linked in (("blanc_coreference_links", True), ("blanc_non_coreference_links", False)):
            of_gold, of_answer = ({pair for pair, linked in side.items() if linked == is_linked} for side in pairs)
            both = len(of_gold & of_answer)
            assert of[links] == (both, len(of_gold), both, len(of_answer))


def test_exchanged_sides_exchange_recall_and_precision_and_the_order_of_clusters_does_not_matter():
    draw = random.Random(2)
    gold, predicted = ([c for c in drawn_clusters(draw, 60, 15) if c] for _ in range(2))
    forward, back = count(gold, predicted), count(predicted, gold)
    assert all(forward[metric] == close((*back[metric][2:], *back[metric][:2])) for metric in forward)
    shuffled = [draw.sample(cluster, len(cluster)) for cluster in draw.sample(predicted, len(predicted))]
    again = count(gold, shuffled)
    assert all(forward[metric] == close(tuple(again[metric])) for metric in forward)


def test_documents_are_those_of_gold_and_counts_are_summed_before_division():
    gold = {"a": [[(0, 0), (1, 1)]], "b": [[(0, 0), (1, 1), (2, 2), (3, 3)]]}
    scores = score(gold, {"a": gold["a"], "other": [[(5, 5), (6, 6)]]})
    assert scores["muc"] == {"precision": 1, "recall": 0.25, "f1": 0.4}
    assert [of["muc"]["f1"] for of in scores["per_document"].values()] == [1, 0]


def test_nothing_scores_0_and_singletons_count_but_in_muc():
    assert score({"d": []}, {"d": []})["conll_f1"] == score({}, {})["conll_f1"] == 0
    singles = score({"d": [[(0, 0)], [(1, 1)]]}, {"d": [[(0, 0)], [(1, 1)]]})
    assert (singles["muc"]["f1"], singles["b_cubed"]["f1"], singles["ceaf_e"]["f1"], singles["blanc"]["f1"]) == (
        0,
        1,
        1,
        1,
    )


def test_a_repeated_span_stays_in_the_cluster_that_begins_first():
    gold = [[(0, 0), (3, 3)], [(1, 1), (4, 4)]]
    assert count(gold, [[(3, 3), (4, 4), (1, 1)], [(3, 3), (0, 0)], [], [(4, 4)]]) == count(gold, gold)


def test_a_span_in_two_gold_clusters_is_refused():
    with pytest.raises(InputError, match=r"document 'x': span \(1, 1\) is in several gold clusters"):
        score({"x": [[(0, 0), (1, 1)], [(1, 1), (2, 2)]]}, {})


def test_many_clusters_of_a_long_document_are_aligned():
    gold = [[(n, n)] for n in range(4000)]
    predicted = [[(n, n), (n + 1, n + 1)] for n in range(0, 4000, 2)]
    of = count(gold, predicted)
    assert of["ceaf_m"].recall_correct == 2000 and of["ceaf_e"].recall_correct == close(2000 * 2 / 3)

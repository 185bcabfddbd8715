"""Coreference clusters: MUC, B-cubed, CEAF, BLANC, mention detection and the CoNLL F1.

Equal to the CoNLL reference scorer v8.01: mentions match by exact boundaries, singletons count, and the numerators and
denominators of documents are summed before they are divided.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import comb
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from spanbert_jax.errors import InputError
from spanbert_jax.scorers.ratios import harmonic, ratio

Span = Sequence[int]  # first and last token
Clusters = Iterable[Iterable[Span]]
METRICS = ("muc", "b_cubed", "ceaf_e", "ceaf_m", "mentions")
LINKS = ("blanc_coreference_links", "blanc_non_coreference_links")


class Counts(NamedTuple):
    """Numerators and denominators of recall and precision. Sums of those of documents are those of the corpus."""

    recall_correct: float = 0
    recall_total: float = 0
    precision_correct: float = 0
    precision_total: float = 0


def score(gold: Mapping[str, Clusters], predicted: Mapping[str, Clusters]) -> dict[str, Any]:
    """Returns all metrics as fractions, over all documents and for each one.

    "muc", "b_cubed", "ceaf_e", "ceaf_m", "blanc", "blanc_coreference_links", "blanc_non_coreference_links" and
    "mentions" are each a dict of "precision", "recall" and "f1"; "conll_f1" is the mean F1 of MUC, B-cubed and CEAFe;
    "per_document" has the same for each document. What is undefined is 0, so two empty sides score 0.

    Args:
      gold: the clusters of each document; a cluster is spans (first, last) of tokens, both included.
      predicted: the same. A document that is missing has no clusters; those that gold lacks are ignored. Of a span in
        several clusters, only the one in the cluster that begins first in the document counts.

    Raises:
      InputError: a gold span is in two clusters.
    """
    per_document = {}
    for document, clusters in gold.items():
        try:
            per_document[document] = count(clusters, predicted.get(document, ()))
        except InputError as error:
            raise InputError(f"document {document!r}: {error}") from error
    total = {
        metric: Counts(*map(sum, zip(Counts(), *(counts[metric] for counts in per_document.values()))))
        for metric in (*METRICS, *LINKS)
    }
    return {**_scores(total), "per_document": {document: _scores(counts) for document, counts in per_document.items()}}


def count(gold: Clusters, predicted: Clusters) -> dict[str, Counts]:
    """Returns numerators and denominators of one document, for each of METRICS and of the two link types of BLANC.

    Raises:
      InputError: a gold span is in two clusters.
    """
    golds, answers = _in_order(gold), _without_repeats(_in_order(predicted))
    cluster_of = {span: number for number, cluster in enumerate(golds) for span in cluster}
    sizes, answer_sizes = [*map(len, golds)], [*map(len, answers)]
    if len(cluster_of) < sum(sizes):
        times = Counter(span for cluster in golds for span in cluster)
        raise InputError(f"span {max(times, key=times.__getitem__)} is in several gold clusters; it belongs to one")
    overlaps = Counter(
        (cluster_of[span], number) for number, cluster in enumerate(answers) for span in cluster if span in cluster_of
    )
    mentions, answered, common = sum(sizes), sum(answer_sizes), overlaps.total()
    links = common - len(overlaps)  # MUC: a cluster of m common mentions in k clusters of the other side keeps m - k
    alike = {(i, j): 2 * n / (sizes[i] + answer_sizes[j]) for (i, j), n in overlaps.items()}
    aligned, aligned_mentions = _best_alignment(alike), _best_alignment(overlaps)
    recalled = sum(n * n / sizes[i] for (i, _), n in overlaps.items())
    precise = sum(n * n / answer_sizes[j] for (_, j), n in overlaps.items())
    return {
        "muc": Counts(links, mentions - len(sizes), links, answered - len(answer_sizes)),
        "b_cubed": Counts(recalled, mentions, precise, answered),
        "ceaf_e": Counts(aligned, len(sizes), aligned, len(answer_sizes)),
        "ceaf_m": Counts(aligned_mentions, mentions, aligned_mentions, answered),
        "mentions": Counts(common, mentions, common, answered),
        **_blanc(sizes, answer_sizes, overlaps),
    }


def _in_order(clusters: Clusters) -> list[list[tuple[int, int]]]:
    """Clusters without empty ones, by where they begin in the document (of equal starts the longer span first)."""
    sets = [{(int(first), int(last)) for first, last in cluster} for cluster in clusters]
    by_start = [sorted(spans, key=lambda span: (span[0], -span[1])) for spans in sets if spans]
    return sorted(by_start, key=lambda spans: (spans[0][0], -spans[0][1]))


def _without_repeats(clusters: list[list[tuple[int, int]]]) -> list[list[tuple[int, int]]]:
    """A span stays in the first of its clusters; a cluster of which nothing is left vanishes."""
    seen: set[tuple[int, int]] = set()
    kept = []
    for cluster in clusters:
        kept.append([span for span in cluster if span not in seen])
        seen.update(cluster)
    return [cluster for cluster in kept if cluster]


def _best_alignment(weights: Mapping[tuple[int, int], float]) -> float:
    """The largest sum of weights in which each cluster of both sides is used at most once.

    Clusters that share no mention with each other, directly or through others, do not compete: each connected group is
    solved by itself, which keeps the matrices small.
    """
    if not weights:
        return 0
    rows, columns = np.array(list(weights)).T  # [E] each
    values = np.array(list(weights.values()))  # [E]
    nodes = rows.max() + 1 + columns.max() + 1
    graph = coo_array((np.ones(len(rows)), (rows, rows.max() + 1 + columns)), shape=(nodes, nodes))
    group = connected_components(graph, directed=False)[1][rows]  # [E]
    order = np.argsort(group, kind="stable")
    total = 0
    for edges in np.split(order, np.flatnonzero(np.diff(group[order])) + 1):
        row, column = (np.unique(side[edges], return_inverse=True)[1] for side in (rows, columns))
        matrix = np.zeros((row.max() + 1, column.max() + 1), values.dtype)
        matrix[row, column] = values[edges]
        total += matrix[linear_sum_assignment(matrix, maximize=True)].sum().item()
    return total


def _blanc(sizes: list[int], answer_sizes: list[int], overlaps: Counter[tuple[int, int]]) -> dict[str, Counts]:
    """Pairs of mentions in one cluster, and pairs in two, of each side and of both."""
    in_gold: Counter[int] = Counter()  # common mentions of each gold cluster
    in_answer: Counter[int] = Counter()
    for (i, j), n in overlaps.items():
        in_gold[i] += n
        in_answer[j] += n
    linked, answer_linked, both_linked, gold_linked_common, answer_linked_common = (
        sum(comb(size, 2) for size in group)
        for group in (sizes, answer_sizes, overlaps.values(), in_gold.values(), in_answer.values())
    )
    neither = comb(overlaps.total(), 2) - gold_linked_common - answer_linked_common + both_linked
    apart, answer_apart = comb(sum(sizes), 2) - linked, comb(sum(answer_sizes), 2) - answer_linked
    return {
        "blanc_coreference_links": Counts(both_linked, linked, both_linked, answer_linked),
        "blanc_non_coreference_links": Counts(neither, apart, neither, answer_apart),
    }


def _scores(counts: Mapping[str, Counts]) -> dict[str, Any]:
    """The fractions of every metric."""
    scores: dict[str, Any] = {}
    for metric, of in counts.items():
        recall, precision = ratio(of.recall_correct, of.recall_total), ratio(of.precision_correct, of.precision_total)
        scores[metric] = {"precision": precision, "recall": recall, "f1": harmonic(precision, recall)}
    # BLANC is the mean of the link types that gold has, of F1 too.
    present = [scores[links] for links in LINKS if counts[links].recall_total]
    scores["blanc"] = {
        name: ratio(sum(of[name] for of in present), len(present)) for name in ("precision", "recall", "f1")
    }
    scores["conll_f1"] = sum(scores[metric]["f1"] for metric in ("muc", "b_cubed", "ceaf_e")) / 3
    return scores

"""Coreference: choice of spans, loss and segments beside plain programs, padding, formats, raw text, GAP, a run."""

import itertools
import json
import random
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spanbert_jax.commands import predict
from spanbert_jax.configs.tasks import coref
from spanbert_jax.errors import InputError
from spanbert_jax.finetuning.predictor import write_predictions
from spanbert_jax.finetuning.task import Output, Row, collate
from spanbert_jax.labelled.coreference import read_documents, write_conll2012
from spanbert_jax.labelled.documents import Document
from spanbert_jax.labelled.gap import Gap
from spanbert_jax.model.encoder import NEVER
from spanbert_jax.model.layout import ONE_DEVICE
from spanbert_jax.model.spec import model_spec
from spanbert_jax.tasks import load
from spanbert_jax.tasks.coref import Coreference, clusters_of, pronoun_of, segments_of, without_repeats
from spanbert_jax.tasks.coref_model import attended, bucket, marginal_loss
from spanbert_jax.tasks.coref_spans import candidates, select_spans, span_clusters
from tests.finetuning.conftest import FILLERS, run_on
from tests.small import MODEL, TOKENIZER

HEAD = dict(max_segments=2, max_width=3, max_top_spans=40, max_antecedents=8, ffnn_width=32, feature_width=8)


def config_of(**changes):
    config = coref.get_config("small")
    config.update(dict(seq_len=12, log_every=1))
    config.data.vocab = "tiny"
    config.model.update(MODEL | dict(max_positions=64, dropout=0.0, attention_dropout=0.0))
    config.coref.update(HEAD | dict(dropout=0.0) | changes)
    return config


def task_of(**changes) -> Coreference:
    return Coreference(config_of(**changes), TOKENIZER, {"genres": ["bc"]})


def document_of(*sentences: str, clusters=(), id="d", genre="") -> Document:
    words = tuple(tuple(sentence.split(" ")) for sentence in sentences)
    return Document(id, 0, genre, words, tuple(("",) * len(sentence) for sentence in words), clusters)


def crosses(one, other) -> bool:
    return one[0] < other[0] <= one[1] < other[1] or other[0] < one[0] <= other[1] < one[1]


@pytest.mark.parametrize("seed", range(4))
def test_spans_are_kept_by_score_unless_they_cross_a_better_one(seed):
    draw = np.random.default_rng(seed)
    scores = draw.integers(0, 6, (20, 4)).astype(np.float32)  # with ties
    ends = np.arange(20)[:, None] + np.arange(4)
    scores = np.where((ends >= 20) | (draw.random((20, 4)) < 0.2), NEVER, scores)
    ranked = sorted((-scores[i, w], i, w) for i in range(20) for w in range(4) if scores[i, w] > NEVER / 2)
    kept: list[tuple[int, int]] = []
    for _, i, w in ranked:
        if len(kept) < 12 and not any(crosses((i, i + w), other) for other in kept):
            kept.append((i, i + w))
    found = [divmod(int(number), 4) for number in select_spans(jnp.array(scores), 12, 15)]
    assert [(i, i + w) for i, w in found if i < 20] == sorted(kept)
    assert [number for number in found if number[0] >= 20] == [(20, 0)] * (15 - len(kept))


def test_the_loss_is_the_probability_of_all_right_antecedents():
    draw = np.random.default_rng(0)
    scores = np.concatenate([np.zeros((1, 4, 1)), draw.normal(size=(1, 4, 2))], axis=2).astype(np.float32)
    antecedents = np.array([[[0, 0], [0, 0], [1, 0], [2, 0]]])
    for span, others in ((0, [0, 1]), (1, [1])):  # what comes before the first spans
        scores[0, span, [1 + other for other in others]] = NEVER
    clusters, expected = [1, 0, 1, 2], 0.0
    for span in range(4):
        right = [
            slot
            for slot in (1, 2)
            if scores[0, span, slot] > NEVER / 2 and clusters[antecedents[0, span, slot - 1]] == clusters[span] != 0
        ] or [0]
        weights = np.exp(scores[0, span].astype(np.float64))
        expected -= np.log(weights[right].sum() / weights.sum())
    outputs = {"starts": jnp.arange(4)[None], "antecedents": jnp.array(antecedents), "scores": jnp.array(scores)}
    np.testing.assert_allclose(marginal_loss(outputs, jnp.array([clusters])), expected, rtol=1e-6)
    outputs["starts"] = jnp.array([[0, 1, 2, -1]])  # the last slot is empty
    assert float(marginal_loss(outputs, jnp.array([clusters]))) < expected


def test_candidates_are_whole_words_of_one_sentence():
    words = jnp.array([[[0, 1, 1, 2, 3, 0], [0, 4, 0, 0, 0, 0]]])
    sentences = jnp.array([[[0, 1, 1, 1, 2, 0], [0, 2, 0, 0, 0, 0]]])
    found = candidates(words, sentences, 3)
    assert [(i, i + w) for _, i, w in np.argwhere(found)] == [(1, 2), (1, 3), (3, 3), (4, 4), (7, 7)]
    mentions = (
        jnp.zeros((1, 2, 6, 3), jnp.int32).at[0, 0, 0].set(jnp.array([1, 3, 5])).at[0, 1, 0].set(jnp.array([1, 1, 5]))
    )
    spans = span_clusters(jnp.array([[1, 1, 7, -1]]), jnp.array([[2, 3, 7, -1]]), mentions)
    assert spans.tolist() == [[0, 5, 5, 0]]


def test_distances_and_attention():
    assert [int(bucket(d)) for d in (0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 31, 32, 63, 64, 900)] == [
        *(0, 1, 2, 3, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9)
    ]
    states, logits = jnp.arange(8.0).reshape(1, 4, 2), jnp.array([[0.0, 1.0, 2.0, 9.0]])
    weights = np.exp([1.0, 2.0]) / np.exp([1.0, 2.0]).sum()
    found = attended(states, logits, jnp.array([[1]]), jnp.array([[2]]))
    np.testing.assert_allclose(found[0, 0], weights @ np.asarray(states[0, 1:3]), rtol=1e-6)


def test_segments_end_with_sentences_where_these_fit():
    assert list(segments_of([1] * 6, [1, 1, 2, 2, 3, 3], 5)) == [(0, 4), (4, 6)]
    assert list(segments_of([1] * 7, [1] * 7, 3)) == [(0, 3), (3, 6), (6, 7)]
    assert list(segments_of([2, 0, 1, 0], [1, 1, 2, 2], 2)) == [(0, 2), (2, 4)]
    assert list(segments_of([0, 0], [1, 1], 2)) == []
    document = document_of("the king of it was", "he was in the house \u200b her", clusters=(((0, 1), (5, 5)),))
    [row] = task_of().features([document], training=True)
    tokens = [[TOKENIZER.tokens[token] for token in segment] for segment in row.arrays["tokens"]]
    assert [text.count("[CLS]") for text in tokens] == [1, 1] and row.more == 2
    slots = [slot for slot in row.arrays["mentions"].reshape(-1, 3).tolist() if slot[2]]
    assert slots == [[1, 2, 1], [1, 1, 1]]
    assert row.arrays["words"][1].tolist() == [0, 6, 7, 8, 9, 10, 12, 0, 0, 0, 0, 0]


def test_training_takes_a_random_part_of_long_documents():
    [row] = task_of().features([document_of(*["the king of it was in the house"] * 5)], training=True)
    assert len(row.arrays["tokens"]) == 5 and row.more == 2
    firsts = set()
    for seed in range(20):
        part = task_of().varied(row, np.random.default_rng(seed))
        assert part.arrays["tokens"].shape == (2, 12) and part.arrays["genre"].shape == ()
        firsts.add(int(part.arrays["words"][0, 1]))
    assert firsts == {1, 9, 17, 25}


@pytest.mark.slow
def test_loss_and_predictions_do_not_depend_on_padding_and_division():
    task = task_of(top_spans_ratio=0.5)
    documents = [
        document_of("the king of it", "he was in the house", clusters=(((0, 1), (4, 4)),), genre="bc"),
        document_of("her land", clusters=()),
    ]
    rows = task.features(documents, training=False)
    model = task.model(model_spec(task.config, TOKENIZER.vocab_size, "cpu"), ONE_DEVICE)
    params = model.init(jax.random.key(0), collate(task, rows, 2), None)["params"]

    @jax.jit
    def of(batch, counts):
        outputs = model.apply({"params": params}, batch, None)
        return task.loss(outputs, batch, counts)[0], task.predictions(outputs, batch)

    batch = collate(task, rows, 2)
    counts = task.counts(batch)
    assert float(counts["coref"]) == 2
    whole, predicted = of(batch, counts)
    padded, longer = of(collate(task, [*rows, None], 3), counts)
    np.testing.assert_allclose([padded, sum(of(collate(task, [row], 2), counts)[0] for row in rows)], [whole] * 2, 1e-5)
    for row in range(2):
        kept = [int(np.sum(arrays["starts"][row] >= 0)) for arrays in (predicted, longer)]
        assert kept[0] == kept[1] == (4, 1)[row]  # half of the tokens of text
        for name in ("starts", "ends", "antecedent"):
            values = [sorted(np.asarray(arrays[name][row]).tolist())[-kept[0] :] for arrays in (predicted, longer)]
            assert values[0] == values[1]


def test_chains_of_links_are_clusters():
    spans = [(0, 1), (3, 3), (4, 6), (5, 5), (9, 9)]
    assert clusters_of(spans, [-1, -1, 0, 1, 2]) == (((0, 1), (4, 6), (9, 9)), ((3, 3), (5, 5)))
    assert clusters_of(spans, [-1] * 5) == ()
    task, document = task_of(), document_of("the king of it he")
    [row] = task.features([document], training=False)
    arrays = {"starts": np.array([1, 5, -1]), "ends": np.array([2, 5, -1]), "antecedent": np.array([-1, 0, -1])}
    assert task.decode([document], [Output(row, arrays)]) == [{"clusters": [[[0, 1], [4, 4]]]}]


def test_documents_are_written_and_scored(tmp_path):
    documents = [document_of("the king of it", "he was in", clusters=(((0, 1), (4, 4)),)), document_of("of", id="e")]
    task, right = task_of(), [{"clusters": [[[0, 1], [4, 4]]]}, {"clusters": []}]
    scores = task.score(documents, right)
    assert {scores[name] for name in ("conll_f1", "muc/f1", "b_cubed/f1", "ceaf_e/f1", "ceaf_m/f1")} == {1.0}
    assert task.score(documents, [{"clusters": []}] * 2)["conll_f1"] == 0
    write_predictions(tmp_path / "a.conll", task, documents, right)
    assert [document.clusters for document in read_documents(str(tmp_path / "a.conll"))] == [documents[0].clusters, ()]
    write_predictions(tmp_path / "a.jsonl", task, documents, right)
    first = json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0])
    assert first["clusters"] == [[{"text": "the king", "first": 0, "last": 1}, {"text": "he", "first": 4, "last": 4}]]


def test_a_mention_is_in_one_cluster_from_the_start():
    twice = document_of("a b c d", clusters=(((0, 0), (1, 1)), ((1, 1), (2, 2)), ((1, 1),)))
    assert without_repeats([twice])[0][0].clusters == (((0, 0), (1, 1)), ((2, 2),))
    assert without_repeats([twice])[1] == 2


def test_a_pronoun_of_gap_stands_for_the_name_in_its_cluster(tmp_path):
    text = "Ann Lee met Bea. She left."
    gap = Gap("test-1", text, ("She", 17), ("Ann Lee", 0), ("Bea", 12), True, False)
    document = pronoun_of(gap, "en")
    words = list(itertools.chain.from_iterable(document.words))
    task, row = task_of(), Row(0, {"words": np.arange(len(words) + 1)})
    arrays = {"starts": np.array([1, words.index("She") + 1]), "ends": np.array([2, words.index("She") + 1])}
    [given] = task.decode([document], [Output(row, arrays | {"antecedent": np.array([-1, 0])})])
    assert (given["a"], given["b"]) == (True, False)
    scores = task.score([document], [given])
    assert scores["overall/f1"] == scores["feminine/f1"] == 100 and scores["missing"] == 0
    write_predictions(tmp_path / "a.tsv", task, [document], [given])
    assert (tmp_path / "a.tsv").read_text() == "test-1\tTRUE\tFALSE\n"
    config = config_of()
    config.task.train = "gap.tsv"
    assert "GAP has no clusters to train on" in Coreference.problems(config)[0]
    with pytest.raises(InputError, match="no document has a cluster"):
        Coreference.labels_of(config_of(), [document])


def small_documents(number: int, seed: int) -> list[Document]:
    """Documents in which "king" and "the house" are mentioned several times."""
    draw, documents = random.Random(seed), []
    for i in range(number):
        sentences, places = [], {"king": [], "house": []}
        for _ in range(draw.randint(2, 4)):
            words = draw.choices([word for word in FILLERS if word not in ("the", "he")], k=6)
            words[draw.randrange(6)] = draw.choice(("king", "house"))
            before = sum(map(len, sentences))
            for name, mentions in places.items():
                mentions += [(before + j, before + j) for j, word in enumerate(words) if word == name]
            sentences.append(words)
        clusters = tuple(sorted(tuple(mentions) for mentions in places.values() if len(mentions) > 1))
        documents.append(document_of(*map(" ".join, sentences), clusters=clusters, id=f"bc/{i}"))
    return documents


def test_a_run_learns_coreference_and_reads_raw_text_and_gap(tmp_path, monkeypatch, capsys):
    for seed, (name, number) in enumerate((("train", 120), ("valid", 20))):
        documents = small_documents(number, seed)
        write_conll2012(tmp_path / f"{name}.conll", documents, [document.clusters for document in documents])
    config = config_of(language="none")
    config.update(dict(seq_len=16, batch_size=4))
    config.optimizer.learning_rate = 5e-3
    config.optimizer.groups = ("coref/.* rate=1 decay=0",)
    config.task.update(
        dict(train=str(tmp_path / "train.conll"), valid=str(tmp_path / "valid.conll"), epochs=5, sizes=1)
    )
    assert run_on(config, tmp_path / "run") == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["metric"] == "conll_f1" and results["valid"]["conll_f1"] > 0.7
    predictor, examples = load(tmp_path / "run"), read_documents(str(tmp_path / "valid.conll"))
    assert predictor.score(examples, predictor.predictions(examples)) == results["valid"]
    [given] = predictor.predict(["her king was in it\nof that king"])
    assert given == {"clusters": [[[1, 1], [7, 7]]]}
    assert predictor.predict([[["her", "king", "was", "in", "it"], ["of", "that", "king"]]]) == [given]

    gap = tmp_path / "gap.tsv"  # as gap-development.tsv is: a header, and a URL in the last column
    columns = "ID Text Pronoun Pronoun-offset A A-offset A-coref B B-offset B-coref URL".split()  # noqa: SIM905
    text = "It was in the house of the king. To her king, the house was it."
    wanted = ("her", 36, "king", 27, "TRUE", "house", 14, "FALSE")
    rows = [("development-1", text, *wanted, "http://en.wikipedia.org/wiki/A"), ("development-2", text, *wanted, "")]
    gap.write_text("\n".join("\t".join(map(str, row)) for row in (columns, *rows)) + "\n")
    flags = [f"--workdir={tmp_path / 'run'}", f"--input={gap}", f"--output={tmp_path / 'answers.tsv'}", "--score"]
    monkeypatch.setattr(sys, "argv", ["predict.py", *flags])
    assert predict.main() == 0
    assert "overall/f1" in capsys.readouterr().out
    answers = [line.split("\t") for line in (tmp_path / "answers.tsv").read_text().splitlines()]
    assert [row[0] for row in answers] == ["development-1", "development-2"]
    assert all(cell in ("TRUE", "FALSE") for row in answers for cell in row[1:])

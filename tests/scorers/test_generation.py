"""Scores of texts: the libraries' own, called by hand."""

import pytest

from spanbert_jax.errors import InputError
from spanbert_jax.scorers import generation

sacrebleu = pytest.importorskip("sacrebleu", reason="extra generation")
rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer", reason="extra generation")

REFERENCES = [("Der Hund läuft schnell nach Hause.", "Ein Hund rennt heim."), ("The cats were sleeping on the mats.",)]
TEXTS = ["Ein Hund läuft schnell heim.", "the cat was sleeping on a mat."]


def test_scores_are_those_of_the_libraries():
    found = generation.score(REFERENCES, TEXTS, generation.METRICS, "13a")
    assert list(found) == list(generation.METRICS)
    streams = [[REFERENCES[0][0], REFERENCES[1][0]], [REFERENCES[0][1], None]]
    assert found["bleu"] == sacrebleu.metrics.BLEU().corpus_score(TEXTS, streams).score > 5
    assert found["chrf"] == sacrebleu.metrics.CHRF().corpus_score(TEXTS, streams).score > 30
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    for name in generation.ROUGE:
        best = [
            max(scorer.score(target, text)[name].fmeasure for target in targets)
            for targets, text in zip(REFERENCES, TEXTS)
        ]
        assert abs(found[name] - 100 * sum(best) / 2) < 1e-9
    assert generation.score(REFERENCES[1:], ["The cats were sleeping on the mats."], ["rouge2", "bleu"], "13a") == {
        "rouge2": 100,
        "bleu": pytest.approx(100),
    }


def test_signatures_have_what_is_to_be_reported():
    found = generation.signatures(REFERENCES, ["bleu", "chrf", "rougeL"], "intl")
    version = sacrebleu.__version__
    assert found["bleu"] == f"nrefs:var|case:mixed|eff:no|tok:intl|smooth:exp|version:{version}"
    assert found["chrf"].startswith("nrefs:var|case:mixed|eff:yes|nc:6|nw:0") and found["chrf"].endswith(version)
    assert found["rougeL"].startswith("nrefs:var|best:max|stem:porter") and "rouge-score:0" in found["rougeL"]
    assert generation.signatures(REFERENCES[1:], ["rouge1"], "13a")["rouge1"].startswith("nrefs:1|")


def test_what_cannot_be_computed_is_a_problem(monkeypatch):
    assert generation.problems(generation.METRICS) == []
    assert "meteor are none of bleu" in generation.problems(["bleu", "meteor"])[0]
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu.metrics", None)
    assert "spanbert_jax[generation]" in generation.problems(["chrf"])[0]
    with pytest.raises(InputError, match="need sacrebleu"):
        generation.score(REFERENCES, TEXTS, ["bleu"], "13a")

"""Span cloze: what is hidden, that it is scored as spans are filled, and metrics during and after training."""

import json
import sys

import jax
import numpy as np
import pytest

from spanbert_jax.commands import evaluate
from spanbert_jax.data.batches import Feed
from spanbert_jax.data.mixture import Mixture
from spanbert_jax.errors import InputError
from spanbert_jax.model.layout import ONE_DEVICE
from spanbert_jax.objectives import MLM, SBO
from spanbert_jax.tasks.fill_spans import SpanFiller
from spanbert_jax.tasks.marks import hide_tokens
from spanbert_jax.training.metrics import read_metrics
from spanbert_jax.training.pretrain import pretrain
from spanbert_jax.zeroshot.cloze import Cloze, held_out_rows
from spanbert_jax.zeroshot.suite import slot_scores
from tests.small import TOKENIZER, small_config

GOOD, BAD = "The people of the United States are free.", "The people of the United States is free."


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    """A run on eight devices, with both suites."""
    folder = tmp_path_factory.mktemp("cloze")
    (folder / "grammar.jsonl").write_text(json.dumps({"good": GOOD, "bad": BAD}) + "\n")
    suites = ("cloze", f"pairs={folder / 'grammar.jsonl'}", f"pairs_by_word={folder / 'grammar.jsonl'}")
    config = small_config(data__store=str(store.folder), eval__suites=suites, eval__every=20, eval__max_rows=0)
    assert pretrain(config, folder / "run") == 0
    return folder / "run"


@pytest.fixture(scope="module")
def rows(store):
    feed = Feed(small_config(), Mixture([store]), TOKENIZER)
    return held_out_rows(list(feed.valid.values()), 0)


def test_spans_are_whole_words_within_blocks_with_words_around(rows):
    masking = small_config().masking
    suite = Cloze("cloze", rows, TOKENIZER, masking, (MLM, SBO))
    assert {span.words for span in suite.spans} == {1, 2, 3, 4, 5}
    starts = TOKENIZER.starts_word
    for span in suite.spans:
        tokens, segments = rows["tokens"][span.row], rows["segments"][span.row]
        inside = tokens[span.first : span.last + 1]
        assert len(inside) <= masking.max_targets and starts[inside].sum() == span.words
        assert starts[inside[0]] and starts[tokens[span.last + 1]]
        assert len(set(segments[span.first - 1 : span.last + 2])) == 1
        assert tokens[span.first - 1] != TOKENIZER.cls_id and tokens[span.last + 1] != TOKENIZER.sep_id
    hidden = sum(int((batch["tokens"] == TOKENIZER.mask_id).sum()) for batch in suite.batches(16))
    assert hidden == sum(span.last - span.first + 1 for span in suite.spans)
    again = Cloze("cloze", rows, TOKENIZER, masking, (MLM,))
    assert again.spans == suite.spans


def test_scores_are_those_of_filling_the_spans(run, rows):
    """Of every block of one row, by MLM, SBO and both."""
    filler = SpanFiller.restored(run, None)
    suite = Cloze("cloze", rows, TOKENIZER, filler.config.masking, filler.heads)
    score = jax.jit(lambda batch: slot_scores(filler.spec, ONE_DEVICE, suite.heads, filler.params, batch))
    scores = suite.span_scores([jax.device_get(score(batch)) for batch in suite.batches(16)])
    for number in range(0, len(suite.spans), 7):
        span = suite.spans[number]
        block = np.flatnonzero(rows["segments"][span.row] == rows["segments"][span.row, span.first])[1:-1]
        hidden = (block >= span.first) & (block <= span.last)
        text = hide_tokens(rows["tokens"][span.row, block].tolist(), hidden.tolist(), TOKENIZER)
        (filled,) = next(iter(filler.fill([text], 1, 1))).spans
        for head, guess in (("mlm", filled.mlm), ("sbo", filled.sbo), ("both", filled.both)):
            log_likelihood, exact = (values[number] for values in scores[head])
            np.testing.assert_allclose(log_likelihood, np.log(guess.true_probabilities).sum(), rtol=1e-4)
            assert exact == (guess.ids[:, 0] == filled.span.true).all()


def test_metrics_during_training_are_those_after_it(run, tmp_path, monkeypatch):
    """During training on eight devices, after it on one."""
    (line,) = [line for line in read_metrics(run) if "eval/cloze_mlm_exact" in line]
    with np.load(run / "examples.npz") as examples:
        for name, values in examples.items():
            assert values.mean() == pytest.approx(line[f"eval/{name}"], rel=1e-5)
    file = run.parent / "grammar.jsonl"
    flags = [f"--suites=cloze,pairs={file},pairs_by_word={file}", "--batch_size=5", f"--json={tmp_path / 'out.json'}"]
    monkeypatch.setattr(sys, "argv", ["evaluate", f"--workdir={run}", *flags])
    assert evaluate.main() == 0
    after = json.loads((tmp_path / "out.json").read_text())
    assert list(after) == ["cloze", "grammar", "grammar_by_word"]
    for metrics in after.values():
        for name, value in metrics.items():
            assert line[f"eval/{name}"] == pytest.approx(value, rel=1e-5)
    assert after["cloze"]["cloze_mlm_log_likelihood"] < 0 and after["grammar"]["grammar_accuracy"] in (0, 1)


def test_texts_of_a_file_serve_models_that_are_no_runs(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "texts.txt").write_text(f"{GOOD}\n\n{BAD}\nShort.\n")
    monkeypatch.setattr(sys, "argv", ["evaluate", f"--workdir={run}", f"--suites=cloze={tmp_path / 'texts.txt'}"])
    assert evaluate.main() == 0
    assert "both_exact" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*sys.argv, f"--json={tmp_path / 'no' / 'folder.json'}"])
    with pytest.raises(InputError, match="no"):  # before the work
        evaluate.main()
    monkeypatch.setattr(sys, "argv", sys.argv[:-1])
    (tmp_path / "texts.txt").write_text("Short.\n")
    with pytest.raises(InputError, match="no block of the text has words enough"):
        evaluate.main()


def test_wrong_suites_are_refused_before_the_run(store, tmp_path):
    config = small_config(data__store=str(store.folder), eval__suites=("cloze", "poem", "pairs=absent"))
    with pytest.raises(InputError, match="(?s)there is no kind 'poem'.*there is no file absent"):
        pretrain(config, tmp_path / "run")
    (tmp_path / "pairs.jsonl").write_text('{"good": "x"}\n')
    with pytest.raises(InputError, match="eval.suites are evaluated every eval.every steps"):
        pretrain(small_config(data__store=str(store.folder), eval__suites=("cloze",), eval__every=0), tmp_path / "run")
    config.eval.suites = (f"pairs={tmp_path / 'pairs.jsonl'}",)
    with pytest.raises(InputError, match="pairs.jsonl, line 1: needs the texts"):
        pretrain(config, tmp_path / "run")
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").glob("config.json"))

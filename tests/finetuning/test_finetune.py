"""Runs of fine-tuning: learning, exact resuming, meshes, the best checkpoint, several seeds, and refusals."""

import json
import signal
import sys

import jax
import numpy as np
import pytest

from spanbert_jax import commands
from spanbert_jax.errors import InputError
from spanbert_jax.experiments.curve import read_curves
from spanbert_jax.finetuning.evaluation import BEST
from spanbert_jax.finetuning.feed import TaskFeed
from spanbert_jax.finetuning.finetune import prepare, task_program
from spanbert_jax.finetuning.repeated import finetune_seeds
from spanbert_jax.finetuning.start import start_of, started
from spanbert_jax.tasks import TASKS, load
from spanbert_jax.tasks.fill_spans import SpanFiller
from spanbert_jax.training import sharding
from spanbert_jax.training.checkpoint import Checkpoints
from spanbert_jax.training.metrics import read_metrics
from spanbert_jax.training.pretrain import pretrain
from tests.finetuning.conftest import run_on, task_config
from tests.small import TOKENIZER, small_config

CLOCK = ("tokens_per_second", "steps_per_second", "host_memory_bytes")


def lines_of(workdir) -> list[dict]:
    return [{key: value for key, value in line.items() if key not in CLOCK} for line in read_metrics(workdir)]


def results_of(workdir) -> dict:
    return json.loads((workdir / "results.json").read_text())


def test_a_run_learns_and_reports_the_best_checkpoint(finished):
    results = results_of(finished)
    evaluated = {line["step"]: line["eval/accuracy"] for line in lines_of(finished) if "eval/accuracy" in line}
    assert list(evaluated) == [6, 12, 18, 24, 30]
    assert results["valid"]["accuracy"] == max(evaluated.values()) == evaluated[results["step"]] > 0.8
    assert results["test"]["accuracy"] > 0.8
    assert min(step for step in evaluated if evaluated[step] == max(evaluated.values())) == results["step"]
    assert Checkpoints(finished / BEST, read_only=True).steps() == [results["step"]]


class Killed(BaseException):
    """The end of a process, as far as files are concerned."""


def test_a_run_killed_twice_resumes_to_the_same_bits(examples, finished, tmp_path, monkeypatch):
    training, save = TaskFeed.training, Checkpoints.save

    def saved(self, *arguments):
        save(self, *arguments)
        self.wait()  # the threads of a process that is killed would not go on

    def killed(self, start, part=None):
        for number, batch in enumerate(training(self, start, part), start):
            if number == (9 if start == 0 else 12):  # between checkpoints, and after an evaluation
                raise Killed
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(TaskFeed, "training", killed)
        patch.setattr(Checkpoints, "save", saved)
        for _ in range(2):
            with pytest.raises(Killed):
                run_on(task_config(examples), tmp_path / "run")
    assert run_on(task_config(examples), tmp_path / "run") == 0
    assert lines_of(tmp_path / "run") == lines_of(finished)
    assert results_of(tmp_path / "run") == results_of(finished)


def test_a_signal_saves_and_the_same_command_goes_on(examples, finished, tmp_path, monkeypatch):
    training = TaskFeed.training

    def interrupted(self, start, part=None):
        for number, batch in enumerate(training(self, start, part), start):
            if number == 8 and start == 0:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    monkeypatch.setattr(TaskFeed, "training", interrupted)
    assert run_on(task_config(examples), tmp_path / "run") == 143
    assert run_on(task_config(examples), tmp_path / "run") == 0
    assert lines_of(tmp_path / "run") == lines_of(finished)


@pytest.mark.parametrize(
    "changes", [dict(mesh__data=2, mesh__fsdp=2, mesh__tensor=2), dict(accumulation=2)], ids=["mesh", "accumulation"]
)
def test_loss_and_metric_do_not_depend_on_how_a_step_is_divided(examples, finished, tmp_path, changes):
    devices = 8 if "mesh__data" in changes else 1
    assert run_on(task_config(examples, **changes), tmp_path / "run", devices) == 0
    lines = lines_of(tmp_path / "run")
    assert len(lines) == len(lines_of(finished))
    for line, expected in zip(lines[:8], lines_of(finished)):  # differences of float sums grow from step to step
        assert line.keys() == expected.keys()
        for key in line.keys() - {"mfu"}:
            np.testing.assert_allclose(line[key], expected[key], rtol=2e-4, atol=2e-5)


def test_a_run_ends_early_without_improvement_and_stays_ended(examples, tmp_path, capsys):
    config = task_config(examples, task__epochs=9, task__patience=2, optimizer__learning_rate=1e-12)
    for said in ("since the last evaluations were no better", "done before: 18 steps of 54"):
        assert run_on(config, tmp_path / "run") == 0
        assert said in capsys.readouterr().out
    assert [line["step"] for line in lines_of(tmp_path / "run") if "eval/accuracy" in line] == [6, 12, 18]
    assert results_of(tmp_path / "run")["step"] == 6


def test_several_seeds_are_summarised(examples, tmp_path):
    config = task_config(examples, task__epochs=1, task__test="")
    assert finetune_seeds(config, tmp_path / "runs", TASKS["classification"], (), 2) == 0
    summary, single = results_of(tmp_path / "runs"), [results_of(tmp_path / "runs" / f"seed_{seed}") for seed in (0, 1)]
    values = [result["valid"]["accuracy"] for result in single]
    assert summary["valid"]["accuracy"] == {"mean": np.mean(values), "std": np.std(values, ddof=1), "values": values}
    first, second = (lines_of(tmp_path / "runs" / f"seed_{seed}")[0]["loss"] for seed in (0, 1))
    assert first != second


def test_a_model_starts_from_the_encoder_of_another_run_but_for_new_layers(examples, finished, tmp_path, capsys):
    config = task_config(examples, init__path=str(finished), task__epochs=1, optimizer__learning_rate=1e-12)
    config.task.reinitialised_layers = 1
    assert run_on(config, tmp_path / "run") == 0
    assert f"starting from {finished}" in capsys.readouterr().out
    before, after = (
        Checkpoints(workdir / "checkpoints", read_only=True).read_params(step)["encoder"]
        for workdir, step in ((finished, 30), (tmp_path / "run", 6))
    )
    query = [encoder["layers"]["attention"]["query"]["kernel"] for encoder in (before, after)]
    np.testing.assert_allclose(query[0][0], query[1][0], atol=1e-8)
    assert np.abs(query[0][1] - query[1][1]).max() > 1e-3
    assert run_on(config, tmp_path / "run") == 0  # the source of a run with a checkpoint is not needed
    config.init.path = str(tmp_path / "gone")
    with pytest.raises(InputError, match="gone"):
        run_on(config, tmp_path / "run")


def test_the_pooler_of_next_sentence_prediction_is_taken_over(examples, tmp_path):
    config = task_config(examples, classification__pooling="cls", task__valid="", task__test="")
    prepared = prepare(start_of(config, tmp_path), TASKS["classification"])
    program = task_program(prepared, sharding.make_mesh(config.mesh, jax.devices()[:1]), TOKENIZER.vocab_size)
    kernel, bias = np.full((32, 32), 0.5, np.float32), np.full(32, 0.25, np.float32)
    params = {"nsp/pooler/kernel": kernel, "nsp/pooler/bias": bias, "nsp/output/bias": np.ones(2, np.float32)}
    same = {f"classification/{ours}": theirs for ours, theirs in prepared.task.starts_from.items()}
    state = started(program.init(None), params, 0, same)
    head = state.params["classification"]
    np.testing.assert_array_equal(head["pooler"]["kernel"], kernel)
    np.testing.assert_array_equal(head["pooler"]["bias"], bias)
    np.testing.assert_array_equal(head["output"]["bias"], 0)


def test_the_sizes_of_the_model_are_those_of_the_source(examples, finished, tmp_path):
    config = task_config(examples, init__path=str(finished), task__epochs=1, model__width=64, model__layers=5)
    assert run_on(config, tmp_path / "run") == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model"]["width"] == 32


@pytest.mark.parametrize(
    "changes, said",
    [
        (dict(task__train=""), "task.train names no examples"),
        (dict(seq_len=200), "longer than the position table"),
        (dict(task__reinitialised_layers=3), "more than the 2 layers"),
        (dict(task__valid="", task__patience=1), "task.patience needs task.valid"),
        (dict(classification__format="xml"), "classification.format 'xml'"),
        (dict(task__valid="absent.tsv"), "absent.tsv"),
        (dict(classification__label="topic"), "topic"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_written(examples, tmp_path, changes, said):
    with pytest.raises(InputError, match=said):
        run_on(task_config(examples, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_of_other_examples_is_not_continued(examples, tmp_path):
    train = tmp_path / "train.tsv"
    train.write_text((examples / "train.tsv").read_text())
    config = task_config(examples, task__train=str(train), task__epochs=1)
    assert run_on(config, tmp_path / "run") == 0
    text = train.read_text()
    train.write_text(text.replace("king", "house", 1))
    with pytest.raises(InputError, match=r"task.train: 'text \w+' in the run, 'text \w+' now"):
        run_on(config, tmp_path / "run")


def test_examples_that_are_only_evaluated_do_not_change_training(examples, finished, tmp_path):
    longer = tmp_path / "valid.tsv"
    longer.write_text((examples / "valid.tsv").read_text() + "king " * 60 + "\tgood\n")
    config = task_config(examples, task__valid=str(longer), task__test="")
    assert run_on(config, tmp_path / "run") == 0
    losses, expected = (
        [line["loss"] for line in lines_of(run) if "loss" in line] for run in (tmp_path / "run", finished)
    )
    assert losses == expected


def test_a_fine_tuned_run_is_refused_where_a_pretrained_one_is_needed(examples, finished, tmp_path):
    with pytest.raises(InputError, match="has no MLM head"):
        SpanFiller.restored(finished, None)
    with pytest.raises(InputError, match=r"scripts/finetune.py"):
        pretrain(task_config(examples).lock(), tmp_path / "run")
    with pytest.raises(InputError, match="fine-tuning"):
        pretrain(small_config(data__store="none").lock(), finished)


def test_python_predicts_as_the_evaluation_does(examples, finished):
    predictor = load(finished)
    read, _ = TASKS["classification"].read(predictor.config, str(examples / "valid.tsv"))
    for batch_size in (32, 4):
        predictions = predictor.predictions(read, batch_size)
        assert predictor.score(read, predictions) == results_of(finished)["valid"]
    [given] = predictor.predict(["the king was in the house of it"[:24]])
    assert given["label"] == "good" and abs(sum(given["scores"].values()) - 1) < 1e-6


def test_predict_refuses_what_it_cannot_do_in_one_line(examples, finished, tmp_path, monkeypatch, capsys):
    flags = [f"--workdir={finished}", f"--input={examples / 'valid.tsv'}", f"--output={tmp_path / 'out.jsonl'}"]
    for more, said in (("--batch_size=0", "--batch_size must be at least 1, not 0"), ("--input=absent", "absent")):
        monkeypatch.setattr(sys, "argv", ["spanbert", "predict", *flags, more])
        with pytest.raises(SystemExit) as end:
            commands.main()
        error = capsys.readouterr().err
        assert end.value.code == 2 and error.startswith("spanbert predict: ") and said in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out.jsonl").exists()


def test_the_losses_of_a_run_are_plotted(finished, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="plots")
    curves = read_curves(finished, "run")
    assert list(curves.training) == ["classification"] and len(curves.training["classification"][0]) == 30
    monkeypatch.setattr(sys, "argv", ["spanbert", "plot_metrics", str(finished), f"--output={tmp_path / 'loss.svg'}"])
    with pytest.raises(SystemExit) as end:
        commands.main()
    assert end.value.code == 0 and "classification" in (tmp_path / "loss.svg").read_text()

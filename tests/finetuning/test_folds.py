"""Cross-validation: what the folds are, and runs on each of them."""

import collections
import json
import signal
import sys

import numpy as np
import pytest

from spanbert_jax import commands
from spanbert_jax.errors import InputError
from spanbert_jax.finetuning.feed import TaskFeed
from spanbert_jax.finetuning.finetune import prepare
from spanbert_jax.finetuning.folds import folds_of, without_fold
from spanbert_jax.finetuning.repeated import finetune_folds
from spanbert_jax.finetuning.start import start_of
from spanbert_jax.labelled.questions import Question
from spanbert_jax.labelled.tagged import Tagged
from spanbert_jax.tasks import TASKS
from tests.finetuning.conftest import task_config

CLASSIFICATION = TASKS["classification"]


def results_of(workdir):
    return json.loads((workdir / "results.json").read_text())


def test_every_example_is_in_one_fold_and_labels_have_equal_shares():
    belonging = [(number, "rare" if number % 10 == 0 else "common") for number in range(97)]
    folds = folds_of(belonging, 5)
    counts = collections.Counter((fold, label) for fold, (_, label) in zip(folds, belonging))
    assert {counts[fold, "rare"] for fold in range(1, 6)} == {2}
    assert {counts[fold, "common"] for fold in range(1, 6)} <= {17, 18}
    examples = list(range(97))
    parts = [without_fold(examples, belonging, 5, fold) for fold in range(1, 6)]
    assert sorted(example for _, held_out in parts for example in held_out) == examples
    assert all(sorted(training + held_out) == examples for training, held_out in parts)
    assert folds[:12] == [2, 2, 5, 3, 1, 2, 1, 3, 1, 3, 5, 1]  # for ever


def test_groups_stay_together_and_must_be_enough():
    questions = [Question(str(n), f"title {n // 3}", f"text {n}", "?", ()) for n in range(30)]
    folds = folds_of(TASKS["qa"].belonging(questions), 4)
    assert all(len(set(folds[first : first + 3])) == 1 for first in range(0, 30, 3)) and set(folds) == {1, 2, 3, 4}
    marked = [Tagged(("a",), (), document=n // 5) for n in range(10)]
    assert TASKS["tagging"].belonging(marked)[4:6] == [(0, ""), (1, "")]
    assert len(dict(TASKS["tagging"].belonging(marked[:5]))) == 5  # no documents are marked
    with pytest.raises(InputError, match="task.folds 3: task.train has 2 examples or groups of them"):
        folds_of(TASKS["tagging"].belonging(marked), 3)


def folds_config(examples, **changes):
    return task_config(examples, **dict(task__epochs=1, task__valid="", task__test="") | changes)


def test_the_folds_of_another_seed_are_the_same(examples, tmp_path):
    held_out = [
        [
            [row.id for row in prepare(start_of(config, tmp_path), CLASSIFICATION).splits["valid"].examples]
            for config in (folds_config(examples, seed=seed, task__folds=3, task__fold=fold) for fold in (1, 2, 3))
        ]
        for seed in (0, 7)
    ]
    assert held_out[0] == held_out[1]
    assert sorted(map(len, held_out[0])) == [30, 30, 30] and len({id for ids in held_out[0] for id in ids}) == 90


def test_a_run_for_each_fold_is_summarised_and_resumed(examples, tmp_path, monkeypatch, capsys):
    config, training = folds_config(examples, task__sizes=1), TaskFeed.training

    def interrupted(self, start, part=None):
        for number, batch in enumerate(training(self, start, part), start):
            if number == 2 and (tmp_path / "cv" / "fold_1" / "results.json").exists():
                signal.raise_signal(signal.SIGTERM)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(TaskFeed, "training", interrupted)
        assert finetune_folds(config, tmp_path / "cv", CLASSIFICATION, (), 2) == 143
    assert finetune_folds(config, tmp_path / "cv", CLASSIFICATION, (), 2) == 0
    printed = capsys.readouterr().out
    assert "fold 2 of 2: 45 examples to train on, 45 to validate on" in printed and "2 folds, valid: " in printed
    values = [results_of(tmp_path / "cv" / f"fold_{fold}")["valid"]["accuracy"] for fold in (1, 2)]
    summary = results_of(tmp_path / "cv")
    assert summary["folds"] == 2 and summary["valid"]["accuracy"] == {
        "mean": np.mean(values),
        "std": np.std(values, ddof=1),
        "values": values,
    }


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--folds=3", "--config.task.valid=valid.tsv"], "task.folds takes the validation examples from task.train"),
        (["--folds=1"], "--folds must be at least 2"),
        (["--folds=2", "--seeds=2"], "--folds must be at least 2, and without --seeds"),
        (["--config.task.folds=2", "--config.task.fold=3"], "task.fold 3 is more than task.folds 2"),
        (["--config.task.folds=1"], "task.folds must be 0, or at least 2"),
    ],
)
def test_bad_folds_are_refused_in_one_line(flags, said, examples, tmp_path, monkeypatch, capsys):
    fixed = ["--config=configs/tasks/classification.py", f"--config.task.train={examples / 'train.tsv'}"]
    monkeypatch.setattr(sys, "argv", ["spanbert", "finetune", *fixed, f"--workdir={tmp_path / 'run'}", *flags])
    with pytest.raises(SystemExit) as end:
        commands.main()
    error = capsys.readouterr().err
    assert end.value.code == 2 and said in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()

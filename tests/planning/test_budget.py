"""Budgets: how they are read, what they pay for, and that a run keeps the length that its budget gave it."""

import sys

import pytest

from spanbert_jax.commands import pretrain
from spanbert_jax.errors import InputError
from spanbert_jax.planning.budget import parse, planned_seconds, steps_of
from spanbert_jax.training.metrics import read_metrics
from spanbert_jax.training.workdir import read_config
from tests.small import small_config

CONFIG = small_config()  # 16 rows of 64 positions


@pytest.mark.parametrize(
    "text, steps",
    [
        ("10240 tokens", 10),
        ("1e6tokens", 976),
        ("1 epoch", 63),
        ("0.5 epochs", 32),
        ("2h on h100:8", 14_400),
        ("2 hours on h100:8", 14_400),
        ("16 device-hours on h100:8", 14_400),
    ],
)
def test_what_a_budget_pays_for(text, steps):
    assert steps_of(parse(text), CONFIG, lambda: 1000, lambda machine: (0.5, 8)).steps == steps


@pytest.mark.parametrize(
    "text, said",
    [
        ("a lot", 'give "3e9 tokens"'),
        ("0 tokens", "give"),
        ("24h", "needs a machine"),
        ("3 tokens on h100:1", "leave out its name"),
        ("5 tokens", "pays for no step"),
    ],
)
def test_what_is_no_budget(text, said):
    with pytest.raises(InputError, match=f"--budget.*{said}"):
        steps_of(parse(text), CONFIG, lambda: 1, lambda machine: (1.0, 1))


def test_an_unknown_machine_is_refused():
    with pytest.raises(InputError, match="--budget on h900:1: .*h900"):
        planned_seconds("spanbert:tiny", [], "h900:1")


@pytest.mark.slow
def test_a_machine_that_is_planned():
    seconds, devices = planned_seconds("spanbert:tiny", ["batch_size=8"], "cpu:2")
    assert 0 < seconds < 10 and devices == 2


FILE = """
from tests.small import small_config

def get_config():
    return small_config(log_every=1, eval__every=0, checkpoint__every=2, data__store={store!r})
"""


def test_a_run_keeps_the_length_of_its_budget(store, tmp_path, monkeypatch, capsys):
    (tmp_path / "small.py").write_text(FILE.format(store=str(store.folder)))

    def run(budget):
        monkeypatch.setattr(
            sys, "argv", ["pretrain", f"--config={tmp_path / 'small.py'}", f"--workdir={tmp_path / 'run'}", budget]
        )
        return pretrain.main()

    assert run("--budget=4096 tokens") == 0
    assert read_config(tmp_path / "run").total_steps == 4
    monkeypatch.setattr("spanbert_jax.planning.budget.steps_of", None)  # it is not found again
    assert run("--budget=4096 tokens") == 0
    assert "4 steps (1,024 positions a step)" in capsys.readouterr().out
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == [1, 2, 3, 4]

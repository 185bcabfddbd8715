"""Exports of a small run from the command line."""

import sys

import pytest

from spanbert_jax.commands import export_checkpoint
from spanbert_jax.training.pretrain import pretrain
from tests.small import small_config


@pytest.fixture(scope="module")
def workdir(store, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("export") / "run"
    assert pretrain(small_config(total_steps=3, data__store=str(store.folder), eval__every=0).lock(), workdir) == 0
    return workdir


@pytest.mark.parametrize("format, left_out", [("huggingface", ""), ("original", ""), ("stablehlo", "the heads sbo")])
def test_an_export_reports_what_it_wrote_and_left_out(workdir, tmp_path, monkeypatch, capsys, format, left_out):
    flags = [f"--workdir={workdir}", f"--output={tmp_path / 'out'}", f"--format={format}"]
    monkeypatch.setattr(sys, "argv", ["export_checkpoint.py", *flags])
    assert export_checkpoint.main() == 0
    first, *rest = capsys.readouterr().out.splitlines()[-(1 + bool(left_out)) :]
    assert first == f"exported step 3 of {workdir} to {tmp_path / 'out'} in the {format} format"
    assert [line.rpartition(": ")[2] for line in rest] == ([left_out] if left_out else [])
    assert any((tmp_path / "out").iterdir())

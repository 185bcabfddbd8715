"""A corpus of one's own, with a vocabulary of its own, goes from text to a trained model by the README's commands."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spanbert_jax.data.store import open_store
from spanbert_jax.training.metrics import read_metrics
from tests.data.test_vocabulary import CHINESE, GERMAN

ROOT = Path(__file__).parents[1]
SMALL = [
    "--config.seq_len=64",
    "--config.batch_size=4",
    "--config.total_steps=120",
    "--config.optimizer.warmup_steps=10",
    "--config.log_every=10",
    "--config.model.width=32",
    "--config.model.mlp_width=64",
    "--config.eval.every=120",
    "--config.checkpoint.every=120",
]


def run(script: str, *flags: str) -> str:
    """A command as a user gives it; what it printed."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / script, *flags],
        cwd=ROOT,
        timeout=600,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("count=8", "count=1")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copies(lines, number):
    """Documents of the lines in many orders."""
    draw = np.random.default_rng(0)
    return ["\n".join(draw.permutation(lines)) for _ in range(number)]


@pytest.mark.slow
def test_text_to_model_in_another_language(tmp_path):
    (tmp_path / "text.txt").write_text("\n\n".join(copies(CHINESE, 60)), encoding="utf-8")
    told = run(
        "prepare_data.py",
        f"--input={tmp_path}/text.txt",
        f"--output={tmp_path}/store",
        "--train_vocab=400",
        "--valid_fraction=0.1",
    )
    advice = told[told.index("--config.data.store") :].split()
    run("pretrain.py", "--config=configs/spanbert.py:tiny", f"--workdir={tmp_path}/run", *SMALL, *advice)
    losses = [line["loss"] for line in read_metrics(tmp_path / "run") if "loss" in line]
    assert losses[-1] < losses[0] - 0.3
    tokenizer = open_store(tmp_path / "store").tokenizer()
    assert (tmp_path / "run" / "vocab.txt").read_text(encoding="utf-8").splitlines() == tokenizer.tokens
    run("fill_spans.py", f"--workdir={tmp_path}/run", "--held_out=1", f"--output={tmp_path}/filled.jsonl")
    assert json.loads((tmp_path / "filled.jsonl").read_text(encoding="utf-8").splitlines()[0])


@pytest.mark.slow
def test_two_stores_are_mixed_as_asked(tmp_path):
    for name, text in (
        ("german", "\n\n".join(copies(GERMAN, 40))),
        ("verses", "In the beginning was the word .\n\n" * 30),
    ):
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
        run(
            "prepare_data.py",
            f"--input={tmp_path}/{name}.txt",
            f"--output={tmp_path}/{name}",
            "--vocab=tiny",
            "--valid_fraction=0",
        )
    stores = f"--config.data.store={tmp_path}/german,{tmp_path}/verses"
    run(
        "pretrain.py",
        "--config=configs/spanbert.py:tiny",
        f"--workdir={tmp_path}/run",
        *SMALL,
        stores,
        "--config.data.weights=0.75,0.25",
        "--config.eval.every=0",
    )
    last = [line for line in read_metrics(tmp_path / "run") if "loss" in line][-1]
    assert last["step"] == 120 and last["rows/german"] + last["rows/verses"] == 480
    assert 320 <= last["rows/german"] <= 400

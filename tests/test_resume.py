"""A run killed at any instant resumes to the same bits: parameters, optimiser state and metrics."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from spanbert_jax.training.checkpoint import Checkpoints
from spanbert_jax.training.metrics import read_metrics

ROOT = Path(__file__).parents[1]
STEPS = 60
SMALL = {
    "seq_len": 64,
    "batch_size": 8,
    "total_steps": STEPS,
    "log_every": 1,
    "model.width": 32,
    "model.mlp_width": 64,
    "model.dropout": 0.1,
    "model.attention_dropout": 0.1,
    "optimizer.warmup_steps": 10,
    "eval.every": 20,
    "eval.max_rows": 32,
    "eval.batch_size": 16,
    "checkpoint.every": 10,
}


def start(workdir: Path, **changes) -> subprocess.Popen:
    """The pretraining command, as a user gives it."""
    flags = [f"--config.{key.replace('__', '.')}={value}" for key, value in (SMALL | changes).items()]
    command = [
        sys.executable,
        "scripts/pretrain.py",
        "--config=configs/spanbert.py:tiny",
        f"--workdir={workdir}",
        *flags,
    ]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("count=8", "count=1"),
    }
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def run(workdir: Path, **changes) -> None:
    process = start(workdir, **changes)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output


def stop_after(process: subprocess.Popen, workdir: Path, step: int, number: int) -> str:
    """Sends a signal once the metrics of a step are there; returns what the process printed."""
    while process.poll() is None and not any(line["step"] >= step for line in read_metrics(workdir)):
        time.sleep(0.005)
    process.send_signal(number)
    return process.communicate(timeout=600)[0]


def final(workdir: Path) -> dict[str, np.ndarray]:
    """Every array of the last checkpoint, as bits."""
    checkpoints = Checkpoints(workdir / "checkpoints")
    assert checkpoints.latest() == STEPS
    state = checkpoints.read(STEPS)
    checkpoints.close()
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


def told(workdir: Path) -> list[dict]:
    """The metrics without what a clock or the system says."""
    clock = ("tokens_per_second", "steps_per_second", "mfu", "host_memory_bytes")
    return [{name: value for name, value in line.items() if name not in clock} for line in read_metrics(workdir)]


def assert_same_bits(workdir: Path, straight: Path) -> None:
    one, other = final(workdir), final(straight)
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert np.array_equal(array, other[name]), name
    assert told(workdir) == told(straight)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("straight") / "run"
    run(workdir)
    assert [line["step"] for line in read_metrics(workdir) if "loss" in line] == list(range(1, STEPS + 1))
    return workdir


@pytest.mark.slow
def test_two_kills_and_another_thread_count_change_no_bit(straight, tmp_path):
    workdir = tmp_path / "run"
    for step, threads in ((17, 0), (44, 1)):
        process = start(workdir, data__threads=threads)
        stop_after(process, workdir, step, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    with (workdir / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"step": 45, "lo')  # a line the kill cut short
    run(workdir, data__threads=2)
    assert_same_bits(workdir, straight)


@pytest.mark.slow
def test_kills_around_the_beginnings_of_phases_change_no_bit(tmp_path):
    phases = "('21: seq_len=32 batch_size=16', '40: masking.rate=0.3')"
    workdir, straight = tmp_path / "run", tmp_path / "straight"
    run(straight, phases=phases)
    for step in (20, 22, 41):
        process = start(workdir, phases=phases)
        stop_after(process, workdir, step, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    run(workdir, phases=phases)
    assert_same_bits(workdir, straight)


@pytest.mark.slow
def test_sigterm_saves_and_says_so(straight, tmp_path):
    workdir = tmp_path / "run"
    process = start(workdir)
    output = stop_after(process, workdir, 13, signal.SIGTERM)
    assert process.returncode == 143, output
    saved = Checkpoints(workdir / "checkpoints").latest()
    assert saved >= 13 and saved % 10 and f"stopped by a signal at step {saved}" in output
    run(workdir)
    assert_same_bits(workdir, straight)


@pytest.mark.slow
def test_a_finished_run_and_a_busy_one_are_left_alone(straight, tmp_path):
    before = told(straight)
    run(straight)
    assert told(straight) == before
    workdir = tmp_path / "run"
    first = start(workdir, total_steps=10_000)
    while not (workdir / "metrics.jsonl").exists():
        time.sleep(0.05)
        assert first.poll() is None
    second = start(workdir, total_steps=10_000)
    output, _ = second.communicate(timeout=600)
    first.kill()
    first.communicate()
    assert second.returncode == 2 and "in use by another process" in output

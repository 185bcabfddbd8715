"""Runs of several processes: the same batches, losses and checkpoints as one process, and what happens when one of them
fails.

Each process has its share of eight CPU devices and joins by flags, as a user starts it.
"""

import os
import signal
import socket
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
SMALL = {
    "seq_len": 32,
    "batch_size": 8,
    "total_steps": 24,
    "log_every": 1,
    "model.width": 32,
    "model.mlp_width": 64,
    "model.heads": 4,
    "model.dropout": 0.1,
    "model.attention_dropout": 0.1,
    "optimizer.warmup_steps": 4,
    "optimizer.schedule": "constant",
    "eval.every": 8,
    "eval.max_rows": 24,
    "eval.batch_size": 8,
    "checkpoint.every": 8,
}


def start(workdir: Path, processes: int, each=lambda process: {}, **changes) -> list[subprocess.Popen]:
    """The pretraining command in so many processes; `each` gives config keys that one of them has of its own."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    started = []
    for process in range(processes):
        settings = SMALL | {key.replace("__", "."): value for key, value in (changes | each(process)).items()}
        command = [
            sys.executable,
            "scripts/pretrain.py",
            "--config=configs/spanbert.py:tiny",
            f"--workdir={workdir}",
            *(f"--config.{key}={value}" for key, value in settings.items()),
        ]
        if processes > 1:
            command += [f"--coordinator=localhost:{port}", f"--processes={processes}", f"--process={process}"]
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("count=8", f"count={8 // processes}"),
        }
        started.append(
            subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
    return started


def ended(started: list[subprocess.Popen]) -> list[tuple[int, str]]:
    """(exit code, output) of each."""
    outputs = [process.communicate(timeout=600)[0] for process in started]
    return list(zip([process.returncode for process in started], outputs))


def run(workdir: Path, processes: int, **changes) -> None:
    for code, output in ended(start(workdir, processes, **changes)):
        assert code == 0, output


def wait_for(workdir: Path, step: int, started: list[subprocess.Popen]) -> None:
    """Until the metrics of a step are there."""
    while not any(line["step"] >= step for line in read_metrics(workdir)):
        assert all(process.poll() is None for process in started), ended(started)
        time.sleep(0.01)


def losses(workdir: Path, key: str = "loss") -> list[float]:
    return [line[key] for line in read_metrics(workdir) if key in line]


def state(workdir: Path, step: int = 24) -> dict[str, np.ndarray]:
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    arrays = checkpoints.read(step)
    checkpoints.close()
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(arrays)}


def assert_same_bits(workdir: Path, other: Path) -> None:
    one, two = state(workdir), state(other)
    assert one.keys() == two.keys() and len(one) > 50
    for name, array in one.items():
        assert np.array_equal(array, two[name]), name
    assert losses(workdir) == losses(other)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process with all eight devices."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    run(workdir, 1, mesh__fsdp=2)
    return workdir


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two processes with four each."""
    workdir = tmp_path_factory.mktemp("two") / "run"
    run(workdir, 2, mesh__fsdp=2)
    return workdir


@pytest.mark.slow
def test_two_processes_are_one(alone, two):
    np.testing.assert_allclose(losses(two), losses(alone), rtol=1e-6)
    np.testing.assert_allclose(losses(two, "eval/mlm_loss"), losses(alone, "eval/mlm_loss"), rtol=1e-6)
    assert losses(two, "eval/mlm_count") == losses(alone, "eval/mlm_count") and len(losses(two, "eval/mlm_count")) == 3
    assert {name: array.shape for name, array in state(two).items()} == {
        name: array.shape for name, array in state(alone).items()
    }


@pytest.mark.slow
def test_four_processes_with_an_axis_that_crosses_them(alone, tmp_path):
    """tensor=4 over processes of two devices: two of them make the same rows."""
    run(tmp_path / "run", 4, mesh__data=2, mesh__tensor=4, total_steps=8)
    np.testing.assert_allclose(losses(tmp_path / "run"), losses(alone)[:8], rtol=1e-5)


@pytest.mark.slow
def test_a_killed_process_ends_the_others_and_the_restart_goes_on_exactly(two, tmp_path):
    workdir = tmp_path / "run"
    started = start(workdir, 2, mesh__fsdp=2)
    wait_for(workdir, 12, started)
    began = time.monotonic()
    started[1].kill()
    (code, output), (killed, _) = ended(started)
    assert killed == -signal.SIGKILL and code == 1, output
    assert time.monotonic() - began < 30  # JAX's heartbeats take 100 seconds
    said = next(line for line in output.splitlines() if line.startswith("process 0: "))
    assert (
        "another process of this run is gone" in said
        and "newest checkpoint is of step 8" in said
        and "start all processes again" in said
    )
    assert "Check failure" not in output  # JAX's own way to end
    run(workdir, 2, mesh__fsdp=2)
    assert_same_bits(workdir, two)


@pytest.mark.slow
def test_a_signal_to_one_stops_and_saves_all_and_one_process_can_go_on(two, tmp_path):
    workdir = tmp_path / "run"
    started = start(workdir, 2, mesh__fsdp=2)
    wait_for(workdir, 10, started)
    started[1].send_signal(signal.SIGTERM)
    for code, output in ended(started):
        assert code == 143, output
    saved = Checkpoints(workdir / "checkpoints", read_only=True).latest()
    assert saved >= 10
    run(workdir, 1, mesh__data=2, mesh__tensor=4)  # on another mesh, too
    np.testing.assert_allclose(losses(workdir), losses(two), rtol=1e-4)
    assert [line["step"] for line in read_metrics(workdir) if "eval/mlm_loss" in line] == [8, 16, 24]


@pytest.mark.slow
def test_a_mistake_of_one_is_told_by_all_and_leaves_nothing(tmp_path):
    workdir = tmp_path / "run"
    for code, output in ended(start(workdir, 2, each=lambda process: {"seed": process})):
        assert code == 2 and "process 1 of 2 was started with another config" in output, output
    for code, output in ended(start(workdir, 2, mesh__data=3)):
        assert code == 2 and "data=3" in output and "there are 8" in output, output
    assert not workdir.exists()


def test_flags_of_several_processes_go_together():
    command = [
        sys.executable,
        "scripts/pretrain.py",
        "--config=configs/spanbert.py:tiny",
        "--workdir=/nowhere/run",
        "--processes=2",
    ]
    ended = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120
    )
    assert (
        ended.returncode == 2
        and "--coordinator=HOST:PORT" in ended.stderr.splitlines()[-1]
        and "Traceback" not in ended.stderr
    )

"""A process of fine-tuning that is killed at any instant, and the same command after it: the same bits."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from spanbert_jax.training.checkpoint import Checkpoints
from spanbert_jax.training.metrics import read_metrics
from tests.small import MODEL

ROOT = Path(__file__).parents[2]
CLOCK = ("tokens_per_second", "steps_per_second", "host_memory_bytes")


def start(examples: Path, workdir: Path) -> subprocess.Popen:
    """The command, as a user gives it."""
    settings = {f"model.{name}": value for name, value in MODEL.items()}
    settings |= {f"task.{split}": examples / f"{split}.tsv" for split in ("train", "valid", "test")}
    settings |= {"task.epochs": 8, "seq_len": 32, "batch_size": 16, "log_every": 1, "data.vocab": "tiny"}
    flags = [f"--config.{key}={value}" for key, value in settings.items()]
    config = "--config=configs/tasks/classification.py"
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("count=8", "count=1"),
    }
    return subprocess.Popen(
        [sys.executable, "scripts/finetune.py", config, f"--workdir={workdir}", *flags],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(process: subprocess.Popen) -> None:
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output


@pytest.mark.slow
def test_two_kills_change_no_bit(examples, tmp_path):
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    ended(start(examples, straight))
    for step in (8, 27):
        process = start(examples, killed)
        while process.poll() is None and not any(line["step"] >= step for line in read_metrics(killed)):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=600)
        assert process.returncode == -signal.SIGKILL
    ended(start(examples, killed))

    def all_of(workdir):
        checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
        state = flatten_dict(checkpoints.read_params(48), sep="/")
        checkpoints.close()
        lines = [{key: value for key, value in line.items() if key not in CLOCK} for line in read_metrics(workdir)]
        return state, lines, (workdir / "results.json").read_text()

    (one, *rest), (other, *same) = all_of(straight), all_of(killed)
    assert rest == same and one.keys() == other.keys()
    assert all(np.array_equal(one[path], other[path]) for path in one)

"""A full disk ends a run with one line and loses nothing; with room again, the same command goes on."""

import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from spanbert_jax.errors import DiskFull
from spanbert_jax.training.metrics import read_metrics
from spanbert_jax.training.pretrain import pretrain
from tests.small import small_config

ROOT = Path(__file__).parents[2]
RUN = """
import resource
import sys
from pathlib import Path
from spanbert_jax import cli
from spanbert_jax.training.pretrain import pretrain
from tests.small import small_config

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
config = small_config(data__store=sys.argv[1], total_steps=4, eval__every=0, log_every=1)
cli.run(lambda: pretrain(config, Path(sys.argv[2])))
"""


def test_no_room_for_a_checkpoint_is_seen_before_it_is_written(store, tmp_path, monkeypatch, capfd):
    usage = namedtuple("usage", "free")
    config = small_config(data__store=str(store.folder), total_steps=4, eval__every=0, log_every=1, checkpoint__every=2)
    room = iter([usage(10**9), usage(10**5)])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: next(room))
    with pytest.raises(DiskFull) as error:
        pretrain(config, tmp_path / "run")
    assert str(error.value) == (
        f"{tmp_path}/run: cannot write it (No space left on device). The newest checkpoint is of step 2. "
        "Make room and run the same command again"
    )
    monkeypatch.undo()
    capfd.readouterr()
    assert pretrain(config, tmp_path / "run") == 0
    assert "resuming from the checkpoint of step 2" in capfd.readouterr().out
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == [1, 2, 3, 4]


def test_a_quota_is_reported_in_one_line_although_the_disk_has_room(store, tmp_path):
    """A limit on the size of files takes the place of a quota: writing fails in the threads that write arrays."""
    process = subprocess.run(
        [sys.executable, "-c", RUN, str(store.folder), str(tmp_path / "run")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 2
    assert "Traceback" not in process.stderr
    line = process.stderr.splitlines()[-1]
    assert "cannot write it (File too large). There is no checkpoint yet. Make room" in line
    assert (tmp_path / "run" / "config.json").exists()

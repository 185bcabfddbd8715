"""Preparation by real processes that are killed or run out of disk: what is finished is kept, and the store has the same bytes at last."""

import importlib.util
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from spanbert_jax.data.sources import find_units
from tests.data.preparation.settings_for_tests import FLAGS, content

ROOT = Path(__file__).parents[3]
DEDUP = "near" if importlib.util.find_spec("rensa") else "exact"


def command(source, output, *more):
    flags = [*FLAGS, f"--input={source}", f"--output={output}", f"--dedup={DEDUP}", *more]
    return [sys.executable, ROOT / "scripts" / "prepare_data.py", *flags]


def start(source, output, *more, **options) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command(source, output, *more),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


def finish(process) -> str:
    """What a process that ends well says on stderr."""
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Twelve files with together 8 MB of the embedded corpus, and the store that is made of them without a fault."""
    folder = tmp_path_factory.mktemp("world")
    documents = [document for unit in find_units("embedded", "", "", "", "blank") for document in unit.documents()]
    draw = np.random.default_rng(0)
    for number in range(12):
        chosen = [documents[i] for i in draw.choice(len(documents), 42)]
        (folder / f"{number:02d}.txt").write_text(
            "\n\n".join("\n".join(document) for document in chosen), encoding="utf-8"
        )
    began = time.perf_counter()
    finish(start(folder / "*.txt", folder / "store", "--workers=2"))
    return folder, time.perf_counter() - began


@pytest.mark.slow
def test_killed_at_ten_instants(world, tmp_path):
    """Half of the time the workers are left to find out for themselves that they are orphans."""
    folder, seconds = world
    draw = np.random.default_rng(1)
    at_work = 0
    for number, instant in enumerate((np.arange(10) + draw.random(10)) / 10 * seconds):
        output = tmp_path / str(number)
        process = start(folder / "*.txt", output, "--workers=2", start_new_session=True)
        time.sleep(instant)
        if number % 2:
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        partial = output.with_name(f"{number}.partial")
        at_work += (partial / "plan.json").exists()
        if not output.exists() or partial.exists():
            finish(start(folder / "*.txt", output, "--workers=2"))
        assert content(output) == content(folder / "store")
        assert not partial.exists()
    assert at_work >= 4


@pytest.mark.slow
def test_full_disk(world, tmp_path):
    """A limit on the size of files stands for a full disk; the run goes on when there is room."""
    folder, _ = world
    output = tmp_path / "store"
    process = start(
        folder / "*.txt",
        output,
        "--workers=2",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)),
    )
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 2
    line = said.strip().splitlines()[-1]
    assert line.startswith("prepare_data.py: ") and "File too large" in line and "run the same command again" in line
    assert "Traceback" not in said
    assert not output.exists()
    finish(start(folder / "*.txt", output, "--workers=2"))
    assert content(output) == content(folder / "store")


@pytest.mark.slow
def test_ctrl_c_ends_it_and_its_workers(world, tmp_path):
    folder, seconds = world
    process = start(folder / "*.txt", tmp_path / "store", "--workers=2", start_new_session=True)
    deadline = time.monotonic() + 10 * seconds + 30
    while not list(tmp_path.glob("store.partial/units/*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    with pytest.raises(ProcessLookupError):  # nobody is left of the group, at the latest in a moment
        for _ in range(100):
            os.killpg(process.pid, 0)
            time.sleep(0.05)
    assert not (tmp_path / "store").exists()
    assert list(tmp_path.glob("store.partial/new/*")) == []
    finish(start(folder / "*.txt", tmp_path / "store", "--workers=2"))
    assert content(tmp_path / "store") == content(folder / "store")

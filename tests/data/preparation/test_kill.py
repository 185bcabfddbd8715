"""Preparation by real processes that are killed or run out of disk: finished work is kept, and the store is the
same.
"""

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
from tests.data.preparation.settings_for_tests import FLAGS, digests

ROOT = Path(__file__).parents[3]
DEDUP = "near" if importlib.util.find_spec("rensa") else "exact"


def command(source, output, *more):
    flags = [*FLAGS, f"--input={source}", f"--output={output}", f"--dedup={DEDUP}", *more]
    return [sys.executable, ROOT / "scripts" / "prepare_data.py", *flags]


def start(source, output, *more, **options) -> subprocess.Popen:
    options |= dict(stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(command(source, output, *more), env=os.environ | {"PYTHONPATH": str(ROOT)}, **options)


def finish(process) -> None:
    """Waits for a process, which must succeed."""
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """(folder with twelve files, 8 MB in all, and the store made of them without interruption; seconds that took)."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    documents = [document for unit in find_units("embedded", "", "", "", "blank") for document in unit.documents()]
    draw = np.random.default_rng(0)
    for number in range(12):
        texts = ["\n".join(documents[i]) for i in draw.choice(len(documents), 42)]
        (folder / f"{number:02d}.txt").write_text("\n\n".join(texts), encoding="utf-8")
    start_time = time.perf_counter()
    finish(start(folder / "*.txt", folder / "store", "--workers=2"))
    return folder, time.perf_counter() - start_time


@pytest.mark.slow
def test_killed_at_ten_instants(uninterrupted, tmp_path):
    """Every second time only the main process is killed, and the workers must end by themselves."""
    folder, seconds = uninterrupted
    draw = np.random.default_rng(1)
    num_unfinished = 0
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
        num_unfinished += (partial / "plan.json").exists()
        if not output.exists() or partial.exists():
            finish(start(folder / "*.txt", output, "--workers=2"))
        assert digests(output) == digests(folder / "store")
        assert not partial.exists()
    assert num_unfinished >= 4


@pytest.mark.slow
def test_full_disk(uninterrupted, tmp_path):
    """A limit on the size of files stands in for a full disk; the preparation continues when there is room."""
    folder, _ = uninterrupted
    output = tmp_path / "store"

    def limit_file_size():
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))

    process = start(folder / "*.txt", output, "--workers=2", preexec_fn=limit_file_size)
    stderr = process.communicate(timeout=300)[1]
    assert process.returncode == 2
    line = stderr.strip().splitlines()[-1]
    assert line.startswith("prepare_data.py: ") and "File too large" in line and "run the same command again" in line
    assert "Traceback" not in stderr
    assert not output.exists()
    finish(start(folder / "*.txt", output, "--workers=2"))
    assert digests(output) == digests(folder / "store")


@pytest.mark.slow
def test_ctrl_c_ends_all_processes(uninterrupted, tmp_path):
    folder, seconds = uninterrupted
    # What a shell starts in the background ignores SIGINT, and so would its children.
    options = dict(start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    process = start(folder / "*.txt", tmp_path / "store", "--workers=2", **options)
    deadline = time.monotonic() + 10 * seconds + 30
    while not list(tmp_path.glob("store.partial/units/*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    with pytest.raises(ProcessLookupError):  # no process of the group is left, soon at the latest
        for _ in range(100):
            os.killpg(process.pid, 0)
            time.sleep(0.05)
    assert not (tmp_path / "store").exists()
    assert list(tmp_path.glob("store.partial/new/*")) == []
    finish(start(folder / "*.txt", tmp_path / "store", "--workers=2"))
    assert digests(tmp_path / "store") == digests(folder / "store")

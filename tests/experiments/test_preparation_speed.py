"""The benchmark of preparation counts text, time and memory correctly."""

import subprocess
import sys
from pathlib import Path

import pytest

from spanbert_jax.experiments.preparation_speed import preparation, resident_bytes_of_tree


@pytest.mark.slow
def test_figures_of_a_small_text(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    (tmp_path / "text.txt").write_text("The cat sat.\nIt was late.\n\nAnother document.\n" * 1000)
    figures = preparation(str(tmp_path / "text.txt"))
    assert figures["lines"] == 3000 and figures["characters"] == 1000 * len("The cat sat.It was late.Another document.")
    assert figures["tokens"] == 1000 * (4 + 4 + 3)
    # With a small text, most of the time is the start of the script.
    assert 0 < figures["prepare_tokens_per_second"] < figures["bare_tokens_per_second"]
    assert 20e6 < figures["peak_resident_bytes"] < 1e9


def test_memory_of_descendants_is_counted():
    program = "import subprocess, sys; x = bytearray(b'x' * {size}); y = {child}; print(flush=True); sys.stdin.read()"
    grandchild = program.format(size=40 << 20, child=None)
    child = program.format(size=1, child=f"subprocess.Popen([sys.executable, '-c', {grandchild!r}], stdin=0)")
    process = subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.readline()
    assert resident_bytes_of_tree(process.pid) > (40 << 20) + (10 << 20)
    process.communicate()
    assert resident_bytes_of_tree(process.pid) == 0

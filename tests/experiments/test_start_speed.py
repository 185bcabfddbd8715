"""The benchmark of starts waits for a first step, and says why if there is none."""

import pytest

from spanbert_jax.experiments import start_speed


@pytest.mark.slow
def test_a_start_ends_at_the_first_step(tmp_path, monkeypatch):
    assert start_speed.seconds_to_first_step(tmp_path, 0) > 1
    assert (tmp_path / "run-0" / "store" / "index.json").is_file() and (tmp_path / "compiled").is_dir()
    monkeypatch.setattr(start_speed, "CONFIG", tmp_path / "absent.py")
    with pytest.raises(RuntimeError, match="the run ended before its first step"):
        start_speed.seconds_to_first_step(tmp_path, 1)

"""What made a run is written down, a run is repeated from its config.json, and other versions are recorded."""

import json
import shutil
import subprocess

import jax
import numpy as np
import pytest

from spanbert_jax import provenance
from spanbert_jax.config import load_config
from spanbert_jax.provenance import git_state, read_provenance, versions
from spanbert_jax.training.checkpoint import Checkpoints
from spanbert_jax.training.export import export_model
from spanbert_jax.training.metrics import read_metrics
from spanbert_jax.training.pretrain import pretrain
from spanbert_jax.training.workdir import record_of
from tests.finetuning.conftest import run_on, task_config, write_examples
from tests.small import small_config

CLOCK = ("tokens_per_second", "steps_per_second", "host_memory_bytes", "mfu")


def lines_of(workdir):
    return [{key: value for key, value in line.items() if key not in CLOCK} for line in read_metrics(workdir)]


def state_of(workdir, step):
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    state = checkpoints.read(step)
    checkpoints.close()
    return state


def same_bits(first, second) -> bool:
    return jax.tree.all(jax.tree.map(lambda a, b: np.array_equal(a, b, equal_nan=True), first, second))


def test_versions_are_those_that_are_imported():
    found = versions()
    assert (found["jax"], found["numpy"]) == (jax.__version__, np.__version__)
    assert {"python", "flax", "optax", "orbax-checkpoint", "tensorflow"} <= found.keys()


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_the_state_of_a_checkout(tmp_path):
    def git(*arguments):
        who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    assert git_state(tmp_path) is None
    git("init", "--quiet")
    assert git_state(tmp_path) is None  # nothing is committed yet
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "--quiet", "-m", "first")
    assert git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "new").write_text("not tracked")
    assert git_state(tmp_path)["dirty"] is False
    (tmp_path / "file").write_text("two")
    assert git_state(tmp_path)["dirty"] is True
    (tmp_path / "site-packages").mkdir()
    assert git_state(tmp_path / "site-packages") is None  # a package within another project's checkout


def test_a_run_says_what_made_it_and_its_config_repeats_it(store, tmp_path):
    config = small_config(
        data__store=str(store.folder), total_steps=6, log_every=1, eval__every=3, eval__max_rows=8, checkpoint__every=6
    )
    assert pretrain(config, tmp_path / "run") == 0
    made = read_provenance(tmp_path / "run")
    assert made == record_of(tmp_path / "run", 6)["provenance"]
    assert made["versions"] == versions() and set(made["data"]) == {"text", "vocabulary"}
    again = load_config(f"{tmp_path}/run/config.json")
    assert pretrain(again, tmp_path / "again") == 0
    assert lines_of(tmp_path / "again") == lines_of(tmp_path / "run")
    assert same_bits(state_of(tmp_path / "again", 6), state_of(tmp_path / "run", 6))
    assert read_provenance(tmp_path / "again")["data"] == made["data"]
    export_model(tmp_path / "run", tmp_path / "exported", "huggingface", None)
    assert f"jax {jax.__version__}" in (tmp_path / "exported" / "README.md").read_text()


def test_the_config_of_a_fine_tuning_run_repeats_it(tmp_path):
    for seed, name in enumerate(("train", "valid", "test")):
        write_examples(tmp_path / f"{name}.tsv", 20, seed)
    assert run_on(task_config(tmp_path, task__epochs=1), tmp_path / "run") == 0
    assert run_on(load_config(f"{tmp_path}/run/config.json"), tmp_path / "again") == 0
    assert lines_of(tmp_path / "again") == lines_of(tmp_path / "run")
    assert same_bits(*(state_of(tmp_path / name, 2) for name in ("run", "again")))
    assert read_provenance(tmp_path / "run") == read_provenance(tmp_path / "again")


def test_resuming_with_other_versions_is_recorded_and_not_refused(store, tmp_path, monkeypatch, capsys):
    def config(steps):
        fixed = dict(optimizer__schedule="constant", eval__every=0, checkpoint__every=10)
        return small_config(data__store=str(store.folder), total_steps=steps, **fixed)

    assert pretrain(config(3), tmp_path / "run") == 0
    before = versions()["jax"]
    monkeypatch.setattr(provenance, "versions", lambda: versions() | {"jax": "99.0"})
    monkeypatch.setattr(provenance, "git_state", lambda root: {"commit": "abcdef0123456789", "dirty": True})
    assert pretrain(config(5), tmp_path / "run") == 0
    assert f"after step 3, versions.jax {before!r} -> '99.0'" in capsys.readouterr().out
    recorded = {
        change["key"]: change for change in json.loads((tmp_path / "run" / "config.json").read_text())["changes"]
    }
    assert recorded["versions.jax"] == {"step": 3, "key": "versions.jax", "before": before, "now": "99.0"}
    assert recorded["git.commit"]["now"] == "abcdef0123456789"
    assert read_provenance(tmp_path / "run")["versions"]["jax"] == "99.0"
    assert record_of(tmp_path / "run", 5)["changes"] == list(recorded.values())
    text = ", ".join(provenance.in_words(read_provenance(tmp_path / "run")))
    assert "jax 99.0" in text and "commit abcdef012345, with changes that are not committed" in text


def test_a_checkpoint_of_an_earlier_release_has_no_provenance(tmp_path):
    assert read_provenance(tmp_path) == {} and provenance.in_words({}) == []

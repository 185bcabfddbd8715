"""Bad steps are left out: parameters and moments stay, counts go on; a run skips or rewinds, and resumes exactly."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spanbert_jax.data.batches import Feed
from spanbert_jax.errors import Diverged
from spanbert_jax.optimizers import make_optimizer, optimizer_problems
from spanbert_jax.optimizers.guard import FIRST, guard_metrics, moved_on
from spanbert_jax.training import run as run_module
from spanbert_jax.training.metrics import read_metrics
from spanbert_jax.training.pretrain import pretrain
from tests.optimizers.test_runs import arrays
from tests.small import small_config


def optimizer_config(**changes):
    config = small_config().optimizer
    config.update(dict(warmup_steps=0, learning_rate=0.1, bad_steps="skip") | changes)
    return config


def step(tx, params, state, grads, loss=1.0):
    norm = jnp.sqrt(sum(jnp.sum(grad**2) for grad in jax.tree.leaves(grads)))
    updates, state = tx.update(grads, state, params, loss=jnp.asarray(loss), gradient_norm=norm)
    return jax.tree.map(jnp.add, params, updates), state


def assert_same(before, now, but: str):
    for (path, old), new in zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(now), strict=True):
        assert jax.tree_util.keystr(path).endswith(but) or np.array_equal(old, new), path


@pytest.mark.parametrize("average", ["none", "ema"])
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_what_is_not_finite_changes_nothing_but_the_counts(name, average):
    tx = make_optimizer(optimizer_config(name=name, average=average), 100)
    params = {"encoder": {"layers": {"mlp": {"kernel": jnp.ones((2, 3, 3))}}}, "bias": jnp.ones(3)}
    good = jax.tree.map(lambda leaf: 0.5 * leaf, params)
    params, state = step(tx, params, tx.init(params), good)
    assert guard_metrics(state) == {"bad_steps": 0, "bad_in_a_row": 0}
    for number, (grads, loss) in enumerate([(jax.tree.map(lambda leaf: leaf * np.nan, good), 1.0), (good, np.inf)], 1):
        now, new_state = step(tx, params, state, grads, loss)
        assert_same(params, now, "-")
        assert_same(state["optimizer"], new_state["optimizer"], ".count")
        assert_same(state.get("average", 0), new_state.get("average", 0), "-")
        assert guard_metrics(new_state) == {"bad_steps": number, "bad_in_a_row": number}
        state = new_state
    params, state = step(tx, params, state, good)
    assert guard_metrics(state) == {"bad_steps": 2, "bad_in_a_row": 0}


def test_spikes_are_bad_once_the_usual_gradient_is_known():
    tx = make_optimizer(optimizer_config(spike=5.0), 100)
    params = {"kernel": jnp.ones(4)}
    state = tx.init(params)

    def bad(size):
        nonlocal params, state
        params, state = step(tx, params, state, {"kernel": jnp.full(4, size)})
        return int(state["guard"].bad_in_a_row) > 0

    assert not bad(1.0) and not bad(50.0)  # too early to know
    assert not any(bad(1.0) for _ in range(FIRST + 200))
    assert bad(10.0) and not bad(3.0) and int(state["guard"].bad_steps) == 1


def test_without_bad_steps_the_trajectory_is_that_of_a_run_without_the_guard():
    params, found = {"kernel": jnp.ones(4)}, []
    for bad_steps in ("stop", "skip"):
        tx = make_optimizer(optimizer_config(bad_steps=bad_steps), 100)
        now, state = params, tx.init(params)
        for number in range(5):
            grads = {"kernel": jnp.arange(4.0) + number}
            if bad_steps == "skip":
                now, state = step(tx, now, state, grads)
            else:
                updates, state = tx.update(grads, state, now)
                now = jax.tree.map(jnp.add, now, updates)
        found.append(now["kernel"])
    np.testing.assert_array_equal(*found)


def test_moving_on_raises_the_counts():
    tx = make_optimizer(optimizer_config(), 100)
    _, state = step(tx, {"kernel": jnp.ones(4)}, tx.init({"kernel": jnp.ones(4)}), {"kernel": jnp.ones(4)})
    moved = moved_on(state, 7, 3)
    counts = [
        (int(old), int(new))
        for (path, old), new in zip(jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(moved))
        if jax.tree_util.keystr(path).endswith(".count")
    ]
    assert counts == [(1, 8)] * len(counts) and len(counts) == 2  # of Adam and of the schedule
    assert moved["guard"].bad_steps == 3
    assert_same({**state, "guard": 0}, {**moved, "guard": 0}, ".count")


BAD = 5  # the step whose batch is bad: its weights make the loss infinite


@pytest.fixture
def bad_batch(monkeypatch):
    """Makes the batch of step BAD one whose loss is not finite; returns the steps whose batches were made."""
    plain, made = Feed.training, []

    def training(self, start, part=None):
        for number, batch in enumerate(plain(self, start, part), start + 1):
            made.append(number)
            if number == BAD:
                batch = batch | {"mlm_weights": np.full_like(batch["mlm_weights"], np.inf)}
            yield batch

    monkeypatch.setattr(Feed, "training", training)
    return made


def run_config(store, **changes):
    fixed = dict(total_steps=9, log_every=1, data__store=str(store.folder), checkpoint__every=3, eval__every=0)
    fixed |= dict(checkpoint__keep_last=9)
    return small_config(**fixed, optimizer__name="muon", mesh__data=4, mesh__fsdp=2, **changes)


def test_a_run_skips_a_bad_step(tmp_path, store, bad_batch, capsys):
    assert pretrain(run_config(store, optimizer__bad_steps="skip"), tmp_path) == 0
    lines = read_metrics(tmp_path)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 6, 7, 8, 9]
    assert [line["bad_steps"] for line in lines] == [0] * 4 + [1] * 4
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(f"step {BAD}"))
    assert line.endswith(": a bad step, left out")
    state = arrays(tmp_path, 9)
    assert all(np.isfinite(array).all() for array in state.values() if array.dtype == np.float32)


def test_a_run_rewinds_and_does_so_again_after_a_restart(tmp_path, store, bad_batch):
    config = run_config(store, optimizer__bad_steps="rewind")
    assert pretrain(config, tmp_path / "a") == 0
    expected = arrays(tmp_path / "a", 9)
    skipped = pretrain(run_config(store, optimizer__bad_steps="skip"), tmp_path / "skip")
    assert skipped == 0 and any(np.any(expected[k] != v) for k, v in arrays(tmp_path / "skip", 9).items() if "mu" in k)

    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for later in (6, 9):  # as if it had been killed before step 6 was saved, so that it meets the bad step again
        shutil.rmtree(tmp_path / "b" / "checkpoints" / f"step_{later}")
    assert pretrain(config, tmp_path / "b") == 0
    for path, array in arrays(tmp_path / "b", 9).items():
        np.testing.assert_array_equal(array, expected[path], err_msg=path)
    assert [line["step"] for line in read_metrics(tmp_path / "b")] == [1, 2, 3, 4, 6, 7, 8, 9]


def test_a_run_that_has_only_bad_steps_stops(tmp_path, store, monkeypatch):
    monkeypatch.setattr(run_module, "MOST_BAD_STEPS", 3)
    config = run_config(store, optimizer__bad_steps="skip", optimizer__spike=0.0)
    plain = Feed.training

    def training(self, start, part=None):
        return (b | {"mlm_weights": np.full_like(b["mlm_weights"], np.inf)} for b in plain(self, start, part))

    monkeypatch.setattr(Feed, "training", training)
    with pytest.raises(Diverged, match="3 bad steps in a row"):
        pretrain(config, tmp_path)


def test_a_spike_without_an_answer_is_refused():
    assert optimizer_problems(optimizer_config(bad_steps="stop", spike=3.0)) == [
        "optimizer.spike says which steps are bad, and 'stop' ends at none of them: give bad_steps skip or rewind"
    ]

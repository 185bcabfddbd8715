"""AdamW and its schedule."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spanbert_jax.training.optimizer import learning_rate, make_optimizer
from tests.small import small_config

GOLDEN = json.loads((Path(__file__).parents[1] / "goldens" / "golden_optim.json").read_text())


def optimizer_config(**changes):
    config = small_config().optimizer
    config.update(changes)
    return config


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_schedule_rises_to_the_peak_and_comes_down_to_almost_nothing(schedule):
    rate = learning_rate(optimizer_config(learning_rate=1.0, warmup_steps=10, schedule=schedule), 100)
    rates = np.array([rate(n) for n in range(100)])
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 10, rtol=1e-6)
    assert rates[10] == 1.0
    if schedule == "constant":
        assert np.all(rates[10:] == 1)
    else:
        assert np.all(np.diff(rates[10:]) < 0) and 0 < rates[-1] < 0.02
    if schedule == "linear":
        np.testing.assert_allclose(rates[10:], (100 - np.arange(10, 100)) / 90, rtol=1e-5)


def test_the_originals_schedule_with_its_quirks():
    rate = learning_rate(optimizer_config(learning_rate=1e-4, warmup_steps=10, schedule="original", updates_per_epoch=15), 100)
    np.testing.assert_allclose([rate(n) for n in range(45)], GOLDEN["schedule"]["used"], rtol=1e-6)


def test_updates_are_the_originals_adam():
    adam = GOLDEN["adam"]
    tx = make_optimizer(optimizer_config(learning_rate=adam["lr"], warmup_steps=0, schedule="constant", eps=adam["eps"],
                                         weight_decay=adam["weight_decay"], clip_norm=0.0), 100)
    params = {"kernel": jnp.array(adam["p0"], jnp.float32)}
    state = tx.init(params)
    for grad, expected in zip(adam["grads"], adam["traj"]):
        updates, state = tx.update({"kernel": jnp.array(grad, jnp.float32)}, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        np.testing.assert_allclose(params["kernel"], expected, atol=1e-6)


@pytest.mark.parametrize("everything", [False, True])
def test_biases_and_norms_decay_only_when_asked(everything):
    tx = make_optimizer(optimizer_config(weight_decay=0.5, decay_biases_and_norms=everything, warmup_steps=0, schedule="constant"), 10)
    params = {"a": {"kernel": jnp.ones(3), "bias": jnp.ones(3)}, "norm": {"scale": jnp.ones(3)}, "word": jnp.ones(3)}
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    assert np.all(updates["a"]["kernel"] < 0) and np.all(updates["word"] < 0)
    assert np.all((updates["a"]["bias"] < 0) == everything) and np.all((updates["norm"]["scale"] < 0) == everything)


def test_clipping_is_by_global_norm():
    """Adam's first update hides a gradient's size, its first moment does not."""
    params = {"kernel": jnp.zeros(4)}
    for clip, expected in ((1.0, 1.0), (0.0, 10.0)):
        tx = make_optimizer(optimizer_config(clip_norm=clip, beta1=0.5), 10)
        _, state = tx.update({"kernel": jnp.full(4, 5.0)}, tx.init(params), params)
        moments = next(part for part in jax.tree.leaves(state, is_leaf=lambda x: hasattr(x, "mu")) if hasattr(part, "mu"))
        np.testing.assert_allclose(jnp.linalg.norm(moments.mu["kernel"]), 0.5 * expected, rtol=1e-6)

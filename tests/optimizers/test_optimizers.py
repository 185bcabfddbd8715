"""AdamW and its schedule."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from spanbert_jax.optimizers import learning_rate, make_optimizer, optimizer_problems
from spanbert_jax.optimizers.adamw import stochastically_rounded, stored_in_bfloat16
from tests.small import batches_of, small_config, small_program

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


@pytest.mark.parametrize("shape", ["linear", "1-sqrt"])
def test_warm_up_stable_decay(shape):
    knobs = dict(learning_rate=2.0, warmup_steps=10, schedule="wsd", decay_steps=20, decay_shape=shape)
    rates = np.array([learning_rate(optimizer_config(**knobs), 100)(n) for n in range(101)])
    np.testing.assert_allclose(rates[:10], 2 * np.arange(1, 11) / 10, rtol=1e-6)
    assert np.all(rates[10:81] == 2)
    elapsed = np.arange(21) / 20
    expected = 2 * (1 - (elapsed if shape == "linear" else np.sqrt(elapsed)))
    np.testing.assert_allclose(rates[80:], expected, atol=1e-6)


def test_the_originals_schedule_with_its_quirks():
    rate = learning_rate(
        optimizer_config(learning_rate=1e-4, warmup_steps=10, schedule="original", steps_per_epoch=15), 100
    )
    np.testing.assert_allclose([rate(n) for n in range(45)], GOLDEN["schedule"]["used"], rtol=1e-6)


def test_the_trajectory_is_the_originals_adam():
    adam = GOLDEN["adam"]
    tx = make_optimizer(
        optimizer_config(
            learning_rate=adam["lr"],
            warmup_steps=0,
            schedule="constant",
            eps=adam["eps"],
            weight_decay=adam["weight_decay"],
            clip_norm=0.0,
        ),
        100,
    )
    params = {"kernel": jnp.array(adam["p0"], jnp.float32)}
    state = tx.init(params)
    for grad, expected in zip(adam["grads"], adam["traj"]):
        updates, state = tx.update({"kernel": jnp.array(grad, jnp.float32)}, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        np.testing.assert_allclose(params["kernel"], expected, atol=1e-6)


@pytest.mark.parametrize("everything", [False, True])
def test_biases_and_norms_decay_only_when_asked(everything):
    tx = make_optimizer(
        optimizer_config(weight_decay=0.5, decay_biases_and_norms=everything, warmup_steps=0, schedule="constant"), 10
    )
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
        moments = next(
            part for part in jax.tree.leaves(state, is_leaf=lambda x: hasattr(x, "mu")) if hasattr(part, "mu")
        )
        np.testing.assert_allclose(jnp.linalg.norm(moments.mu["kernel"]), 0.5 * expected, rtol=1e-6)


def test_stochastic_rounding_is_right_on_average_and_exact_where_it_can_be():
    x = jnp.concatenate([jnp.full(100_000, 1 + 2.0**-10), jnp.array([0.0, 1.0, -2.5, 2.0**-120])])
    rounded = stochastically_rounded(x, jnp.array([7], jnp.uint32))
    assert rounded.dtype == jnp.bfloat16 and np.array_equal(rounded[-4:].astype(jnp.float32), x[-4:])
    assert set(np.unique(rounded[:-4].astype(np.float32))) == {1.0, 1 + 2.0**-7}  # its two neighbours
    share = np.mean(rounded[:-4].astype(np.float32) > 1)
    assert abs(share - 1 / 8) < 5 * np.sqrt(1 / 8 * 7 / 8 / 100_000)
    again = stochastically_rounded(x, jnp.array([8], jnp.uint32))
    assert 0.1 < np.mean(np.asarray(rounded != again)[:-4]) < 0.35  # other updates, other bits: 2 * 1/8 * 7/8


def test_moments_in_bfloat16_follow_those_in_float32():
    """Gradients whose size falls by ten: rounded to the nearest, the average of squares would stay where it was."""
    plain = optax.scale_by_adam(b1=0.9, b2=0.999)
    halved = stored_in_bfloat16(plain)
    params = {"a": {"kernel": jnp.zeros(4096)}, "b": {"bias": jnp.zeros(8)}}
    states = [plain.init(params), halved.init(params)]
    assert {leaf.dtype for leaf in jax.tree.leaves((states[1].mu, states[1].nu))} == {jnp.dtype("bfloat16")}
    update = [jax.jit(transform.update) for transform in (plain, halved)]
    rng = np.random.default_rng(0)
    for step in range(1500):
        size = 1.0 if step < 500 else 0.1
        grads = jax.tree.map(
            lambda leaf, size=size: jnp.asarray(rng.normal(size=leaf.shape) * size, jnp.float32), params
        )
        (exact, states[0]), (near, states[1]) = (one(grads, state) for one, state in zip(update, states))

    def mean(state):
        return float(jnp.mean(state.nu["a"]["kernel"].astype(jnp.float32)))

    assert mean(states[0]) < 0.2  # it has moved a long way from 0.39
    assert mean(states[1]) == pytest.approx(mean(states[0]), rel=0.01)
    error = np.asarray(near["a"]["kernel"] - exact["a"]["kernel"])
    assert np.sqrt(np.mean(error**2)) < 0.05 * np.sqrt(np.mean(np.asarray(exact["a"]["kernel"]) ** 2))


def test_a_run_with_moments_in_bfloat16_learns_alike(store):
    def losses(**changes):
        config = small_config(**changes)
        program = small_program(config, 8)
        state, values = program.init(None), []
        for _, batch in zip(range(20), batches_of(store, config)):
            state, metrics = program.train_step(state, program.put(batch))
            values.append(float(metrics["loss"]))
        return state, values

    (exact, plain), (near, halved) = losses(), losses(optimizer__state_dtype="bfloat16", mesh__data=2, mesh__fsdp=4)
    assert plain[0] == pytest.approx(halved[0], rel=1e-6) and plain != halved
    np.testing.assert_allclose(halved, plain, rtol=5e-3)

    def size(state):
        return sum(leaf.nbytes for leaf in jax.tree.leaves(state.opt_state))

    assert size(near) == pytest.approx(size(exact) / 2, rel=0.01)


def test_groups_scale_rate_and_decay_by_path():
    """The first group that matches counts; parameters of no group are as without groups."""
    settings = dict(learning_rate=0.1, warmup_steps=0, schedule="constant", weight_decay=0.5, clip_norm=0.0)
    params = {"encoder": {"kernel": jnp.ones(3), "bias": jnp.ones(3)}, "mlm": {"kernel": jnp.ones(3)}}
    grads = jax.tree.map(jnp.ones_like, params)

    def updates(*groups):
        tx = make_optimizer(optimizer_config(**settings, groups=groups), 10)
        return flatten_dict(tx.update(grads, tx.init(params), params)[0], sep="/")

    plain = updates()
    np.testing.assert_allclose(plain["encoder/kernel"], -0.1 * (1 + 0.5), rtol=1e-5)
    np.testing.assert_allclose(plain["encoder/bias"], -0.1, rtol=1e-5)  # biases do not decay
    grouped = updates("encoder/kernel rate=0.5 decay=0", "encoder/.* rate=0.1")
    np.testing.assert_allclose(grouped["encoder/kernel"], -0.05, rtol=1e-5)
    np.testing.assert_allclose(grouped["encoder/bias"], -0.01, rtol=1e-5)
    np.testing.assert_allclose(grouped["mlm/kernel"], plain["mlm/kernel"], rtol=1e-6)


def test_what_no_optimizer_can_be_made_of_is_refused():
    config = optimizer_config(name="adamv", schedule="step", groups=("enc( rate=1", "mlm rite=2"))
    problems = optimizer_problems(config)
    assert problems[0] == "optimizer.name must be one of adamw, stable_adamw, lamb, muon, not 'adamv'"
    assert problems[1].startswith("optimizer.schedule must be one of linear, cosine, constant, wsd, original")
    assert "'enc( rate=1'" in problems[2] and "'rite=2' sets neither rate nor decay" in problems[3]


def test_rates_by_layer_scale_updates_and_frozen_layers_stay():
    changes = dict(learning_rate=0.1, warmup_steps=0, schedule="constant", weight_decay=0.0, clip_norm=0.0)
    params = {
        "encoder": {"layers": {"mlp": jnp.ones((3, 2))}, "embeddings": {"word": jnp.ones(2)}},
        "classification": {"output": jnp.ones(2)},
    }
    grads = jax.tree.map(jnp.ones_like, params)

    def updates(**more):
        tx = make_optimizer(optimizer_config(**changes, **more), 100)
        return flatten_dict(tx.update(grads, tx.init(params), params)[0], sep="/")

    plain, decayed = updates(), updates(layer_decay=0.5)
    frozen = updates(frozen_layers=1)
    for path, factors in {
        "encoder/layers/mlp": np.array([[0.125], [0.25], [0.5]]),
        "encoder/embeddings/word": 0.0625,
        "classification/output": 1.0,
    }.items():
        np.testing.assert_allclose(decayed[path], plain[path] * factors, rtol=1e-6)
    assert not frozen["encoder/embeddings/word"].any() and not frozen["encoder/layers/mlp"][0].any()
    np.testing.assert_array_equal(frozen["encoder/layers/mlp"][1:], plain["encoder/layers/mlp"][1:])

"""Averages of the parameters: against plain numpy, and that evaluation, export and new runs use them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from spanbert_jax.optimizers import make_optimizer, optimizer_problems
from spanbert_jax.optimizers.averages import averaged
from spanbert_jax.training.checkpoint import Checkpoints
from spanbert_jax.training.metrics import read_metrics
from spanbert_jax.training.pretrain import pretrain
from spanbert_jax.training.workdir import restore_run
from tests.small import small_config

SHAPES = {"encoder/layers/mlp/hidden/kernel": (2, 3, 4), "mlm/bias": (5,)}
SETTINGS = dict(learning_rate=0.1, warmup_steps=3, schedule="constant", weight_decay=0.2, clip_norm=0.0, eps=1e-8)
BETA1, BETA2 = 0.9, 0.95


def optimizer_config(**changes):
    config = small_config().optimizer
    config.update(SETTINGS | dict(beta1=BETA1, beta2=BETA2) | changes)
    return config


def some(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {path: rng.normal(size=shape).astype(np.float32) for path, shape in SHAPES.items()}


def gradient(step: int, params: dict) -> dict:
    """Depends on the parameters, so that it matters where it is taken."""
    return {path: noise + 0.5 * params[path] for path, noise in some(step).items()}


def trajectory(steps: int, **changes) -> list[tuple[dict, dict]]:
    """(parameters, average) after each step."""
    tx = make_optimizer(optimizer_config(**changes), 100)
    params = unflatten_dict({path: jnp.asarray(leaf) for path, leaf in some(0).items()}, sep="/")
    state, found = tx.init(params), []
    for step in range(1, steps + 1):
        grads = unflatten_dict(gradient(step, flatten_dict(params, sep="/")), sep="/")
        updates, state = tx.update(grads, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        found.append((flatten_dict(params, sep="/"), flatten_dict(averaged(params, state), sep="/")))
    return found


def test_the_moving_average_is_that_of_numpy_and_leaves_the_trajectory_alone():
    plain, both = trajectory(12), trajectory(12, average="ema", average_decay=0.3)
    for path in SHAPES:
        mean = 0.0
        for n, ((params, average), (alone, same)) in enumerate(zip(both, plain)):
            np.testing.assert_array_equal(params[path], alone[path])
            np.testing.assert_array_equal(same[path], alone[path])  # nothing is averaged
            decay = min(0.3, n / (n + 9))
            mean = decay * mean + (1 - decay) * np.asarray(params[path], np.float64)
            np.testing.assert_allclose(average[path], mean, rtol=1e-5, atol=1e-6)


def test_schedule_free_adamw_is_that_of_numpy():
    steps = trajectory(10, average="schedule_free")
    y = {path: value.astype(np.float64) for path, value in some(0).items()}
    z, x = dict(y), dict(y)
    v, total, largest = {path: np.zeros(shape) for path, shape in SHAPES.items()}, 0.0, 0.0
    for step, (params, average) in enumerate(steps, 1):
        grads = gradient(step, y)
        rate = 0.1 * min(step / 3, 1)
        largest = max(largest, rate)
        total += largest**2
        for path, g in grads.items():
            v[path] = BETA2 * v[path] + (1 - BETA2) * g**2
            update = g / (np.sqrt(v[path] / (1 - BETA2**step)) + 1e-8)
            update = update + (0.2 * y[path] if path.endswith("kernel") else 0.0)
            z[path] = z[path] - rate * update
            x[path] = x[path] + largest**2 / total * (z[path] - x[path])
            y[path] = (1 - BETA1) * z[path] + BETA1 * x[path]
            np.testing.assert_allclose(params[path], y[path], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(average[path], x[path], rtol=1e-4, atol=1e-5)


def test_frozen_layers_stay_under_an_average_too():
    kernel = "encoder/layers/mlp/hidden/kernel"
    for average in ("ema", "schedule_free"):
        for params, mean in trajectory(4, average=average, frozen_layers=1):
            np.testing.assert_array_equal(params[kernel][0], some(0)[kernel][0])
            np.testing.assert_allclose(mean[kernel][0], some(0)[kernel][0], rtol=1e-6)
            assert np.any(params[kernel][1] != some(0)[kernel][1])


@pytest.mark.parametrize("average", ["ema", "schedule_free"])
def test_evaluation_and_trained_models_use_the_average(tmp_path, store, average):
    config = small_config(
        total_steps=4,
        data__store=str(store.folder),
        optimizer__average=average,
        optimizer__schedule="constant",
        checkpoint__every=4,
        eval__every=4,
        mesh__data=4,
        mesh__fsdp=2,
    )
    assert pretrain(config, tmp_path / "run") == 0
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", read_only=True)
    state = checkpoints.read(4)
    checkpoints.close()
    trained = flatten_dict(jax.device_get(restore_run(tmp_path / "run").params), sep="/")
    average_of_run = flatten_dict(state["opt_state"]["average"]["params"], sep="/")
    for path, leaf in flatten_dict(state["params"], sep="/").items():
        np.testing.assert_array_equal(trained[path], average_of_run[path])
        assert trained[path].shape == leaf.shape
    assert np.any(trained["encoder/embeddings/word"] != state["params"]["encoder"]["embeddings"]["word"])

    # A run that starts from this one, and learns nothing, evaluates to the same loss.
    config.update_from_flattened_dict(
        {"init.path": str(tmp_path / "run"), "optimizer.average": "none", "optimizer.frozen_layers": 2}
    )
    config.optimizer.groups = (".* rate=0",)
    config.total_steps = config.eval.every = config.checkpoint.every = 3
    assert pretrain(config, tmp_path / "again") == 0
    first, second = (
        next(line for line in read_metrics(tmp_path / name) if "eval/mlm_loss" in line) for name in ("run", "again")
    )
    assert second["eval/mlm_loss"] == pytest.approx(first["eval/mlm_loss"], rel=1e-6)


def test_what_cannot_be_averaged_is_refused():
    assert not optimizer_problems(optimizer_config(average="ema", name="muon", schedule="linear"))
    problems = optimizer_problems(optimizer_config(average="schedule_free", name="muon", schedule="linear", beta1=0.0))
    assert len(problems) == 3 and "optimizer.name 'adamw', not 'muon'" in problems[0]
    assert "optimizer.schedule 'constant', not 'linear'" in problems[1] and "beta1" in problems[2]
    assert optimizer_problems(optimizer_config(average="mean")) == [
        "optimizer.average must be one of none, ema, schedule_free, not 'mean'"
    ]

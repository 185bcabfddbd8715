"""StableAdamW and LAMB against plain numpy, each layer of a stacked parameter as a tensor of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from spanbert_jax.optimizers import make_optimizer
from tests.small import small_config

LAYERS, RATE, DECAY, BETA1, BETA2, EPS = 3, 0.1, 0.3, 0.8, 0.9, 1e-3
KERNEL, SCALE, WORD, BIAS = (
    "encoder/layers/mlp/hidden/kernel",
    "encoder/layers/mlp/norm/scale",
    "encoder/embeddings/word",
    "mlm/bias",
)
SHAPES = {KERNEL: (LAYERS, 4, 6), SCALE: (LAYERS, 4), WORD: (7, 4), BIAS: (7,)}


def some(seed: int, size: float = 1.0) -> dict[str, np.ndarray]:
    """Values of every parameter; those of the second layer are ten times as large."""
    rng = np.random.default_rng(seed)
    values = {path: size * rng.normal(size=shape) for path, shape in SHAPES.items()}
    for path in (KERNEL, SCALE):
        values[path][1] *= 10
    return {path: value.astype(np.float32) for path, value in values.items()}


def gradients(step: int) -> dict[str, np.ndarray]:
    return some(step, size=30.0 if step == 4 else 1.0)  # step 4 is a spike


def trajectory(steps: int, **changes) -> dict:
    config = small_config().optimizer
    settings = dict(learning_rate=RATE, warmup_steps=0, schedule="constant", weight_decay=DECAY, clip_norm=0.0)
    config.update(settings | dict(beta1=BETA1, beta2=BETA2, eps=EPS) | changes)
    tx = make_optimizer(config, 100)
    params = unflatten_dict({path: jnp.asarray(leaf) for path, leaf in some(0).items()}, sep="/")
    state = tx.init(params)
    for step in range(1, steps + 1):
        updates, state = tx.update(unflatten_dict(gradients(step), sep="/"), state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return flatten_dict(params, sep="/")


def tensors(path: str):
    """Indices of the tensors that a parameter consists of."""
    return range(LAYERS) if path.startswith("encoder/layers/") else [...]


def plain(name: str, steps: int, path: str) -> np.ndarray:
    """The parameter after some steps, one tensor at a time."""
    result = some(0)[path].astype(np.float64)
    for tensor in tensors(path):
        p = result[tensor].copy()
        m, v = np.zeros_like(p), np.zeros_like(p)
        decay = DECAY if path in (KERNEL, WORD) else 0.0
        for step in range(1, steps + 1):
            g = gradients(step)[path][tensor].astype(np.float64)
            m, v = BETA1 * m + (1 - BETA1) * g, BETA2 * v + (1 - BETA2) * g**2
            m_hat, v_hat = m / (1 - BETA1**step), v / (1 - BETA2**step)
            update = m_hat / (np.sqrt(v_hat) + EPS) + decay * p
            if name == "stable_adamw":
                update /= max(1.0, np.sqrt(np.mean(g**2 / np.maximum(v_hat, EPS**2))))
            elif path in (KERNEL, WORD):
                update *= np.linalg.norm(p) / np.linalg.norm(update)
            p -= RATE * update
        result[tensor] = p
    return result


@pytest.mark.parametrize("name", ["stable_adamw", "lamb"])
def test_trajectories_are_those_of_numpy(name):
    for path, leaf in trajectory(6, name=name).items():
        np.testing.assert_allclose(leaf, plain(name, 6, path), rtol=2e-5, atol=2e-5, err_msg=path)


def test_a_spike_moves_stable_adamw_less_than_adamw():
    before, stable, adamw = trajectory(3, name="stable_adamw"), trajectory(4, name="stable_adamw"), trajectory(4)
    plain_before = trajectory(3)
    for path in (KERNEL, WORD):
        moved, plain_moved = (
            np.linalg.norm(stable[path] - before[path]),
            np.linalg.norm(adamw[path] - plain_before[path]),
        )
        assert moved < 0.6 * plain_moved


@pytest.mark.parametrize("name", ["stable_adamw", "lamb"])
def test_frozen_layers_and_moments_in_bfloat16_work_with_them(name):
    frozen, plain = trajectory(1, name=name, frozen_layers=1), trajectory(1, name=name)
    assert np.array_equal(frozen[KERNEL][0], some(0)[KERNEL][0])
    np.testing.assert_array_equal(frozen[KERNEL][1:], plain[KERNEL][1:])
    halved = trajectory(3, name=name, state_dtype="bfloat16")
    np.testing.assert_allclose(halved[KERNEL], trajectory(3, name=name)[KERNEL], atol=0.3)


def test_a_tensor_of_zeros_moves_under_lamb():
    config = small_config().optimizer
    config.update(dict(name="lamb", learning_rate=RATE, warmup_steps=0, schedule="constant", clip_norm=0.0))
    tx = make_optimizer(config, 10)
    params = {"kernel": jnp.zeros((2, 2)), "other": {"kernel": jnp.ones(2)}}
    grads = {"kernel": jnp.ones((2, 2)), "other": {"kernel": jnp.zeros(2)}}
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -RATE, rtol=1e-5)
    assert np.isfinite(updates["other"]["kernel"]).all()

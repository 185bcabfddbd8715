"""Muon: against plain numpy, its matrices, its singular values, and how it treats groups and frozen layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from spanbert_jax.model.layout import param_path
from spanbert_jax.optimizers import make_optimizer
from spanbert_jax.optimizers.muon import ITERATIONS, newton_schulz, normalised
from tests.small import small_config

LAYERS, D, H, K, F = 3, 8, 2, 3, 20
SHAPES = {
    "encoder/embeddings/word": (11, D),
    "encoder/layers/attention/query/kernel": (LAYERS, D, H, K),
    "encoder/layers/attention/output/kernel": (LAYERS, H, K, D),
    "encoder/layers/attention/output/bias": (LAYERS, D),
    "encoder/layers/mlp/hidden/kernel": (LAYERS, D, F),
    "encoder/layers/mlp/output/kernel": (LAYERS, F, D),
    "mlm/transform/kernel": (D, D),
    "sbo/linear1/kernel": (2 * D + 4, D),
    "nsp/output/kernel": (D, 2),
    "sbo/positions": (5, 4),
}
SETTINGS = dict(
    name="muon",
    learning_rate=0.1,
    warmup_steps=0,
    schedule="constant",
    weight_decay=0.3,
    clip_norm=0.0,
    eps=1e-8,
    matrix_rate=1.5,
    matrix_momentum=0.9,
)


def optimizer_config(**changes):
    config = small_config().optimizer
    config.update(SETTINGS | changes)
    return config


def some(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    return {path: rng.normal(size=shape).astype(np.float32) for path, shape in SHAPES.items()}


def trajectory(steps: int, **changes) -> dict:
    """The parameters after some steps, of gradients that do not depend on them."""
    tx = make_optimizer(optimizer_config(**changes), 100)
    params = unflatten_dict({path: jnp.asarray(leaf) for path, leaf in some(0).items()}, sep="/")
    state = tx.init(params)
    for step in range(steps):
        grads = unflatten_dict(some(1 + step), sep="/")
        updates, state = tx.update(grads, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    return flatten_dict(params, sep="/")


def plain_orthogonal(matrix: np.ndarray) -> np.ndarray:
    x = matrix / np.linalg.norm(matrix)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x - 4.7750 * gram @ x + 2.0315 * gram @ gram @ x
    return x


def plain_muon(steps: int, path: str) -> np.ndarray:
    """Muon of one kernel, one matrix [input, output] at a time."""
    p = some(0)[path].astype(np.float64)
    average = np.zeros_like(p)
    layers = range(LAYERS) if path.startswith("encoder") else [...]
    inputs = {"attention/output": H * K, "mlp/output": F, "sbo/linear1": 2 * D + 4}.get(
        "/".join(path.split("/")[-3:-1]), D
    )
    for step in range(steps):
        g = some(1 + step)[path].astype(np.float64)
        average = 0.9 * average + 0.1 * g
        ahead = 0.9 * average + 0.1 * g
        for layer in layers:
            u = plain_orthogonal(ahead[layer].reshape(inputs, -1))
            u *= 0.2 * np.sqrt(max(u.shape))
            p[layer] -= 0.1 * 1.5 * (u.reshape(p[layer].shape) + 0.3 * p[layer])
    return p


def test_kernels_but_for_outputs_follow_muon_in_numpy_and_the_rest_adamw():
    muon, adamw = trajectory(6), trajectory(6, name="adamw")
    for path, leaf in muon.items():
        if path.endswith("kernel") and path != "nsp/output/kernel":
            np.testing.assert_allclose(leaf, plain_muon(6, path), atol=2e-5, err_msg=path)
        else:
            np.testing.assert_array_equal(leaf, adamw[path], err_msg=path)


@pytest.mark.parametrize("shape", [(32, 64), (64, 32)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_singular_values_become_about_one(shape, dtype):
    x = np.random.default_rng(0).normal(size=(4, *shape)) * np.array([1e-12, 1, 1e5, 0])[:, None, None]
    result = newton_schulz(normalised(jnp.asarray(x, jnp.float32)).astype(dtype))
    assert result.shape == x.shape and result.dtype == dtype
    values = np.linalg.svd(np.asarray(result[:3], np.float32), compute_uv=False)
    assert values.min() > 0.6 and values.max() < 1.25
    assert not np.any(np.asarray(result[3]))  # no gradient, no update


def test_the_iteration_is_a_loop():
    text = str(jax.make_jaxpr(newton_schulz)(jnp.zeros((2, 4, 6))))
    assert text.count("dot_general") == 3 and ITERATIONS > 1


def test_groups_frozen_layers_and_moments_in_bfloat16_work_with_it():
    start, plain = some(0), trajectory(1)
    path = "encoder/layers/mlp/hidden/kernel"
    grouped = trajectory(1, groups=("encoder/layers/mlp/.* rate=0.5 decay=0",), weight_decay=0.0)
    undecayed = trajectory(1, weight_decay=0.0)
    np.testing.assert_allclose(grouped[path] - start[path], (undecayed[path] - start[path]) / 2, rtol=1e-4, atol=1e-6)
    frozen = trajectory(1, frozen_layers=1)
    assert np.array_equal(frozen[path][0], start[path][0]) and np.array_equal(frozen[path][1:], plain[path][1:])
    halved = trajectory(4, state_dtype="bfloat16")
    np.testing.assert_allclose(halved[path], trajectory(4)[path], atol=0.05)

    tx = make_optimizer(optimizer_config(state_dtype="bfloat16"), 100)
    shapes = jax.eval_shape(tx.init, unflatten_dict(some(0), sep="/"))
    moments = {param_path(at): leaf.dtype for at, leaf in jax.tree_util.tree_leaves_with_path(shapes) if leaf.ndim}
    assert set(moments.values()) == {jnp.dtype("bfloat16")}
    assert sum(path in at for at in moments) == 1  # a matrix has one moment, not two

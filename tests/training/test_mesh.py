"""The same run on every mesh, with and without accumulation, packed and unpacked: equal losses, gradients and
trajectories.
"""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from spanbert_jax.model.encoder import FIELDS
from spanbert_jax.model.layout import ONE_DEVICE
from spanbert_jax.objectives import MLM, SBO, pretraining
from spanbert_jax.training import sharding
from spanbert_jax.training.pretraining import pretraining_program
from tests.small import batches_of, small_config, small_program

STEPS = 20
ONE = (1, (1, 1, 1))
MESHES = [
    (data, 8 // data // tensor, tensor) for data in (1, 2, 4, 8) for tensor in (1, 2, 4, 8) if 8 % (data * tensor) == 0
]  # all of 8 devices


def trajectory(store, devices, shape, **changes):
    """(losses of each step, gradient norms, parameters at the end), dropout on."""
    changes = dict(model__heads=8) | changes
    config = small_config(**dict(zip(("mesh__data", "mesh__fsdp", "mesh__tensor"), shape)), **changes)
    program = small_program(config, devices)
    state, metrics = program.init(None), []
    for _, batch in zip(range(STEPS), batches_of(store, config)):
        state, step_metrics = program.train_step(state, program.put(batch))
        metrics.append(jax.device_get(step_metrics))
    return (
        [m["loss"] for m in metrics],
        [m["gradient_norm"] for m in metrics],
        flatten_dict(jax.device_get(state.params), sep="/"),
    )


@pytest.fixture(scope="module")
def one_device(store):
    return trajectory(store, *ONE)


PAIRS = dict(data__blocks="pair", data__max_blocks_per_row=1, objectives__nsp_weight=1.0, objectives__sbo_weight=0.0)


@pytest.fixture(scope="module")
def one_device_pairs(store):
    return trajectory(store, *ONE, **PAIRS)


def assert_same(run, reference):
    """Loss and gradient of the first steps to rounding; then that of rounding which Adam magnifies where gradients are
    tiny.
    """
    np.testing.assert_allclose(run[0][:5], reference[0][:5], rtol=1e-5)
    np.testing.assert_allclose(run[1][:5], reference[1][:5], rtol=1e-4)
    np.testing.assert_allclose(run[0], reference[0], rtol=1e-4)
    np.testing.assert_allclose(run[1], reference[1], rtol=1e-2)
    for path, leaf in run[2].items():
        np.testing.assert_allclose(leaf, reference[2][path], atol=5e-3, err_msg=path)


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_meshes_agree(store, one_device, shape):
    assert_same(trajectory(store, 8, shape), one_device)


def test_slices_agree(store, one_device):
    assert_same(trajectory(store, 8, (4, 2, 1), mesh__slices=2), one_device)


@pytest.mark.parametrize("devices, shape, accumulation", [(*ONE, 4), (8, (2, 4, 1), 2), (8, (2, 2, 2), 4)], ids=str)
def test_accumulation_agrees_dropout_and_all(store, one_device, devices, shape, accumulation):
    assert_same(trajectory(store, devices, shape, accumulation=accumulation), one_device)


@pytest.mark.parametrize("devices, shape, accumulation", [(8, (2, 2, 2), 1), (*ONE, 4)], ids=str)
def test_pairs_with_next_sentence_prediction_agree_too(store, one_device_pairs, devices, shape, accumulation):
    assert_same(trajectory(store, devices, shape, accumulation=accumulation, **PAIRS), one_device_pairs)


def test_a_vocabulary_that_does_not_divide_agrees_too(store):
    """4,099 tokens on tensor=8: rounded up to 4,104, of which five are never predicted and get no gradient."""

    def run(devices, shape):
        config = small_config(model__heads=8, **dict(zip(("mesh__data", "mesh__fsdp", "mesh__tensor"), shape)))
        mesh = sharding.make_mesh(config.mesh, jax.devices()[:devices])
        program = pretraining_program(config, mesh, 4099)
        state, losses = program.init(None), []
        for _, batch in zip(range(3), batches_of(store, config)):
            state, metrics = program.train_step(state, program.put(batch))
            losses.append(float(metrics["loss"]))
        return mesh, losses, jax.device_get(state.params["encoder"]["embeddings"]["word"])

    (mesh, losses, word), (_, alone, expected) = run(8, (1, 1, 8)), run(*ONE)
    assert sharding.layout_on(mesh, False).vocab_multiple == 8 and word.shape == expected.shape == (4099, 32)
    np.testing.assert_allclose(losses, alone, rtol=1e-5)
    np.testing.assert_allclose(word, expected, atol=1e-4)


def test_the_loss_falls(one_device):
    assert one_device[0][-1] < one_device[0][0] - 0.2


def unpacked(batch):
    """The blocks of packed rows as rows of their own, with the same masks and slots."""
    blocks = []
    for row in range(len(batch["tokens"])):
        for number in range(1, batch["segments"][row].max() + 1):
            places = np.flatnonzero(batch["segments"][row] == number)
            first, count = places[0], len(places)
            block = {name: np.zeros_like(batch[name][row]) for name in batch}
            for name in FIELDS:
                block[name][:count] = batch[name][row, places]
            block["segments"][:count] = 1
            mine = np.isin(batch["mlm_positions"][row], places) & (batch["mlm_weights"][row] > 0)
            for name in batch:
                if name.startswith(("mlm_", "sbo_")):
                    block[name][: mine.sum()] = batch[name][row, mine]
            for name in ("mlm_positions", "sbo_left", "sbo_right"):
                block[name][: mine.sum()] -= first
            block["sbo_left"], block["sbo_right"] = np.maximum(block["sbo_left"], 0), np.maximum(block["sbo_right"], 0)
            blocks.append(block)
    return {name: np.stack([block[name] for block in blocks]) for name in batch}


def test_packed_and_unpacked_rows_have_the_same_loss_and_gradient(store):
    config = small_config(data__max_blocks_per_row=4)
    program = small_program(config, 1)
    params = program.init(None).params
    packed = next(batches_of(store, config))
    alone = unpacked(packed)
    assert len(alone["tokens"]) > len(packed["tokens"])

    def loss(params, batch):
        outputs = pretraining.apply(program.spec, ONE_DEVICE, (MLM, SBO), params, batch)
        counts = pretraining.batch_counts(batch, (MLM, SBO), config.objectives)
        return pretraining.loss_and_sums(outputs, batch, counts, (MLM, SBO), config.objectives)[0]

    (a, grads_a), (b, grads_b) = (jax.jit(jax.value_and_grad(loss))(params, batch) for batch in (packed, alone))
    np.testing.assert_allclose(a, b, rtol=1e-6)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), grads_a, grads_b)

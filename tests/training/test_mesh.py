"""The same run on every mesh, with and without accumulation, packed and unpacked: equal losses, gradients and trajectories."""

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from spanbert_jax import objectives
from spanbert_jax.errors import InputError
from spanbert_jax.model import spanbert
from spanbert_jax.training import sharding
from tests.small import batches_of, small_config, small_program

STEPS = 5
MESHES = {
    "one device": (1, (1, 1, 1)),
    "data=8": (8, (8, 1, 1)),
    "fsdp=8": (8, (1, 8, 1)),
    "data=2,fsdp=4": (8, (2, 4, 1)),
    "data=2,fsdp=2,tensor=2": (8, (2, 2, 2)),
    "data=2,tensor=4": (8, (2, 1, 4)),
}


def trajectory(store, devices, shape, **changes):
    """(losses of each step, gradient norms, parameters at the end), dropout on."""
    config = small_config(**dict(zip(("mesh__data", "mesh__fsdp", "mesh__tensor"), shape)), **changes)
    program = small_program(config, devices)
    state, metrics = program.init(None), []
    for _, batch in zip(range(STEPS), batches_of(store, config)):
        state, step_metrics = program.train_step(state, sharding.put_batch(program.mesh, batch))
        metrics.append(jax.device_get(step_metrics))
    return [m["loss"] for m in metrics], [m["gradient_norm"] for m in metrics], flatten_dict(jax.device_get(state.params), sep="/")


@pytest.fixture(scope="module")
def one_device(store):
    return trajectory(store, *MESHES["one device"])


PAIRS = dict(data__blocks="pair", data__max_blocks_per_row=1, objectives__nsp_weight=1.0, objectives__sbo_weight=0.0)


@pytest.fixture(scope="module")
def one_device_pairs(store):
    return trajectory(store, *MESHES["one device"], **PAIRS)


def assert_same(run, reference):
    np.testing.assert_allclose(run[0], reference[0], rtol=1e-5)
    np.testing.assert_allclose(run[1], reference[1], rtol=1e-4)
    for path, leaf in run[2].items():
        np.testing.assert_allclose(leaf, reference[2][path], atol=1e-3, err_msg=path)  # Adam magnifies rounding where gradients are tiny


@pytest.mark.parametrize("name", list(MESHES)[1:])
def test_meshes_agree(store, one_device, name):
    assert_same(trajectory(store, *MESHES[name]), one_device)


@pytest.mark.parametrize("name, accumulation", [("one device", 4), ("data=2,fsdp=4", 2), ("data=2,fsdp=2,tensor=2", 4)])
def test_accumulation_agrees_dropout_and_all(store, one_device, name, accumulation):
    assert_same(trajectory(store, *MESHES[name], accumulation=accumulation), one_device)


@pytest.mark.parametrize("name, accumulation", [("data=2,fsdp=2,tensor=2", 1), ("one device", 4)])
def test_pairs_with_next_sentence_prediction_agree_too(store, one_device_pairs, name, accumulation):
    assert_same(trajectory(store, *MESHES[name], accumulation=accumulation, **PAIRS), one_device_pairs)


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
            for name in spanbert.ENCODER_FIELDS:
                block[name][:count] = batch[name][row, places]
            block["segments"][:count] = 1
            mine = np.isin(batch["mlm_positions"][row], places) & (batch["mlm_weights"][row] > 0)
            for name in batch:
                if name.startswith(("mlm_", "sbo_")):
                    block[name][:mine.sum()] = batch[name][row, mine]
            for name in ("mlm_positions", "sbo_left", "sbo_right"):
                block[name][:mine.sum()] -= first
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
        logits = spanbert.apply(program.spec, params, batch)
        return objectives.loss_and_sums(logits, batch, objectives.batch_counts(batch, config.objectives), config.objectives)[0]

    (a, grads_a), (b, grads_b) = (jax.jit(jax.value_and_grad(loss))(params, batch) for batch in (packed, alone))
    np.testing.assert_allclose(a, b, rtol=1e-6)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), grads_a, grads_b)


def test_every_parameter_matches_one_rule_and_shards_on_a_mesh():
    config = small_config(mesh__data=2, mesh__fsdp=2, mesh__tensor=2)
    program = small_program(config, 8)
    for path, leaf in flatten_dict(program.state.params, sep="/").items():
        assert leaf.sharding.spec == sharding.spec_of(path)
    bytes_of = lambda leaf: leaf.size * leaf.dtype.itemsize
    leaves = jax.tree.leaves((program.state.params, program.state.opt_state))
    replicated = sum(bytes_of(leaf) for leaf in leaves if leaf.sharding.is_fully_replicated)
    assert replicated < 0.1 * sum(map(bytes_of, leaves))  # norms and small biases; less than 1 % at real widths
    with pytest.raises(ValueError, match="matches 0 sharding rules"):
        sharding.spec_of("encoder/novelty/kernel")


def test_state_is_born_sharded():
    program = small_program(small_config(mesh__data=1, mesh__fsdp=8), 8)
    word = program.init(None).params["encoder"]["embeddings"]["word"]
    assert {shard.data.shape for shard in word.addressable_shards} == {(word.shape[0], word.shape[1] // 8)}


def test_mesh_sizes_that_do_not_fit_are_told():
    mesh = small_config().mesh
    assert sharding.mesh_shape(mesh, 8) == (8, 1, 1)
    mesh.update(dict(data=3, fsdp=1, tensor=1))
    with pytest.raises(InputError, match="data=3 x fsdp=1 x tensor=1 is for 3 devices, but there are 8"):
        sharding.mesh_shape(mesh, 8)
    mesh.update(dict(data=-1, fsdp=-1))
    with pytest.raises(InputError, match="one at most -1"):
        sharding.mesh_shape(mesh, 8)
    config = small_config(mesh__data=4, mesh__tensor=2, batch_size=6, model__heads=1)
    problems = sharding.validate(config, sharding.make_mesh(config.mesh, jax.devices()), 4096)
    assert len(problems) == 2 and "6 / 1 = 6 rows must be a multiple of mesh data x fsdp = 4" in problems[0] and "model.heads 1" in problems[1]

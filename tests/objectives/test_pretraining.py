"""The pretraining model against the original's numbers, and its invariances."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from spanbert_jax.model.dropout import row_seeds
from spanbert_jax.model.encoder import FIELDS, Encoder
from spanbert_jax.model.layout import ONE_DEVICE
from spanbert_jax.model.spec import model_spec
from spanbert_jax.objectives import MLM, SBO, pretraining
from tests.model import golden
from tests.small import small_config

SPEC = golden.SPEC
OBJECTIVES = MLM, SBO
OPTIONS = ConfigDict(dict(mlm_weight=1.0, sbo_weight=1.0, nsp_weight=0.0, sbo_count_offset=1, z_loss=0.0))
SHAPES = {
    path: leaf.shape
    for path, leaf in flatten_dict(
        jax.eval_shape(lambda: pretraining.init_params(SPEC, OBJECTIVES, jax.random.key(0))), sep="/"
    ).items()
}


@pytest.fixture(scope="module")
def params():
    return unflatten_dict(golden.tree_of("w/", SHAPES), sep="/")


def loss(params, batch, spec=SPEC, seeds=None):
    outputs = pretraining.apply(spec, ONE_DEVICE, OBJECTIVES, params, batch, seeds)
    counts = pretraining.batch_counts(batch, OBJECTIVES, OPTIONS)
    return pretraining.loss_and_sums(outputs, batch, counts, OBJECTIVES, OPTIONS)


def test_hidden_states_are_the_originals(params):
    batch = golden.batch()
    fields = (batch[name] for name in FIELDS)
    last, layers = Encoder(SPEC, ONE_DEVICE).apply({"params": params["encoder"]}, *fields, None, True)
    text = batch["segments"] == 1  # what padding reads does not matter
    assert 0 < text.sum() < text.size
    np.testing.assert_allclose(last[text], golden.GOLDEN["encoder_last"][text], atol=1e-5)
    np.testing.assert_allclose(layers[0][text], golden.GOLDEN["encoder_layer0"][text], atol=1e-5)


def test_logits_are_the_originals(params):
    batch = golden.batch()
    logits = pretraining.apply(SPEC, ONE_DEVICE, OBJECTIVES, params, batch)
    text, rows = batch["segments"] == 1, batch["sbo_left"] > 0
    np.testing.assert_allclose(logits["mlm"][text], golden.GOLDEN["lm_logits"][text], atol=1e-5)
    np.testing.assert_allclose(
        logits["sbo"][rows], golden.GOLDEN["pair_logits"].reshape(logits["sbo"].shape)[rows], atol=1e-5
    )


@pytest.mark.parametrize("change", [{}, {"remat": "full"}, {"remat": "dots"}, {"scan_unroll": 3}], ids=str)
def test_loss_and_gradients_are_the_originals(params, change):
    spec = dataclasses.replace(SPEC, **change)
    (value, sums), grads = jax.jit(jax.value_and_grad(lambda p: loss(p, golden.batch(), spec), has_aux=True))(params)
    np.testing.assert_allclose(value, golden.GOLDEN["loss"], rtol=1e-6)
    np.testing.assert_allclose(sums["mlm"]["loss"], golden.GOLDEN["lm_loss_sum"], rtol=1e-6)
    np.testing.assert_allclose(sums["sbo"]["loss"], golden.GOLDEN["pair_loss_sum"], rtol=1e-6)
    # The original divides its gradient once more, by the number of MLM targets (docs/original.md, quirk 10); the golden
    # gradients are those before that.
    expected = golden.tree_of("g/", SHAPES)
    for path, grad in flatten_dict(grads, sep="/").items():
        np.testing.assert_allclose(grad, expected[path], atol=1e-5, err_msg=path)


def test_padding_is_never_read(params):
    batch = {name: np.array(array) for name, array in golden.batch().items()}
    before, _ = loss(params, batch)
    batch["tokens"][batch["segments"] == 0] = 5
    assert loss(params, batch)[0] == before


def test_packed_blocks_give_the_logits_of_blocks_alone(params):
    rng = np.random.default_rng(0)
    lengths = (9, 14, 7)
    blocks = [rng.integers(1, 97, length).astype(np.int32) for length in lengths]
    packed = np.concatenate(blocks)[None]
    ones = np.zeros_like(packed)
    positions = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])[None]
    segments = np.repeat(np.arange(1, 4, dtype=np.int32), lengths)[None]

    def encode(*fields):
        return Encoder(SPEC, ONE_DEVICE).apply({"params": params["encoder"]}, *fields)

    together = encode(packed, segments, positions, ones)[0]
    alone = [
        encode(block[None], np.ones_like(block)[None], np.arange(len(block))[None], np.zeros_like(block)[None])[0]
        for block in blocks
    ]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-5)


def test_bfloat16_stays_close_and_keeps_float32_parameters(params):
    spec = dataclasses.replace(SPEC, dtype=jnp.dtype("bfloat16"))
    value, grads = jax.value_and_grad(lambda p: loss(p, golden.batch(), spec)[0])(params)
    assert abs(value - golden.GOLDEN["loss"]) < 0.05
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype("float32")}


def test_dropout_changes_the_loss_and_only_with_seeds(params):
    batch = golden.batch()
    seeds = [row_seeds(jax.random.key(n), 3) for n in (0, 0, 1)]
    first, again, other = (loss(params, batch, seeds=seed)[0] for seed in seeds)
    assert first == again and first != other and first != loss(params, batch)[0]


def test_an_objective_that_is_left_out_has_no_head():
    params = pretraining.init_params(SPEC, (MLM,), jax.random.key(0))
    assert set(params) == {"encoder", "mlm"}
    assert set(pretraining.apply(SPEC, ONE_DEVICE, (MLM,), params, golden.batch())) == {"mlm"}


def test_initial_parameters_follow_bert():
    params = flatten_dict(pretraining.init_params(SPEC, OBJECTIVES, jax.random.key(0)), sep="/")
    for path, leaf in params.items():
        if path.endswith("/bias"):
            assert not np.any(leaf), path
        elif path.endswith("/scale"):
            assert np.all(leaf == 1), path
        else:
            assert abs(np.std(leaf) / 0.02 - 1) < 4 / np.sqrt(2 * leaf.size), path


def test_logits_are_float32_whatever_the_type_of_activations():
    """Rounding to bfloat16 would leave 8 bits: among 1,000 logits almost none would need more."""
    config = small_config(model__dtype="bfloat16", data__blocks="pair", objectives__nsp_weight=1.0)
    spec, heads = model_spec(config, 100, "cpu"), pretraining.with_heads(config)
    shapes = pretraining.batch_shapes(config, 4, 64)
    batch = {name: jnp.ones(leaf.shape, leaf.dtype) for name, leaf in shapes.items()}
    batch["tokens"] = jnp.arange(64 * config.seq_len, dtype=jnp.int32).reshape(64, -1) % 100
    params = pretraining.init_params(spec, heads, jax.random.key(0))
    for name, logits in pretraining.apply(spec, ONE_DEVICE, heads, params, batch).items():
        assert logits.dtype == jnp.float32
        rounded = logits.astype(jnp.bfloat16).astype(jnp.float32)
        assert (rounded != logits).mean() > 0.9, name


def test_z_loss_adds_the_squared_denominators_to_the_loss_and_to_nothing_else(params):
    batch = golden.batch()
    outputs = pretraining.apply(SPEC, ONE_DEVICE, OBJECTIVES, params, batch)
    counts = pretraining.batch_counts(batch, OBJECTIVES, OPTIONS)
    options = ConfigDict(OPTIONS.to_dict() | {"z_loss": 0.5, "sbo_weight": 2.0})
    total, sums = pretraining.loss_and_sums(outputs, batch, counts, OBJECTIVES, options)
    options.z_loss = 0.0
    plain, plain_sums = pretraining.loss_and_sums(outputs, batch, counts, OBJECTIVES, options)
    expected = 0.0
    for name, weight in (("mlm", 1.0), ("sbo", 2.0)):
        logits = np.asarray(outputs[name], np.float64)
        squares = np.log(np.exp(logits).sum(-1)) ** 2
        penalty = 0.5 * np.sum(np.asarray(batch[f"{name}_weights"]) * squares)
        np.testing.assert_allclose(sums[name].pop("z_loss"), penalty, rtol=1e-5)
        expected += weight * penalty / float(counts[name])
    np.testing.assert_allclose(total - plain, expected, rtol=1e-4)
    assert sums == plain_sums

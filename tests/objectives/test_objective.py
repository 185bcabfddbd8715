"""Losses as sums and counts."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from spanbert_jax.objectives import MLM, SBO, pretraining
from spanbert_jax.objectives.objective import cross_entropy_sum
from tests.small import small_config

RNG = np.random.default_rng(0)
BOTH = MLM, SBO
OPTIONS = ConfigDict(dict(mlm_weight=1.0, sbo_weight=0.5, nsp_weight=0.0, sbo_count_offset=0, z_loss=0.0))


def example(rows=4, slots=6, vocab=11):
    logits, batch = {}, {}
    for name in ("mlm", "sbo"):
        logits[name] = jnp.asarray(RNG.normal(size=(rows, slots, vocab)) * 5, jnp.float32)
        batch[f"{name}_targets"] = RNG.integers(0, vocab, (rows, slots)).astype(np.int32)
        batch[f"{name}_weights"] = (RNG.random((rows, slots)) < 0.7).astype(np.float32)
    return logits, batch


def test_cross_entropy_is_optaxs_in_value_and_gradient():
    logits, batch = example()
    targets, weights = batch["mlm_targets"], batch["mlm_weights"]

    def ours(x):
        return cross_entropy_sum(x, targets, weights)[0]

    def theirs(x):
        return jnp.sum(weights * optax.softmax_cross_entropy_with_integer_labels(x, targets))

    np.testing.assert_allclose(ours(logits["mlm"]), theirs(logits["mlm"]), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(ours)(logits["mlm"]), jax.grad(theirs)(logits["mlm"]), atol=1e-6)
    correct = cross_entropy_sum(logits["mlm"], targets, weights)[1]
    assert correct == np.sum(weights * (np.argmax(logits["mlm"], -1) == targets))


def test_enormous_logits_stay_finite():
    logits = jnp.asarray([[[1e30, -1e30, 0.0]]], jnp.float32)
    total, _ = cross_entropy_sum(logits, np.array([[0]]), np.ones((1, 1), np.float32))
    assert total == 0


def test_parts_add_up_to_the_whole():
    logits, batch = example()
    counts = pretraining.batch_counts(batch, BOTH, OPTIONS)
    whole, sums = pretraining.loss_and_sums(logits, batch, counts, BOTH, OPTIONS)

    def part(rows):
        of_rows = [{name: array[rows] for name, array in arrays.items()} for arrays in (logits, batch)]
        return pretraining.loss_and_sums(*of_rows, counts, BOTH, OPTIONS)

    first, second = part(slice(0, 1)), part(slice(1, 4))
    np.testing.assert_allclose(first[0] + second[0], whole, rtol=1e-6)
    averages = [sums[name]["loss"] / batch[f"{name}_weights"].sum() for name in ("mlm", "sbo")]
    np.testing.assert_allclose(whole, averages[0] + 0.5 * averages[1], rtol=1e-6)


def test_counts_are_never_zero_and_may_be_the_originals():
    _, batch = example()
    empty = jax.tree.map(np.zeros_like, batch)
    assert pretraining.batch_counts(empty, BOTH, OPTIONS) == {"mlm": 1.0, "sbo": 1.0}
    original = ConfigDict(OPTIONS.to_dict() | {"sbo_count_offset": 1})
    assert pretraining.batch_counts(batch, BOTH, original)["sbo"] == batch["sbo_weights"].sum() + 1


def test_an_objective_without_weight_is_not_trained_and_the_mlm_head_is_always_there():
    config = small_config(objectives__sbo_weight=0.0)
    assert pretraining.trained(config) == pretraining.with_heads(config) == (MLM,)
    config = small_config(objectives__mlm_weight=0.0)
    assert pretraining.trained(config) == (SBO,) and pretraining.with_heads(config) == BOTH
    assert set(pretraining.batch_shapes(config, 3, 2)) >= {"tokens", "mlm_targets", "sbo_left"}


def test_weights_of_unknown_objectives_are_refused():
    config = small_config()
    config.objectives.update(dict(mlm_weight=0.0, sbo_weight=0.0))
    assert pretraining.objective_problems(config) == ["objectives: give at least one of them a weight"]
    config.objectives.sbbo_weight = 1.0
    assert (
        "no objective has this weight; the registry has mlm_weight, sbo_weight, nsp_weight; did you mean sbo_weight?"
        in (pretraining.objective_problems(config)[0])
    )

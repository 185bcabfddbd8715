"""Losses as sums and counts."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from spanbert_jax import objectives

RNG = np.random.default_rng(0)
BOTH = ConfigDict(dict(mlm_weight=1.0, sbo_weight=0.5, nsp_weight=0.0, sbo_count_offset=0))


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
    ours = lambda x: objectives.cross_entropy_sum(x, targets, weights)[0]
    theirs = lambda x: jnp.sum(weights * optax.softmax_cross_entropy_with_integer_labels(x, targets))
    np.testing.assert_allclose(ours(logits["mlm"]), theirs(logits["mlm"]), rtol=1e-6)
    np.testing.assert_allclose(jax.grad(ours)(logits["mlm"]), jax.grad(theirs)(logits["mlm"]), atol=1e-6)
    correct = objectives.cross_entropy_sum(logits["mlm"], targets, weights)[1]
    assert correct == np.sum(weights * (np.argmax(logits["mlm"], -1) == targets))


def test_enormous_logits_stay_finite():
    logits = jnp.asarray([[[1e30, -1e30, 0.0]]], jnp.float32)
    total, _ = objectives.cross_entropy_sum(logits, np.array([[0]]), np.ones((1, 1), np.float32))
    assert total == 0


def test_parts_add_up_to_the_whole():
    logits, batch = example()
    counts = objectives.batch_counts(batch, BOTH)
    whole, sums = objectives.loss_and_sums(logits, batch, counts, BOTH)
    parts = [
        objectives.loss_and_sums(
            jax.tree.map(lambda x: x[rows], logits), jax.tree.map(lambda x: x[rows], batch), counts, BOTH
        )
        for rows in (slice(0, 1), slice(1, 4))
    ]
    np.testing.assert_allclose(parts[0][0] + parts[1][0], whole, rtol=1e-6)
    np.testing.assert_allclose(
        whole,
        sums["mlm_sum"] / batch["mlm_weights"].sum() + 0.5 * sums["sbo_sum"] / batch["sbo_weights"].sum(),
        rtol=1e-6,
    )


def test_counts_are_never_zero_and_may_be_the_originals():
    _, batch = example()
    empty = jax.tree.map(np.zeros_like, batch)
    assert objectives.batch_counts(empty, BOTH) == {"mlm": 1.0, "sbo": 1.0}
    original = ConfigDict(BOTH.to_dict() | {"sbo_count_offset": 1})
    assert objectives.batch_counts(batch, original)["sbo"] == batch["sbo_weights"].sum() + 1


def test_an_objective_without_weight_is_left_out():
    logits, batch = example()
    alone = ConfigDict(BOTH.to_dict() | {"sbo_weight": 0.0})
    assert objectives.enabled(alone) == ("mlm",)
    _, sums = objectives.loss_and_sums({"mlm": logits["mlm"]}, batch, objectives.batch_counts(batch, alone), alone)
    assert set(sums) == {"mlm_sum", "mlm_correct"}

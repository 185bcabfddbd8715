"""What one update does beside what the mesh tests hold."""

import dataclasses

import jax
import numpy as np
import pytest

from spanbert_jax.optimizers import make_optimizer
from spanbert_jax.training.step import make_train_step, microbatches
from tests.small import batches_of, small_config, small_program


def first_moments(store, **changes):
    """(Adam's first moments after one update without clipping, the batch)."""
    config = small_config(optimizer__clip_norm=0.0, **changes)
    program = small_program(config, 1)
    batch = next(batches_of(store, config))
    state, _ = program.train_step(program.init(None), program.put(batch))
    (adam,) = [
        part for part in jax.tree.leaves(state.opt_state, is_leaf=lambda x: hasattr(x, "mu")) if hasattr(part, "mu")
    ]
    return adam.mu, batch


def test_the_original_divides_gradients_by_the_targets_once_more(store):
    """Quirk 10 (docs/original.md 2.5)."""
    plain, batch = first_moments(store)
    divided, _ = first_moments(store, optimizer__divide_by_targets=True)
    targets = batch["mlm_weights"].sum()
    assert targets > 100
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a / targets, b, rtol=1e-5, atol=1e-10), plain, divided)


def test_microbatches_hold_every_row_once_and_stay_where_they_are():
    rows = np.arange(12).reshape(12, 1)
    parts = microbatches({"x": rows}, 3)["x"]
    assert parts.shape == (3, 4, 1) and sorted(parts.reshape(-1)) == list(range(12))
    assert np.array_equal(parts[0, :, 0], [0, 3, 6, 9])  # each device's rows spread over all microbatches


GROUPS = (".*bias rate=0.3 decay=0.7", ".*query.* decay=0.3")


def programs(**changes) -> list[str]:
    """The texts of what a run compiles."""
    program = small_program(small_config(**changes), 1)
    batch = program.batch_shapes(16)[0]
    return [program.train_step.lower(program.state, batch).as_text(), program.init.lower(None).as_text()]


@pytest.mark.parametrize("optimizer", [{}, dict(optimizer__groups=GROUPS), dict(optimizer__name="muon")], ids=str)
def test_runs_that_differ_in_scalars_have_one_compiled_program(optimizer):
    scalars = dict(
        seed=7,
        total_steps=50,
        optimizer__learning_rate=1e-4,
        optimizer__warmup_steps=9,
        optimizer__weight_decay=0.02,
        optimizer__schedule="wsd",
        optimizer__decay_steps=5,
    )
    before = programs(**optimizer)
    assert programs(**optimizer, **scalars) == before
    assert programs(**optimizer, optimizer__beta2=0.9)[0] != before[0]


@pytest.mark.parametrize("schedule", ["linear", "cosine", "original"])
def test_scalars_that_are_arguments_give_the_bits_of_constants(store, schedule):
    config = small_config(optimizer__groups=GROUPS, optimizer__schedule=schedule, optimizer__weight_decay=0.037)
    program = small_program(config, 1)

    def with_constants(scalars):
        return make_optimizer(config.optimizer, config.total_steps)

    step = make_train_step(program.trainable, with_constants, config.accumulation)
    constant = dataclasses.replace(program.train_step, function=jax.jit(step))
    states = [program.init(None), program.init(None)]
    for _, batch in zip(range(5), batches_of(store, config)):
        states = [step(state, program.put(batch))[0] for step, state in zip((program.train_step, constant), states)]
    one, other = ((state.params, state.opt_state) for state in states)
    assert jax.tree.all(jax.tree.map(np.array_equal, jax.device_get(one), jax.device_get(other)))

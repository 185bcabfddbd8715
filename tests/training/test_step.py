"""What one update does beside what the mesh tests hold."""

import jax
import numpy as np

from spanbert_jax.training.step import microbatches
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

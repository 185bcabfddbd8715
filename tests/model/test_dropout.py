"""Dropout: a fair, independent coin for each element, the same wherever the row is."""

import jax
import jax.numpy as jnp
import numpy as np

from spanbert_jax.model.dropout import dropout, fold_in, row_seeds


def kept(rows=64, shape=(64, 256), rate=0.1, key=0):
    seeds = row_seeds(jax.random.key(key), rows)
    return np.asarray(dropout(jnp.ones((rows, *shape)), rate, seeds) != 0)


def test_keeps_the_share_it_should_and_the_mean():
    for rate in (0.1, 0.5):
        mask = kept(rate=rate)
        sigma = np.sqrt(rate * (1 - rate) / mask.size)
        assert abs(mask.mean() - (1 - rate)) < 4 * sigma
        x = dropout(jnp.ones((64, 64, 256)), rate, row_seeds(jax.random.key(0), 64))
        assert abs(float(x.mean()) - 1) < 5 * sigma / (1 - rate)


def test_neighbours_rows_and_seeds_are_uncorrelated():
    mask = kept(rate=0.5).astype(np.float64) * 2 - 1
    other = kept(rate=0.5, key=1).astype(np.float64) * 2 - 1
    limit = 4.5 / np.sqrt(mask.size)
    for lag in (1, 2, 3, 7, 16, 32, 63):
        assert abs((mask[:, :, lag:] * mask[:, :, :-lag]).mean()) < 1.2 * limit
        assert abs((mask * np.roll(mask, lag, axis=0)).mean()) < limit
        assert abs((mask * np.roll(mask, lag, axis=1)).mean()) < limit
    assert abs((mask * other).mean()) < limit


def test_places_and_layers_get_other_masks():
    seeds = row_seeds(jax.random.key(0), 8)
    folded = np.stack([fold_in(fold_in(seeds, layer), place) for layer in range(24) for place in range(3)])
    assert len(np.unique(folded)) == folded.size


def test_a_rows_mask_does_not_depend_on_its_batch():
    x = jnp.arange(1.0, 8 * 5 * 3 + 1).reshape(8, 5, 3)
    seeds = row_seeds(jax.random.key(0), 8)
    whole = dropout(x, 0.3, seeds)
    assert np.array_equal(whole[3:6], dropout(x[3:6], 0.3, seeds[3:6]))


def test_no_seeds_or_no_rate_is_the_identity():
    x = jnp.ones((2, 3))
    assert dropout(x, 0.5, None) is x
    assert dropout(x, 0.0, row_seeds(jax.random.key(0), 2)) is x

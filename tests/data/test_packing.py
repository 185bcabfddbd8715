"""Packing fills rows like a plain best-fit-decreasing algorithm."""

import numpy as np
import pytest

from spanbert_jax.data.packing import pack_blocks


def test_packing_is_as_tight_as_plain_best_fit_decreasing():
    lengths = np.random.default_rng(2).integers(3, 65, 400)
    for limit in (2, 3, 8):
        remaining, count = [], []
        for length in -np.sort(-lengths):
            fitting = [row for row in range(len(remaining)) if remaining[row] >= length and count[row] < limit]
            if fitting:
                row = min(fitting, key=remaining.__getitem__)
                remaining[row], count[row] = remaining[row] - length, count[row] + 1
            else:
                remaining.append(64 - length)
                count.append(1)
        rows = pack_blocks(lengths, 64, limit).max() + 1
        assert rows == pytest.approx(len(remaining), abs=1)  # ties may be broken differently


@pytest.mark.parametrize(("limit", "rows"), [(1, 12), (2, 6), (3, 4), (4, 3), (8, 3)])
def test_packing_fills_rows_up_to_either_limit(limit, rows):
    assert sorted(np.bincount(pack_blocks(np.full(12, 4), 16, limit))) == [12 // rows] * rows

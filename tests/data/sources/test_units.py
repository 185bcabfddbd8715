"""Sizes, ranges and groups that sources are divided by."""

import types

import pytest

from spanbert_jax.data.sources.units import even_ranges, group, unit_size


@pytest.mark.parametrize("total, size", [(0, 4 << 20), (1 << 30, 4 << 20), (1 << 32, 1 << 24), (1 << 50, 1 << 30)])
def test_unit_size(total, size):
    assert unit_size(total) == size


def test_even_ranges_cover_everything_once():
    for length in range(1, 30):
        for count in range(1, 40):
            ranges = even_ranges(length, count)
            assert [offset for begin, end in ranges for offset in range(begin, end)] == list(range(length))
            sizes = [end - begin for begin, end in ranges]
            assert len(ranges) == min(count, length) and max(sizes) - min(sizes) <= 1


def test_groups_are_neighbours_of_at_most_the_target_size():
    items = [types.SimpleNamespace(size=size) for size in (1, 2, 3, 9, 1, 1, 5)]
    assert [[item.size for item in members] for members in group(items, 5)] == [[1, 2], [3], [9], [1, 1], [5]]

"""Orders: every row once an epoch, exact shares of several corpora, and any place reached at once."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from spanbert_jax.data import order as order_module
from spanbert_jax.data.order import Order, apportion


def order_of(size, epoch):
    return Order([size], [1.0], 3).at(epoch * size + tf.range(size, dtype=tf.int64))[1]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000, 1 << 16])
def test_orders_are_permutations_that_look_random(size):
    epochs = 20
    orders = [order_of(size, epoch).numpy() for epoch in range(epochs)]
    assert all((np.sort(order) == np.arange(size)).all() for order in orders)
    if size >= 64:
        rank = np.arange(size)
        bound = 4.5 / np.sqrt(size)  # a correlation of two random orders has standard deviation 1 / sqrt(size)
        for order, following in itertools.pairwise(orders):
            assert abs(np.corrcoef(order, rank)[0, 1]) < bound
            assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < bound
            assert abs(np.corrcoef(order, following)[0, 1]) < bound


SIZES, WEIGHTS = [7, 500, 30], [0.2, 0.5, 0.3]


@pytest.fixture
def short_cycle(monkeypatch):
    monkeypatch.setattr(order_module, "CYCLE", 100)


def numbers(order, start, count):
    """Epochs, corpora and rows within them, of `count` positions from `start` on."""
    epoch, row = (values.numpy() for values in order.at(start + tf.range(count, dtype=tf.int64)))
    corpus = np.searchsorted(np.cumsum(SIZES), row, "right")
    return epoch, corpus, row - (np.cumsum(SIZES) - SIZES)[corpus]


def test_corpora_are_drawn_from_as_their_weights_say_in_every_cycle(short_cycle):
    order = Order(SIZES, WEIGHTS, seed=5)
    _, corpus, _ = numbers(order, 0, 1000)
    cycles = corpus.reshape(10, 100)
    assert (np.sort(cycles, 1) == np.repeat([0, 1, 2], [20, 50, 30])).all()
    assert len({tuple(cycle) for cycle in cycles}) == 10  # in another order each time


def test_each_corpus_goes_through_epochs_of_its_own(short_cycle):
    epoch, corpus, row = numbers(Order(SIZES, WEIGHTS, seed=5), 0, 2000)
    for number, size in enumerate(SIZES):
        mine, its_epoch = row[corpus == number], epoch[corpus == number]
        assert np.bincount(its_epoch).tolist() == [size] * (len(mine) // size) + [len(mine) % size] * (
            len(mine) % size > 0
        )
        for one in range(len(mine) // size):
            assert sorted(mine[its_epoch == one]) == list(range(size))


def test_any_position_is_reached_at_once_and_counted(short_cycle):
    order = Order(SIZES, WEIGHTS, seed=5)
    whole = numbers(order, 0, 1000)
    for start in (1, 99, 100, 763):
        for ours, theirs in zip(numbers(order, start, 1000 - start), whole):
            assert np.array_equal(ours, theirs[start:])
        assert order.drawn(start).tolist() == np.bincount(whole[1][:start], minlength=3).tolist()
    far = 10**12 + 7
    assert order.drawn(far).sum() == far


def test_a_corpus_alone_is_drawn_from_always():
    assert Order([50], [0.3], seed=1).drawn(123_456_789).tolist() == [123_456_789]


@pytest.mark.parametrize(
    "weights, shares", [([1, 1], [8, 8]), ([0.7, 0.3], [11, 5]), ([1, 1, 1], None), ([1e-9, 1], [1, 15]), ([3], [16])]
)
def test_shares_are_the_nearest_that_add_up(weights, shares):
    found = apportion(weights, 16)
    assert found.sum() == 16 and found.min() >= 1
    assert shares is None or found.tolist() == shares
    assert np.all(np.abs(found - np.array(weights) / np.sum(weights) * 16) <= 1)

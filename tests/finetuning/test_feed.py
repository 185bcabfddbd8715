"""Batches of rows of different sizes."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from spanbert_jax.finetuning.feed import TaskFeed, bucket_sizes, evaluation_batches, fingerprint
from spanbert_jax.finetuning.task import Row, Task, collate

SIZES = [3, 5, 8, 9, 12, 17, 17, 23, 30, 31, 33]


class Plain(Task):
    """A task of rows whose tokens all equal the number of their example."""

    name = "plain"
    metric = "none"
    read = parse = labels_of = features = model = counts = loss = decode = score = write = None

    def __init__(self):
        self.tokenizer = SimpleNamespace(pad_id=0)


def rows_of_sizes(sizes) -> list[Row]:
    def arrays(number, size):
        tokens = np.full(size, number + 1, np.int32)
        return {
            "tokens": tokens,
            "segments": np.ones_like(tokens),
            "positions": np.arange(size),
            "token_types": 0 * tokens,
        }

    return [Row(number, arrays(number, size)) for number, size in enumerate(sizes)]


def padded(sizes, chosen) -> int:
    return sum(min(size for size in chosen if size >= row) for row in sizes)


@pytest.mark.parametrize("number", [1, 2, 3, 4, 20])
def test_sizes_leave_the_least_padding(number):
    candidates = sorted({-(-size // 8) * 8 for size in SIZES})
    best = min(
        padded(SIZES, chosen)
        for count in range(1, min(number, len(candidates)) + 1)
        for chosen in itertools.combinations(candidates, count)
        if chosen[-1] >= max(SIZES)
    )
    chosen = bucket_sizes(SIZES, number, 8)
    assert len(chosen) <= number and padded(SIZES, chosen) == best


@pytest.fixture
def feed():
    return TaskFeed(Plain(), rows_of_sizes(SIZES), batch_size=4, seed=7, sizes=[8, 16, 40])


def test_each_epoch_has_every_row_once_in_an_order_of_its_own(feed):
    assert feed.steps_per_epoch == 3
    epochs = [np.concatenate([batch.rows for batch in feed.epoch(number)]) for number in range(3)]
    for rows in epochs:
        assert len(rows) == 12 and sorted(rows[rows >= 0]) == list(range(len(SIZES)))
    assert len({tuple(rows) for rows in epochs}) == 3
    assert all(SIZES[row] <= batch.size for batch in feed.epoch(0) for row in batch.rows if row >= 0)


def test_a_batch_depends_on_its_step_alone(feed):
    straight = list(itertools.islice(feed.training(0), 8))
    for start in (1, 3, 7):
        for batch, other in zip(straight[start:], feed.training(start)):
            assert all(np.array_equal(batch[name], other[name]) for name in batch)


def test_processes_have_parts_of_the_same_batch(feed):
    whole = next(feed.training(2))
    parts = [next(feed.training(2, np.array(rows))) for rows in ([0, 1], [2, 3])]
    assert np.array_equal(whole["tokens"], np.concatenate([part["tokens"] for part in parts]))


def test_rows_are_padded_and_missing_ones_are_empty():
    rows = rows_of_sizes([3])
    batch = collate(Plain(), [rows[0], None], 8)
    assert batch["tokens"].shape == (2, 8)
    assert batch["segments"].tolist() == [[1] * 3 + [0] * 5, [0] * 8]


def test_evaluation_has_every_row_once():
    batches = evaluation_batches(Plain(), rows_of_sizes(SIZES), 4, [8, 16, 40])
    rows = np.concatenate([batch.rows for batch in batches])
    assert sorted(rows[rows >= 0]) == list(range(len(SIZES))) and {len(batch.rows) for batch in batches} == {4}


def test_a_fingerprint_is_of_every_value():
    rows = rows_of_sizes([3, 4])
    changed = rows_of_sizes([3, 4])
    changed[1].arrays["token_types"][2] = 1
    assert fingerprint(rows) == fingerprint(rows_of_sizes([3, 4])) != fingerprint(changed)

"""Batches of rows of different sizes: each has rows of about one size, and step n is a pure function of the seed."""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from spanbert_jax.data.masking import row_key
from spanbert_jax.data.order import Order, permute
from spanbert_jax.finetuning.task import Arrays, Row, Task, collate

BATCHES, VARIATION = 4, 5  # what a key is for; data/order.py and data/masking.py have others


def bucket_sizes(sizes: Sequence[int], number: int, multiple: int) -> list[int]:
    """Returns at most `number` sizes, ascending, to which rows are padded with the least padding in total.

    Args:
      sizes: of the rows.
      number: of sizes, at least 1.
      multiple: of which each is one.
    """
    values, counts = np.unique(-(-np.asarray(sizes) // multiple) * multiple, return_counts=True)
    upto = np.cumsum(counts)  # rows up to each value
    # For each value, the least sum of padded sizes of the rows up to it, and the sizes chosen for that.
    plans: list[tuple[int, tuple[int, ...]]] = [
        (int(value * below), (int(value),)) for value, below in zip(values, upto)
    ]
    for _ in range(number - 1):
        plans = [
            min(
                [
                    plan,
                    *(
                        (cost + int(value * (below - upto[i])), (*chosen, int(value)))
                        for i, (cost, chosen) in enumerate(plans[:j])
                    ),
                ]
            )
            for j, (plan, value, below) in enumerate(zip(plans, values, upto))
        ]
    return list(plans[-1][1])


@dataclasses.dataclass(frozen=True)
class Planned:
    """A batch to be made."""

    size: int  # to which its rows are padded
    rows: np.ndarray  # int64 [B], their numbers; -1 for an empty row


class TaskFeed:
    """The training batches of a task."""

    def __init__(self, task: Task, rows: list[Row], batch_size: int, seed: int, sizes: list[int]):
        """Prepares batches.

        Args:
          task: of the rows.
          rows: all that are trained on.
          batch_size: rows of a batch.
          seed: of the run.
          sizes: to which rows are padded, ascending; see bucket_sizes.
        """
        self._task, self._rows, self._batch_size, self._seed, self.sizes = task, rows, batch_size, seed, sizes
        self._bucket = np.searchsorted(sizes, [task.size(row) for row in rows])  # [rows]
        self._order = Order([len(rows)], [1.0], seed)
        self.steps_per_epoch = -(-len(rows) // batch_size)

    def epoch(self, number: int) -> list[Planned]:
        """Returns the batches of an epoch: every row once, in an order of its own.

        Rows that do not fill a batch of their size go to the next larger one; the last batch may have empty rows.
        """
        count = len(self._rows)
        _, order = self._order.at(np.arange(number * count, (number + 1) * count))
        planned, left = [], np.empty(0, np.int64)
        for bucket, size in enumerate(self.sizes):
            rows = np.concatenate([left, order[self._bucket[order] == bucket]])
            whole = len(rows) - len(rows) % self._batch_size
            planned += [Planned(size, part) for part in rows[:whole].reshape(-1, self._batch_size)]
            left = rows[whole:]
        if len(left):
            empty = np.full(self._batch_size - len(left), -1)
            planned.append(Planned(self.sizes[-1], np.concatenate([left, empty])))
        total = np.full(len(planned), len(planned))
        key = row_key(self._seed, BATCHES, np.full_like(total, number), np.zeros_like(total))
        return [planned[i] for i in permute(np.arange(len(planned)), total, key)]

    def training(self, start: int, part: np.ndarray | None = None) -> Iterator[Arrays]:
        """Yields the batches from step `start` on, of each the rows numbered `part` (None: all)."""
        epoch, skipped = divmod(start, self.steps_per_epoch)
        while True:
            for batch in self.epoch(epoch)[skipped:]:
                numbers = batch.rows if part is None else batch.rows[part]
                yield collate(self._task, [self._row(number, epoch) for number in numbers], batch.size)
            epoch, skipped = epoch + 1, 0

    def _row(self, number: int, epoch: int) -> Row | None:
        if number < 0:
            return None
        random = np.random.Generator(np.random.Philox(key=[self._seed, VARIATION], counter=[0, 0, number, epoch]))
        return self._task.varied(self._rows[number], random)

    def metrics(self, step: int) -> dict[str, float]:
        """Returns the epochs done up to a step."""
        return {"epoch": step / self.steps_per_epoch}

    def summary(self) -> list[str]:
        """Returns lines that describe the training data."""
        planned = sum(batch.size * len(batch.rows) for batch in self.epoch(0))
        padding = 1 - sum(map(self._task.size, self._rows)) / planned
        rows = f"{len(self._rows):,} rows in {self.steps_per_epoch:,} steps an epoch"
        return [f"{rows}, padded to {', '.join(map(str, self.sizes))}: {padding:.1%} padding"]


def evaluation_batches(task: Task, rows: list[Row], batch_size: int, sizes: list[int]) -> list[Planned]:
    """Returns batches of all rows, those of a size together."""
    bucket = np.searchsorted(sizes, [task.size(row) for row in rows])
    planned = []
    for number, size in enumerate(sizes):
        of_size = np.flatnonzero(bucket == number)
        padded = np.concatenate([of_size, np.full(-len(of_size) % batch_size, -1)])
        planned += [Planned(size, part) for part in padded.reshape(-1, batch_size)]
    return planned


def fingerprint(rows: list[Row]) -> str:
    """Returns the sha256 (hex) of all arrays of the rows."""
    digest = hashlib.sha256()
    for row in rows:
        for name in sorted(row.arrays):
            array = np.ascontiguousarray(row.arrays[name])
            digest.update(f"{row.example} {name} {array.dtype} {array.shape}".encode())
            digest.update(array.data)
    return digest.hexdigest()

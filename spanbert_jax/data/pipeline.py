"""Batches of masked rows as numpy arrays: a batch is a pure function of (config, seed, step), and so are its rows.

    step s, row i of the batch --> position p = s * B + i
                               --> epoch and row of the corpus; see order.py
                               --> the row's tokens, read from disk
                               --> masks drawn for (seed, epoch, row)

Nothing is kept between steps, so starting at step s gives the same batches as running up to it. Threads work on chunks
of batches; what they compute, and the order in which it is joined, do not depend on their number.
"""

import os
import weakref
from collections.abc import Callable
from typing import Protocol

import numpy as np
import tensorflow as tf

from spanbert_jax.data.masking import EVALUATION, TRAINING, row_key
from spanbert_jax.data.order import Order
from spanbert_jax.data.targets import Masker
from spanbert_jax.errors import InputError

# TensorFlow would take all memory of devices that JAX uses; it must be set before it starts.
tf.config.set_visible_devices([], "GPU")

# Rows that one thread masks at a time: enough for the overhead of calls not to matter, few enough to share a batch.
CHUNK_ROWS = 128
EVALUATION_SEED = 0  # held-out rows have the same masks in every run, so that runs can be compared

Batch = dict[str, np.ndarray]


class Rows(Protocol):
    """What the pipeline needs of spanbert_jax.data.rows.Rows."""

    num_rows: int

    def read(self, ids: np.ndarray) -> Batch:
        """Returns fields [n, ...] of rows `ids` int64 [n], as rows.Rows.read describes them."""


class Batches:
    """An iterator over the numpy batches of a dataset.

    Its threads end with `close()`, when it is garbage-collected, and at exit. Otherwise Python would shut down under
    threads that still read rows for batches that are never taken, and both would wait for each other.
    """

    def __init__(self, dataset: tf.data.Dataset):
        self._source = [dataset.as_numpy_iterator()]
        self.close = weakref.finalize(self, self._source.clear)

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Batch:
        if not self._source:
            raise StopIteration
        return next(self._source[0])


def make_batches(
    rows: Rows, order: Order, masker: Masker, *, batch_size: int, start_step: int, part: np.ndarray | None, threads: int
) -> "Batches":
    """Returns training batches without end, from `start_step` on.

    Every row comes once in each epoch, in a new order and with new masks. The masks of a row in an epoch depend neither
    on the batch size nor on the process.

    Args:
      rows: of the corpus.
      order: of the rows; its seed is also that of the masks.
      masker: makes the batch arrays of the objectives.
      batch_size: B.
      start_step: counted from 0.
      part: which rows of each batch to make, int64 [n] of 0..B-1; None: all.
      threads: 0 for one per core; never changes a batch.

    Returns:
      Batches of tokens, segments, positions, token_types int32 [B, L], the arrays of targets.mask, and for rows of
      pairs nsp_targets int32 [B, 1] and nsp_weights float32 [B, 1].

    Raises:
      InputError: there are no rows.
    """
    if not rows.num_rows:
        raise InputError("data: the training text has no rows to make batches of")

    def masked_rows(position: np.ndarray) -> Batch:
        epoch, row = order.at(position)
        return masker(rows.read(row), row_key(order.seed, TRAINING, epoch, row))

    steps = tf.data.Dataset.range(start_step, np.iinfo(np.int64).max)
    return _batches(steps, masked_rows, batch_size, part, threads)


def make_eval_batches(
    rows: Rows, masker: Masker, *, batch_size: int, max_rows: int, part: np.ndarray | None, threads: int
) -> "Batches":
    """Returns batches of `max_rows` rows (0: all), spread evenly over all rows and in their order.

    The rows are always the same and have the same masks for every seed. The last batch is filled up with rows of
    padding: segments and weights 0. Shapes and `part` as in make_batches.
    """
    count = min(max_rows or rows.num_rows, rows.num_rows)

    def masked_rows(position: np.ndarray) -> Batch:
        exists = position < count
        row = np.where(exists, position * rows.num_rows // max(count, 1), 0)
        fields = rows.read(row)
        for name, field in fields.items():
            field[~exists] = masker.pad_id if name == "tokens" else 0
        return masker(fields, row_key(EVALUATION_SEED, EVALUATION, np.zeros_like(row), row))

    steps = tf.data.Dataset.range(-(-count // batch_size))
    return _batches(steps, masked_rows, batch_size, part, threads)


def _batches(
    steps: tf.data.Dataset,
    masked_rows: Callable[[np.ndarray], Batch],
    batch_size: int,
    part: np.ndarray | None,
    threads: int,
) -> "Batches":
    """Returns batches of `masked_rows(positions)` for the steps, each made in equal chunks in parallel.

    Threads share the interpreter, but spend most of their time in numpy's loops, which release it.
    """
    sample = masked_rows(np.zeros(1, np.int64))
    types = [field.dtype for field in sample.values()]
    wanted = np.arange(batch_size) if part is None else np.asarray(part, np.int64)
    count = len(wanted)
    chunks = -(-count // CHUNK_ROWS)
    chunk_rows = -(-count // chunks)
    # A last chunk that would be too short repeats a row, which `join` drops.
    wanted = np.pad(wanted, (0, chunks * chunk_rows - count), mode="edge").reshape(chunks, chunk_rows)

    @tf.autograph.experimental.do_not_convert
    def positions(step: tf.Tensor) -> tf.Tensor:  # int64 [chunks, rows of a chunk]
        return step * batch_size + wanted

    @tf.autograph.experimental.do_not_convert
    def make_chunk(position: tf.Tensor) -> Batch:  # tensors, of known shapes and types
        fields = tf.numpy_function(lambda position: list(masked_rows(position).values()), [position], types)
        shapes = ((chunk_rows, *field.shape[1:]) for field in sample.values())
        return dict(zip(sample, map(tf.ensure_shape, fields, shapes)))

    @tf.autograph.experimental.do_not_convert
    def join(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {name: tf.reshape(field, [chunks * chunk_rows, field.shape[2]])[:count] for name, field in batch.items()}

    workers = threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    dataset = steps.map(positions).unbatch().map(make_chunk, num_parallel_calls=workers, deterministic=True)
    dataset = dataset.batch(chunks, drop_remainder=True).map(join).prefetch(2)
    options = tf.data.Options()
    options.threading.private_threadpool_size = workers
    options.threading.max_intra_op_parallelism = 1  # chunks already keep every thread busy
    options.autotune.enabled = False  # it would only enlarge buffers
    options.experimental_optimization.apply_default_optimizations = False  # no faster with them, and slower to start
    return Batches(dataset.with_options(options))

"""Batches of masked rows as numpy arrays: a batch is a pure function of (config, seed, step), and so is any part of one.

    step s, row i of the batch --> position p = s * B + i
                               --> epoch and row of the corpus; see order.py
                               --> the row's tokens, read from disk
                               --> masks drawn for (seed, epoch, row)

Nothing is kept between steps, so starting at step s is the same as having run there. The threads work on parts of batches; what they
compute, and the order it is put together in, do not depend on how many there are.
"""

import os
import weakref
from typing import Protocol

import numpy as np
import tensorflow as tf

from spanbert_jax.data import masking, random
from spanbert_jax.data.order import Order
from spanbert_jax.data.schemes import MaskingSettings
from spanbert_jax.errors import InputError

tf.config.set_visible_devices(
    [], "GPU"
)  # else TensorFlow takes all memory of devices that are JAX's; it must be told before it starts

CHUNK_ROWS = 128  # rows one thread masks at a time: enough for the cost of starting ops not to matter, few enough to share out a batch
TRAINING, EVALUATION = range(2)  # streams: what a key is for; order.py has the next
EVALUATION_SEED = 0  # held-out rows have the same masks in every run, so that runs can be compared

FOR_MASKING = (
    "tokens",
    "tags",
    "block_start",
    "block_length",
)  # fields of rows that end there; the model gets the others

Batch = dict[str, np.ndarray]


class Rows(Protocol):
    """What the pipeline asks of spanbert_jax.data.rows.Rows."""

    num_rows: int

    def read(self, ids: np.ndarray) -> Batch:
        """ids int64 [n] -> fields [n, ...], as rows.Rows.read describes them."""


class Batches:
    """Iterator over the numpy batches of a dataset. `close()` ends its threads; so does dropping it, and the end of the program.

    Python would otherwise shut down under threads that still read rows for batches nobody takes, and the two wait for each other for ever.
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


class Masker:
    """Masking with everything decided but the rows: config, vocabulary and corpus.

    settings: how to mask. slots: M, see masking.mask_slots. tokenizer: gives starts_word, mask_id and pad_id. token_counts: int64 [V], of
    the training split.
    """

    def __init__(self, settings: MaskingSettings, slots: int, tokenizer, token_counts: np.ndarray):
        self.settings = settings
        self.slots = slots
        self.mask_id = tokenizer.mask_id
        self.pad_id = tokenizer.pad_id
        self.starts_word = tf.constant(tokenizer.starts_word)  # [V]
        self.counts_upto = tf.constant(np.cumsum(token_counts, dtype=np.int64))  # [V]
        self._mask = tf.function(
            self._mask, autograph=False
        )  # traced once for training and evaluation, and for every start

    def __call__(self, rows: dict[str, tf.Tensor], key: random.Key) -> dict[str, tf.Tensor]:
        """A batch from the fields of rows and their keys; see masking.mask for what it adds."""
        fields = {name: rows[name] for name in rows if name in FOR_MASKING}
        return {name: rows[name] for name in rows if name not in fields} | self._mask(fields, key)

    def _mask(self, rows, key):
        return masking.mask(rows, key, self.settings, self.slots, self.starts_word, self.counts_upto, self.mask_id)


def make_batches(
    rows: Rows, order: Order, masker: Masker, *, batch_size: int, start_step: int, part: np.ndarray | None, threads: int
) -> "Batches":
    """Training batches for ever, from `start_step` on: of each the rows that `part` numbers (int64 [n], of 0..B-1; None: all).

    Every row comes once in each epoch, in a new order and with new masks. A row has the same masks in the same epoch whatever the batch
    size, and whoever makes it. The seed of all that is the order's. threads: 0 for as many as cores; never changes a batch.
    Batches hold tokens, segments, positions, token_types [B, L] int32; mlm_positions, mlm_targets [B, M] int32, mlm_weights [B, M] float32;
    sbo_left, sbo_right, sbo_offset, sbo_targets [B, S] int32, sbo_weights [B, S] float32, with S = M = masking.mask_slots(...); rows of pairs
    also nsp_targets [B, 1] int32, nsp_weights [B, 1] float32.
    InputError: no rows.
    """
    if not rows.num_rows:
        raise InputError("data: the training text has no rows to make batches of")

    @tf.autograph.experimental.do_not_convert
    def masked_rows(position: tf.Tensor) -> dict[str, tf.Tensor]:
        epoch, row = order.at(position)
        return masker(_read(rows, row), masking.row_key(order.seed, TRAINING, epoch, row))

    steps = tf.data.Dataset.range(start_step, np.iinfo(np.int64).max)
    return _batches(steps, masked_rows, batch_size, part, threads)


def make_eval_batches(
    rows: Rows, masker: Masker, *, batch_size: int, max_rows: int, part: np.ndarray | None, threads: int
) -> "Batches":
    """Batches of the first `max_rows` rows (0: all) in order, each row with one mask for ever, the same under every seed.

    The last batch is filled up with rows of padding: segments and weights 0. Shapes and `part` as in make_batches.
    """
    count = min(max_rows or rows.num_rows, rows.num_rows)

    @tf.autograph.experimental.do_not_convert
    def masked_rows(position: tf.Tensor) -> dict[str, tf.Tensor]:
        there = position < count
        row = tf.where(there, position, 0)
        fields = {
            name: tf.where(there[:, None], field, tf.zeros_like(field)) for name, field in _read(rows, row).items()
        }
        fields["tokens"] = tf.where(there[:, None], fields["tokens"], masker.pad_id)
        return masker(fields, masking.row_key(EVALUATION_SEED, EVALUATION, tf.zeros_like(row), row))

    steps = tf.data.Dataset.range(-(-count // batch_size))
    return _batches(steps, masked_rows, batch_size, part, threads)


def _read(rows: Rows, ids: tf.Tensor) -> dict[str, tf.Tensor]:
    """The fields of rows `ids` [n] as tensors of known shape and type."""
    sample = rows.read(np.zeros(1, np.int64))
    fields = tf.numpy_function(
        lambda ids: list(rows.read(ids).values()), [ids], [field.dtype for field in sample.values()]
    )
    return {
        name: tf.ensure_shape(field, (None, *sample[name].shape[1:]))
        for name, field in zip(sample, fields, strict=True)
    }


def _batches(steps: tf.data.Dataset, masked_rows, batch_size: int, part: np.ndarray | None, threads: int) -> "Batches":
    """Batches of `masked_rows(positions)` for the steps, each made in equal chunks side by side."""
    wanted = np.arange(batch_size) if part is None else np.asarray(part, np.int64)
    count = len(wanted)
    chunks = -(-count // CHUNK_ROWS)
    chunk_rows = -(-count // chunks)
    wanted = np.pad(wanted, (0, chunks * chunk_rows - count), mode="edge").reshape(
        chunks, chunk_rows
    )  # a last token too long repeats a row

    @tf.autograph.experimental.do_not_convert
    def positions(step: tf.Tensor) -> tf.Tensor:  # int64 [chunks, rows of a token]
        return step * batch_size + wanted

    @tf.autograph.experimental.do_not_convert
    def join(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {name: tf.reshape(field, [chunks * chunk_rows, field.shape[2]])[:count] for name, field in batch.items()}

    workers = threads or os.cpu_count()
    dataset = steps.map(positions).unbatch().map(masked_rows, num_parallel_calls=workers, deterministic=True)
    dataset = dataset.batch(chunks, drop_remainder=True).map(join).prefetch(2)
    options = tf.data.Options()
    options.threading.private_threadpool_size = workers
    options.threading.max_intra_op_parallelism = 1  # chunks already keep every thread busy
    options.autotune.enabled = False  # it would only enlarge buffers
    options.experimental_optimization.apply_default_optimizations = False  # no faster with them, and slower to start
    return Batches(dataset.with_options(options))

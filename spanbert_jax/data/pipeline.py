"""Batches of masked rows as numpy arrays: a batch is a pure function of (config, seed, step, host).

    step s, host h --> positions p = s * B + h * B / hosts + i
                   --> epoch p // R, row = permutation(p mod R; seed, epoch) of the R rows
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
from spanbert_jax.errors import InputError

tf.config.set_visible_devices([], "GPU")  # else TensorFlow takes all memory of devices that are JAX's; it must be told before it starts

PART_ROWS = 128  # rows one thread masks at a time: enough for the cost of starting ops not to matter, few enough to share out a batch
TRAINING, EVALUATION, PERMUTATION = range(3)  # streams: what a key is for
EVALUATION_SEED = 0  # held-out rows have the same masks in every run, so that runs can be compared
PERMUTATION_ROUNDS = 16  # of the cipher behind RandomIndexShuffle; with its usual 4, orders of 2^16 rows were visibly alike

ROW_FIELDS = ("tokens", "segments", "positions", "token_types", "block_start", "block_length")

Batch = dict[str, np.ndarray]


class Rows(Protocol):
    """What the pipeline asks of spanbert_jax.data.blocks.Rows."""

    num_rows: int

    def read(self, ids: np.ndarray) -> Batch:
        """ids int64 [n] -> ROW_FIELDS, all int32: [n, L], and for the last two [n, N]."""


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

    settings: how to mask. tokenizer: gives starts_word, mask_id and pad_id. piece_counts: int64 [V], of the training split.
    """

    def __init__(self, settings: masking.MaskingSettings, tokenizer, piece_counts: np.ndarray):
        self.settings = settings
        self.mask_id = tokenizer.mask_id
        self.pad_id = tokenizer.pad_id
        self.starts_word = tf.constant(tokenizer.starts_word)  # [V]
        self.counts_upto = tf.constant(np.cumsum(piece_counts, dtype=np.int64))  # [V]
        self._mask = tf.function(self._mask, autograph=False)  # traced once for training and evaluation, and for every start

    def __call__(self, rows: dict[str, tf.Tensor], key: random.Key) -> dict[str, tf.Tensor]:
        """One batch of design section 3 from ROW_FIELDS of rows and their keys; see masking.mask for the shapes."""
        return {name: rows[name] for name in ("segments", "positions", "token_types")} | self._mask(rows, key)

    def _mask(self, rows, key):
        slots = masking.mask_slots(rows["tokens"].shape[1], self.settings.rate, rows["block_start"].shape[1])
        return masking.mask(rows, key, self.settings, slots, self.starts_word, self.counts_upto, self.mask_id)


def make_batches(
    rows: Rows, masker: Masker, *, batch_size: int, seed: int, start_step: int, host: int, hosts: int, threads: int,
) -> "Batches":
    """Training batches for ever, from `start_step` on: this host's share of B / hosts rows of each.

    Every row comes once in each epoch, in a new order and with new masks. A row has the same masks in the same epoch whatever the batch
    size and the number of hosts. threads: 0 for as many as cores; never changes a batch.
    Batches hold tokens, segments, positions, token_types [B, L] int32; mlm_positions, mlm_targets [B, M] int32, mlm_weights [B, M] float32;
    sbo_left, sbo_right, sbo_offset, sbo_targets [B, S] int32, sbo_weights [B, S] float32, with S = M = masking.mask_slots(...).
    InputError: no rows, or B not divisible by hosts.
    """
    if not rows.num_rows:
        raise InputError("data: the training text has no rows to make batches of")

    @tf.autograph.experimental.do_not_convert
    def masked_rows(position: tf.Tensor) -> dict[str, tf.Tensor]:
        epoch = position // rows.num_rows
        row = permute(position % rows.num_rows, rows.num_rows, seed, epoch)
        return masker(_read(rows, row), masking.row_key(seed, TRAINING, epoch, row))

    steps = tf.data.Dataset.range(start_step, np.iinfo(np.int64).max)
    return _batches(steps, masked_rows, _share(batch_size, host, hosts), threads)


def make_eval_batches(
    rows: Rows, masker: Masker, *, batch_size: int, max_rows: int, host: int, hosts: int, threads: int,
) -> "Batches":
    """Batches of the first `max_rows` rows (0: all) in order, each row with one mask for ever, the same under every seed.

    The last batch is filled up with rows of padding: segments and weights 0. Shapes as in make_batches.
    InputError: B not divisible by hosts.
    """
    count = min(max_rows or rows.num_rows, rows.num_rows)

    @tf.autograph.experimental.do_not_convert
    def masked_rows(position: tf.Tensor) -> dict[str, tf.Tensor]:
        there = position < count
        row = tf.where(there, position, 0)
        fields = {name: tf.where(there[:, None], field, 0) for name, field in _read(rows, row).items()}
        fields["tokens"] = tf.where(there[:, None], fields["tokens"], masker.pad_id)
        return masker(fields, masking.row_key(EVALUATION_SEED, EVALUATION, tf.zeros_like(row), row))

    steps = tf.data.Dataset.range(-(-count // batch_size))
    return _batches(steps, masked_rows, _share(batch_size, host, hosts), threads)


def permute(index: tf.Tensor, size: int, seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """Where a permutation of 0..size-1, one for each (seed, epoch), takes `index`. index, epoch and the result: int64 [n].

    No table is kept: the permutation is a block cipher walked along until it lands below `size`.
    """
    key = masking.row_key(seed, PERMUTATION, epoch, tf.zeros_like(epoch))
    cipher_key = tf.stack([key[0], key[1], key[0] ^ 0x9E3779B9], 1)  # [n, 3]
    top = tf.fill(tf.shape(index), np.int64(size - 1))
    return tf.raw_ops.RandomIndexShuffle(index=index, seed=cipher_key, max_index=top, rounds=PERMUTATION_ROUNDS)


def _share(batch_size: int, host: int, hosts: int) -> tuple[int, int, int]:
    """(B, first row in the batch, number of rows) of this host."""
    if batch_size % hosts:
        raise InputError(f"batch_size: {batch_size} rows cannot be shared evenly by {hosts} hosts")
    return batch_size, host * (batch_size // hosts), batch_size // hosts


def _read(rows: Rows, ids: tf.Tensor) -> dict[str, tf.Tensor]:
    """ROW_FIELDS of rows `ids` [n] as tensors of known shape."""
    def read(ids: np.ndarray) -> list[np.ndarray]:
        fields = rows.read(ids)
        return [fields[name] for name in ROW_FIELDS]

    sample = rows.read(np.zeros(1, np.int64))  # for its shapes
    fields = tf.numpy_function(read, [ids], [tf.int32] * len(ROW_FIELDS))
    return {name: tf.ensure_shape(field, (None, sample[name].shape[1])) for name, field in zip(ROW_FIELDS, fields)}


def _batches(steps: tf.data.Dataset, masked_rows, share: tuple[int, int, int], threads: int) -> "Batches":
    """Batches of `masked_rows(positions)` for the steps, each made in equal parts side by side."""
    batch_size, first, count = share
    parts = -(-count // PART_ROWS)
    part_rows = -(-count // parts)

    @tf.autograph.experimental.do_not_convert
    def positions(step: tf.Tensor) -> tf.Tensor:  # [parts, rows of a part] int64; a last part too long repeats the last row
        row = tf.minimum(tf.range(parts * part_rows, dtype=tf.int64), count - 1)
        return step * batch_size + first + tf.reshape(row, [parts, part_rows])

    @tf.autograph.experimental.do_not_convert
    def join(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {name: tf.reshape(field, [parts * part_rows, field.shape[2]])[:count] for name, field in batch.items()}

    workers = threads or os.cpu_count()
    dataset = steps.map(positions).unbatch().map(masked_rows, num_parallel_calls=workers, deterministic=True)
    dataset = dataset.batch(parts, drop_remainder=True).map(join).prefetch(2)
    options = tf.data.Options()
    options.threading.private_threadpool_size = workers
    options.threading.max_intra_op_parallelism = 1  # parts already keep every thread busy
    options.autotune.enabled = False  # it would only enlarge buffers
    options.experimental_optimization.apply_default_optimizations = False  # no faster with them, and slower to start
    return Batches(dataset.with_options(options))

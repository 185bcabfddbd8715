"""Batches are a pure function of (seed, step): resuming, subsets of rows, threads, epochs, and evaluation."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spanbert_jax.data import pipeline
from spanbert_jax.data.order import Order
from spanbert_jax.data.targets import Masker
from spanbert_jax.errors import InputError
from tests.data import synthetic
from tests.data.test_masking import SETTINGS, slots_of

ROWS = synthetic.Rows(64, synthetic.random_blocks(np.random.default_rng(0), 50, 64, 3))
SLOTS = slots_of(ROWS, SETTINGS)
ORDER = Order([ROWS.num_rows], [1.0], 0)
MASKER = Masker(SETTINGS, SLOTS, synthetic.Tokenizer, synthetic.token_counts(), ("mlm", "sbo"))
SHAPES = dict.fromkeys(("tokens", "segments", "positions", "token_types"), "L")
SHAPES |= dict.fromkeys(("mlm_positions", "mlm_targets", "mlm_weights"), "M")
SHAPES |= dict.fromkeys(("sbo_left", "sbo_right", "sbo_offset", "sbo_targets", "sbo_weights"), "M")


def train(steps, rows=ROWS, batch_size=8, seed=7, start_step=0, part=None, threads=2):
    order = Order([rows.num_rows], [1.0], seed)
    batches = pipeline.make_batches(
        rows, order, MASKER, batch_size=batch_size, start_step=start_step, part=part, threads=threads
    )
    return join(itertools.islice(batches, steps))


def evaluate(rows=ROWS, batch_size=8, max_rows=0, part=None, threads=2):
    batches = pipeline.make_eval_batches(
        rows, MASKER, batch_size=batch_size, max_rows=max_rows, part=part, threads=threads
    )
    return join(batches)


def join(batches):
    """Stacks batches: a dict of [steps, rows, ...]."""
    batches = list(batches)
    return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}


def flat(batches):
    return {name: field.reshape(-1, field.shape[-1]) for name, field in batches.items()}


def unmasked(batches):
    """Returns the original tokens of the rows, restored from the targets: [rows, L]."""
    rows = flat(batches)
    tokens = rows["tokens"].copy()
    row, slot = np.nonzero(rows["mlm_weights"])
    tokens[row, rows["mlm_positions"][row, slot]] = rows["mlm_targets"][row, slot]
    return tokens


def row_numbers(batches, rows=ROWS):
    numbers = {row.tobytes(): number for number, row in enumerate(rows.fields["tokens"])}
    assert len(numbers) == rows.num_rows
    return [numbers[row.tobytes()] for row in unmasked(batches)]


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_batches_have_the_shapes_and_types_of_the_contract():
    sizes = {"L": 64, "M": SLOTS}
    shapes = {name: (sizes[size],) for name, size in SHAPES.items()}
    dtypes = {name: np.float32 if "weights" in name else np.int32 for name in SHAPES}
    batch = train(1)
    assert {name: field.shape[2:] for name, field in batch.items()} == shapes
    assert {name: field.dtype for name, field in batch.items()} == dtypes
    assert batch["tokens"].shape[1] == 8


def test_same_bits_with_any_number_of_threads_and_chunks(monkeypatch):
    whole = train(9)
    assert_same(train(9, threads=1), whole)
    assert_same(train(9, threads=5), whole)
    monkeypatch.setattr(pipeline, "CHUNK_ROWS", 3)  # 8 rows in chunks of 3, 3 and 2
    assert_same(train(9, threads=3), whole)


def test_starting_at_a_step_equals_running_up_to_it():
    whole = train(20)
    for start in (1, 7, 19):  # in the first epoch of 50 rows, across its end, and in the last
        assert_same(train(20 - start, start_step=start), {name: field[start:] for name, field in whole.items()})


def test_starting_at_a_late_step_does_not_run_up_to_it():
    class Counting(synthetic.Rows):
        read_rows = 0

        def read(self, ids):
            self.read_rows += len(ids)
            return super().read(ids)

    rows = Counting(64, [[60]] * 9)
    train(1, rows=rows, start_step=10**12)
    assert rows.read_rows < 1000  # those of the batch and of some that are made ahead


@pytest.mark.parametrize("part", [[0, 1, 2, 3], [4, 5, 6, 7], [0, 3, 5], [7]], ids=str)
def test_some_rows_of_a_batch_are_made_without_the_rest(part):
    for whole, some in ((train(9), train(9, part=np.array(part))), (evaluate(), evaluate(part=np.array(part)))):
        assert_same({name: field[:, part] for name, field in whole.items()}, some)


def test_masks_do_not_depend_on_the_batch_size():
    whole = flat(train(20))
    assert_same(flat(train(16, batch_size=10)), whole)
    assert_same(flat(train(1, batch_size=160)), whole)


def test_every_row_is_read_once_per_epoch_in_a_new_order_with_new_masks():
    batches = train(3, batch_size=50)
    numbers = np.reshape(row_numbers(batches), (3, 50))
    assert (np.sort(numbers, 1) == np.arange(50)).all()
    assert len({tuple(order) for order in numbers}) == 3
    order = np.argsort(numbers, 1)[:, :, None]
    positions = np.take_along_axis(batches["mlm_positions"], order, 1)  # [epoch, row, M]
    same_masks = (positions[0] == positions[1]).all(1)
    long = np.array([sum(ROWS.fields["block_length"][row]) > 30 for row in range(50)])
    assert not same_masks[long].any()
    assert row_numbers(train(1, batch_size=50, seed=8)) != numbers[0].tolist()


def test_evaluation_is_in_order_and_always_the_same():
    whole = evaluate()
    assert_same(evaluate(), whole)
    assert_same(evaluate(threads=1), whole)
    rows = flat(whole)
    assert len(rows["tokens"]) == 56  # 50 rows and 6 of padding
    assert (unmasked(whole)[:50] == ROWS.fields["tokens"]).all()
    assert all(not rows[name][50:].any() for name in rows)
    assert (rows["mlm_weights"][:50].sum(1) > 0).all()
    by_five = flat(evaluate(batch_size=5))
    assert_same(by_five, {name: field[:50] for name, field in rows.items()})


@pytest.mark.parametrize("batch_size, part", [(8, None), (5, None), (8, np.array([1, 6]))], ids=["8", "5", "part"])
def test_evaluation_of_some_rows_spreads_them_evenly(batch_size, part):
    """So that text which is sorted by its source is evaluated in every part of it, with the masks of its rows."""
    every = flat(evaluate())
    chosen = [number * 50 // 20 for number in range(20)]  # 0, 2, 5, 7, ... 47
    some = evaluate(max_rows=20, batch_size=batch_size, part=part)
    numbers = np.arange(len(some["tokens"]) * batch_size).reshape(-1, batch_size)
    numbers = (numbers if part is None else numbers[:, part]).reshape(-1)
    rows = {name: field[numbers < 20] for name, field in flat(some).items()}
    padding = {name: field[numbers >= 20] for name, field in flat(some).items()}
    assert_same(rows, {name: field[np.array(chosen)[numbers[numbers < 20]]] for name, field in every.items()})
    assert all(not field.any() for field in padding.values())


def test_training_and_evaluation_masks_differ():
    held_out = flat(evaluate())["mlm_positions"]
    batches = train(1, batch_size=50, seed=pipeline.EVALUATION_SEED)
    training = flat(batches)["mlm_positions"][np.argsort(row_numbers(batches))]
    long = ROWS.fields["block_length"].sum(1) > 30
    assert (training[long] != held_out[:50][long]).any(1).all()


def test_closed_batches_end():
    batches = pipeline.make_batches(ROWS, ORDER, MASKER, batch_size=8, start_step=0, part=None, threads=2)
    next(batches)
    batches.close()
    assert list(batches) == []


def test_a_program_ends_while_rows_are_still_being_read():
    program = """
import time
from tests.data import test_pipeline
class Slow(test_pipeline.synthetic.Rows):
    def read(self, ids):
        time.sleep(0.05)
        return super().read(ids)
rows, order = Slow(64, [[60]] * 9), test_pipeline.Order([9], [1.0], 0)
settings = dict(batch_size=8, start_step=0, part=None, threads=2)
batches = test_pipeline.pipeline.make_batches(rows, order, test_pipeline.MASKER, **settings)
next(batches)
"""
    paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": paths}, check=True, timeout=120)


def test_errors_name_the_problem():
    empty = synthetic.Rows(64, [[10]])
    empty.num_rows = 0
    with pytest.raises(InputError, match="no rows"):
        train(1, rows=empty)

"""Text that a run has not seen, with the spans that its evaluation hides."""

from pathlib import Path

import numpy as np

from spanbert_jax.data.batches import Feed
from spanbert_jax.data.pipeline import Batch
from spanbert_jax.data.store import open_store
from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.errors import InputError
from spanbert_jax.tasks.marks import MarkedText, hide


def held_out_texts(config, tokenizer: Tokenizer, workdir: Path, count: int) -> list[MarkedText]:
    """`count` texts from all over the run's held-out split, each a block, its spans those of the run's evaluation (fixed for ever).

    Every piece of a span is hidden, also where the masking law keeps or replaces some. The same texts each time.

    Raises:
      InputError: the store is gone or holds no such text, or fewer than `count` rows of it.
    """
    store = open_store(Path(config.data.store) if config.data.store else workdir / "store")
    store.require(tokenizer)
    feed = Feed(config, store, tokenizer)
    rows = feed.rows["valid"].num_rows
    there = min(config.eval.max_rows or rows, rows)
    if not 1 <= count <= there:
        raise InputError(f"{store.folder}: {count} held-out texts asked for; give a number from 1 to {there}" if there else
                         f"{store.folder}: no document is held out in this store")
    wanted = (2 * np.arange(count) + 1) * there // (2 * count)  # [count] row numbers, evenly spread
    texts, first = [], 0
    for batch in feed.held_out():
        size = len(batch["tokens"])
        texts += [first_block(batch, int(row) - first, tokenizer) for row in wanted if first <= row < first + size]
        first += size
    return texts


def first_block(batch: Batch, row: int, tokenizer: Tokenizer) -> MarkedText:
    """The first block of a row of a masked batch, as it was before masking, with its masked pieces as spans."""
    used = batch["mlm_weights"][row] > 0  # [M]
    places = batch["mlm_positions"][row][used]
    tokens = batch["tokens"][row].copy()  # [L]
    tokens[places] = batch["mlm_targets"][row][used]
    hidden = np.zeros(len(tokens), np.bool_)
    hidden[places] = True
    block = np.flatnonzero(batch["segments"][row] == 1)[1:-1]  # without [CLS] and [SEP]
    return hide(tokens[block].tolist(), hidden[block].tolist(), tokenizer)

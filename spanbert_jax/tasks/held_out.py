"""Text that a run has not seen, with the spans that its evaluation hides."""

from pathlib import Path

import numpy as np

from spanbert_jax.data.batches import Feed, open_corpus
from spanbert_jax.data.pipeline import Batch
from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.errors import InputError
from spanbert_jax.tasks.marks import MarkedText, hide


def held_out_texts(config, tokenizer: Tokenizer, workdir: Path, count: int) -> list[MarkedText]:
    """`count` texts from all over the run's held-out split, each a block, its spans those of the run's evaluation (fixed for ever).

    Every token of a span is hidden, also where the masking law keeps or replaces some. The same texts each time.

    Raises:
      InputError: the store is gone or holds no such text, or fewer than `count` rows of it.
    """

    def refuse(_):
        raise InputError(f"{workdir}: its store is gone; the text of the run is needed to look at")

    feed = Feed(config, open_corpus(config, tokenizer, workdir, refuse), tokenizer)
    texts = [
        (batch, row)
        for name in feed.names
        for batch in feed.held_out(name)
        for row in np.flatnonzero(batch["segments"].any(1))
    ]
    there = len(texts)
    if not 1 <= count <= there:
        raise InputError(
            f"{workdir}: {count} held-out texts asked for; give a number from 1 to {there}"
            if there
            else f"{workdir}: no document is held out in its store"
        )
    wanted = (2 * np.arange(count) + 1) * there // (2 * count)  # [count] evenly spread
    return [first_block(*texts[number], tokenizer) for number in wanted]


def first_block(batch: Batch, row: int, tokenizer: Tokenizer) -> MarkedText:
    """The first block of a row of a masked batch, as it was before masking, with its masked tokens as spans."""
    used = batch["mlm_weights"][row] > 0  # [M]
    places = batch["mlm_positions"][row][used]
    tokens = batch["tokens"][row].copy()  # [L]
    tokens[places] = batch["mlm_targets"][row][used]
    hidden = np.zeros(len(tokens), np.bool_)
    hidden[places] = True
    block = np.flatnonzero((batch["segments"][row] == 1) & (batch["token_types"][row] == 0))[
        1:-1
    ]  # of a pair, A; without [CLS] and [SEP]
    return hide(tokens[block].tolist(), hidden[block].tolist(), tokenizer)

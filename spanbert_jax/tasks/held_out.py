"""Held-out text of a run as marked texts, with the spans that the run's evaluation masks."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from spanbert_jax.data.batches import Feed, open_corpus
from spanbert_jax.data.pipeline import Batch
from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.errors import InputError
from spanbert_jax.tasks.marks import MarkedText, hide_tokens
from spanbert_jax.training.trained import is_run


def held_out_texts(config: ConfigDict, tokenizer: Tokenizer, workdir: Path, count: int) -> list[MarkedText]:
    """Returns `count` blocks, spread evenly over the run's held-out rows; always the same ones.

    Spans are those of the run's evaluation. All their tokens are hidden, also those that masking keeps or replaces.

    Raises:
      InputError: it is no run, or the store is missing, has no held-out text, or has fewer than `count` rows of it.
    """
    if not is_run(workdir):
        raise InputError(f"{workdir}: is not the folder of a run, so it has no held-out text; give texts of your own")

    def refuse_tokenising(_: str) -> None:
        raise InputError(f"{workdir}: the store of the run, from which the text is read, is missing")

    feed = Feed(config, open_corpus(config, tokenizer, workdir, refuse_tokenising), tokenizer)
    rows = [
        (batch, int(row))
        for name in feed.names
        for batch in feed.held_out(name)
        for row in np.flatnonzero(batch["segments"].any(1))
    ]
    if not rows:
        raise InputError(f"{workdir}: no document is held out in its store")
    if not 1 <= count <= len(rows):
        raise InputError(f"{workdir}: cannot show {count} held-out texts; give a number from 1 to {len(rows)}")
    chosen = (2 * np.arange(count) + 1) * len(rows) // (2 * count)  # [count]: the middles of `count` equal intervals
    return [first_block(*rows[number], tokenizer) for number in chosen]


def first_block(batch: Batch, row: int, tokenizer: Tokenizer) -> MarkedText:
    """Returns the first block of a row (segment A of a pair) as it was before masking, its masked tokens as spans."""
    is_used = batch["mlm_weights"][row] > 0  # [M]
    masked = batch["mlm_positions"][row][is_used]
    tokens = batch["tokens"][row].copy()  # [L]
    tokens[masked] = batch["mlm_targets"][row][is_used]
    is_hidden = np.zeros(len(tokens), np.bool_)  # [L]
    is_hidden[masked] = True
    in_block = (batch["segments"][row] == 1) & (batch["token_types"][row] == 0)  # [L]
    positions = np.flatnonzero(in_block)[1:-1]  # without [CLS] and [SEP]
    return hide_tokens(tokens[positions].tolist(), is_hidden[positions].tolist(), tokenizer)

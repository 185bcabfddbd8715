"""Text to a tokenised store, made once for many runs; and what a store holds, for a person."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import rich.box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from spanbert_jax.data.blocks import pack_blocks, split_edges
from spanbert_jax.data.corpus import SPLITS, read_documents
from spanbert_jax.data.store import Split, Store, open_store, write_store
from spanbert_jax.data.tokenizer import Tokenizer, load_tokenizer
from spanbert_jax.errors import InputError

PACKINGS = (1, 2, 4, 8)  # values of data.max_blocks_per_row worth comparing

Documents = Iterator[list[str]]
Watch = Callable[[Documents, str], Documents]  # takes the documents of a split and its name, gives them back: there progress can be shown


def prepare(source: str, folder: Path, vocab: str, lowercase: str, valid_fraction: float, watch: Watch) -> Store:
    """Tokenises the text of `source` into a new store. All but `folder` and `watch` are as in config.data.

    Raises:
      InputError: text, vocabulary or folder must be mended; nothing was written.
    """
    if not 0 <= valid_fraction < 1:
        raise InputError(f"valid_fraction must be in [0, 1), not {valid_fraction}")
    tokenizer = load_tokenizer(vocab, lowercase)
    write_store(folder, tokenizer, {split: watch(read_documents(source, split, valid_fraction), split) for split in SPLITS})
    return open_store(folder)


def contents(store: Store, seq_len: int) -> Group:
    """What a store holds, and how full rows of `seq_len` pieces would be, for a rich Console."""
    tokenizer = store.tokenizer()
    splits = [split for name in SPLITS if (split := store.split(name)).num_documents]
    counts, padding = Table(box=rich.box.SIMPLE_HEAD), Table(box=rich.box.SIMPLE_HEAD)
    for name in ("split", "documents", "sentences", "pieces", "[UNK]"):
        counts.add_column(Text(name), justify="left" if name == "split" else "right")
    for split in splits:
        unknown = split.piece_counts[tokenizer.unk_id] / split.num_tokens
        counts.add_row(split.name, f"{split.num_documents:,}", f"{split.num_sentences:,}", f"{split.num_tokens:,}", f"{unknown:.3%}")
    padding.add_column("data.max_blocks_per_row", justify="right")
    sizes = []
    for split in splits:
        padding.add_column(f"{split.name} rows", justify="right")
        padding.add_column("padding", justify="right")
        sizes.append(row_counts(split, seq_len, tokenizer))
    for number, blocks in enumerate(PACKINGS):
        padding.add_row(str(blocks), *(cell for size in sizes for cell in (f"{size[number][0]:,}", f"{size[number][1]:.1%}")))
    casing = "uncased" if tokenizer.lowercase else "cased"
    return Group(Text(f"store {store.folder}: {store.vocab_size:,} pieces of vocabulary, {casing}"), counts,
                 Text(f"in rows of {seq_len} pieces:"), padding)


def row_counts(split: Split, seq_len: int, tokenizer: Tokenizer) -> list[tuple[int, float]]:
    """(rows, share of padding) of the split for each of PACKINGS."""
    lengths = np.diff(split_edges(split, seq_len - 2, tokenizer.starts_word)) + 2  # [blocks] with [CLS] and [SEP]
    rows = [int(pack_blocks(lengths, seq_len, blocks).max()) + 1 for blocks in PACKINGS]
    return [(count, 1 - int(lengths.sum()) / (count * seq_len)) for count in rows]

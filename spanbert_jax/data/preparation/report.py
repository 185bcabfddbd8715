"""What is in a store and what was left out, for a person (a rich table) and for programs (report.json).

Nothing of it depends on when or by whom the store was made: it is as reproducible as the store.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import rich.box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from spanbert_jax.data.blocks import BlockSettings, split_blocks
from spanbert_jax.data.packing import pack_blocks
from spanbert_jax.data.preparation.job import Job
from spanbert_jax.data.store import SPLITS, Store
from spanbert_jax.errors import InputError

REPORT_FILE = "report.json"
PACKINGS = (1, 2, 4, 8)  # values of data.max_blocks_per_row worth comparing
MEASURED_TOKENS = (
    1 << 22
)  # rows are counted in the first shards of a split, until they have so many tokens: that bounds memory and time
REASONS = {
    "short": "too short",
    "exact": "equal to an earlier one",
    "near": "much like an earlier one",
    "empty": "without a single token",
}


def make_report(job: Job, records: list[dict], store: Store) -> dict:
    """The report on a store that was made of units with these records (see Job.record), in JSON's types."""
    seq_len = job.settings.seq_len
    return {
        "settings": dataclasses.asdict(job.settings),
        "units": len(records),
        "documents_read": sum(record["documents"] for record in records),
        "documents_dropped": {reason: sum(record["dropped"][reason] for record in records) for reason in REASONS},
        "vocab_size": store.vocab_size,
        "seq_len": seq_len,
        "splits": {
            split: about_split(job, split, records, store) for split in SPLITS if store.split(split).num_documents
        },
    }


def about_split(job: Job, split: str, records: list[dict], store: Store) -> dict:
    """What a split holds. Histograms: largest length of the bin -> how many have it."""
    stored = store.split(split)
    counts = stored.token_counts
    shards = [record["splits"][split] for record in records if split in record["splits"]]
    histograms = {
        kind: histogram(np.sum([shard[kind] for shard in shards], axis=0))
        for kind in ("document_lengths", "sentence_lengths")
    }
    return {
        "documents": stored.num_documents,
        "sentences": stored.num_sentences,
        "words": int(counts[job.tokenizer.starts_word].sum()),
        "tokens": stored.num_tokens,
        "unknown_tokens": int(counts[job.tokenizer.unk_id]),
        **{f"{kind}_in_tokens": bins for kind, bins in histograms.items()},
        **measure_rows(store, split, job.settings.seq_len, job.tokenizer.starts_word),
    }


def histogram(bins: np.ndarray) -> dict[str, int]:
    """Counts by bit length as {largest length: count}, without the empty bins at either end."""
    used = np.flatnonzero(bins)
    return {str(2**bits - 1): int(bins[bits]) for bits in range(used[0], used[-1] + 1)}


def measure_rows(store: Store, split: str, seq_len: int, starts_word: np.ndarray) -> dict:
    """How full rows would be, from the first shards: their tokens, padding by max_blocks_per_row, and the split's tokens an epoch.

    Tokens are what the model reads: tokens, [CLS] and [SEP], no padding.
    """
    start = beginning(store, split).split(split)
    blocks = split_blocks(start, BlockSettings(seq_len, 1, "document", "cut", 0.0, 0), starts_word)
    lengths = blocks["length"].astype(np.int64) + 2
    tokens, rows = (
        int(lengths.sum()),
        {number: int(pack_blocks(lengths, seq_len, number).max()) + 1 for number in PACKINGS},
    )
    whole = store.split(split).num_tokens
    return {
        "measured_tokens": start.num_tokens,
        "padding_by_max_blocks_per_row": {
            str(number): round(1 - tokens / (count * seq_len), 4) for number, count in rows.items()
        },
        "rows_by_max_blocks_per_row": {
            str(number): -(-count * whole // start.num_tokens) for number, count in rows.items()
        },
        "tokens_per_epoch": -(-tokens * whole // start.num_tokens),
    }


def beginning(store: Store, split: str) -> Store:
    """The store as if this split ended with the shard in which token MEASURED_TOKENS lies."""
    entry = store.index["splits"][split]
    starts = np.cumsum([0] + [shard["num_tokens"] for shard in entry["shards"]])
    shards = entry["shards"][: int(np.searchsorted(starts, MEASURED_TOKENS))]
    entry = {key: sum(shard[key] for shard in shards) for key in ("num_tokens", "num_sentences", "num_documents")} | {
        "shards": shards
    }
    return Store(store.where, store.index | {"splits": {split: entry}}, store.fingerprint)


def write_report(folder: Path, report: dict) -> None:
    """Writes report.json."""
    (folder / REPORT_FILE).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def read_report(store: Store) -> dict:
    """The report of a store. Raises InputError when there is none: the store was not made by prepare."""
    try:
        return json.loads(store.file(REPORT_FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"store {store.where}: its {REPORT_FILE} is damaged; make the store again with scripts/prepare_data.py"
        ) from error


def show_report(report: dict, where: str) -> Group:
    """A report for a rich Console."""
    splits = report["splits"]
    dropped = [f"{count:,} {REASONS[reason]}" for reason, count in report["documents_dropped"].items() if count]
    casing = f"{report['vocab_size']:,} tokens of vocabulary"
    return Group(
        Text(
            f"store {where}: {casing}; {report['documents_read']:,} documents read, left out: {', '.join(dropped) or 'none'}"
        ),
        table(
            splits,
            {
                "documents": "documents",
                "sentences": "sentences",
                "words": "words",
                "tokens": "tokens",
                "[UNK]": lambda split: f"{split['unknown_tokens'] / split['tokens']:.3%}",
                "tokens an epoch": "tokens_per_epoch",
            },
        ),
        Text(f"in rows of {report['seq_len']} tokens:"),
        rows_table(splits),
        Text("lengths in tokens:"),
        lengths_table(splits),
    )


def table(splits: dict, columns: dict) -> Table:
    """A line a split; a column is a key of its figures or a function of them."""
    result = Table(box=rich.box.SIMPLE_HEAD)
    for name in ("split", *columns):
        result.add_column(Text(name), justify="left" if name == "split" else "right")
    for name, split in splits.items():
        result.add_row(
            name, *(column(split) if callable(column) else f"{split[column]:,}" for column in columns.values())
        )
    return result


def rows_table(splits: dict) -> Table:
    """Rows and padding, without packing and with."""
    result = Table(box=rich.box.SIMPLE_HEAD)
    result.add_column("data.max_blocks_per_row", justify="right")
    for name, split in splits.items():
        estimated = split["measured_tokens"] < split["tokens"]
        result.add_column(f"{name} rows{' (about)' if estimated else ''}", justify="right")
        result.add_column("padding", justify="right")
    for number in map(str, PACKINGS):
        result.add_row(
            number,
            *(
                cell
                for split in splits.values()
                for cell in (
                    f"{split['rows_by_max_blocks_per_row'][number]:,}",
                    f"{split['padding_by_max_blocks_per_row'][number]:.1%}",
                )
            ),
        )
    return result


def lengths_table(splits: dict) -> Table:
    """Histograms of the lengths of documents and sentences."""
    kinds = ("document_lengths_in_tokens", "sentence_lengths_in_tokens")
    result = Table(box=rich.box.SIMPLE_HEAD)
    result.add_column("up to", justify="right")
    for name in splits:
        for kind in ("documents", "sentences"):
            result.add_column(f"{name} {kind}", justify="right")
    for length in sorted({int(length) for split in splits.values() for kind in kinds for length in split[kind]}):
        result.add_row(
            f"{length:,}", *(f"{split[kind].get(str(length), 0):,}" for split in splits.values() for kind in kinds)
        )
    return result

"""The report on a store, for people (rich tables) and programs (report.json): what it contains and what was dropped.

It does not depend on when or how the store was made: it is as reproducible as the store.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rich.box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from spanbert_jax.data.blocks import BlockSettings, split_blocks
from spanbert_jax.data.packing import pack_blocks
from spanbert_jax.data.preparation.job import TokenisingJob
from spanbert_jax.data.sources.problems import skipped_lines, summed
from spanbert_jax.data.store import SPLITS, Store
from spanbert_jax.errors import InputError

REPORT_FILE = "report.json"
BLOCKS_PER_ROW = (1, 2, 4, 8)  # values of data.max_blocks_per_row to compare
MEASURED_TOKENS = 1 << 22  # rows are made of a split's first shards, up to so many tokens: bounds memory and time
DROPPED = {  # reason in report.json -> text
    "short": "too short",
    "exact": "exact duplicates",
    "near": "near-duplicates",
    "empty": "without a token",
}
Column = str | Callable[[dict], str]  # a key of a split's figures, or a function of them


def make_report(job: TokenisingJob, source_bytes: int, summaries: list[dict], store: Store) -> dict:
    """Returns the report on a store made of units with these summaries (see TokenisingJob.summary), in JSON types."""
    return {
        "settings": job.settings.to_json(),
        "source_bytes": source_bytes,
        "units": len(summaries),
        "documents_read": sum(summary["documents"] for summary in summaries),
        "skipped": summed(summary["skipped"] for summary in summaries),
        "documents_dropped": {reason: sum(summary["dropped"][reason] for summary in summaries) for reason in DROPPED},
        "vocab_size": store.vocab_size,
        "seq_len": job.settings.seq_len,
        "splits": {
            split: split_report(job, split, summaries, store) for split in SPLITS if store.split(split).num_documents
        },
    }


def split_report(job: TokenisingJob, split: str, summaries: list[dict], store: Store) -> dict:
    """Returns the figures of a split. Histograms map the largest length of a bin to the number of items in it."""
    stored = store.split(split)
    counts = stored.token_counts  # [V]
    shards = [summary["splits"][split] for summary in summaries if split in summary["splits"]]
    return {
        "documents": stored.num_documents,
        "sentences": stored.num_sentences,
        "words": int(counts[job.tokenizer.starts_word].sum()),
        "tokens": stored.num_tokens,
        "unknown_tokens": int(counts[job.tokenizer.unk_id]),
        "document_lengths_in_tokens": histogram(np.sum([shard["document_lengths"] for shard in shards], axis=0)),
        "sentence_lengths_in_tokens": histogram(np.sum([shard["sentence_lengths"] for shard in shards], axis=0)),
        **measure_rows(store, split, job.settings.seq_len, job.tokenizer.starts_word),
    }


def histogram(counts: np.ndarray) -> dict[str, int]:
    """Returns counts by bit length [bins] as {largest length: count}, without the empty bins at either end."""
    used = np.flatnonzero(counts)
    return {str(2**bits - 1): int(counts[bits]) for bits in range(used[0], used[-1] + 1)}


def measure_rows(store: Store, split: str, seq_len: int, starts_word: np.ndarray) -> dict:
    """Returns how full the rows of a split are, extrapolated from its first shards.

    The figures are the number of measured tokens, padding and rows by max_blocks_per_row, and the tokens that the model
    reads per epoch: those of the text, [CLS] and [SEP], but no padding.
    """
    first_shards = beginning(store, split).split(split)
    blocks = split_blocks(first_shards, BlockSettings(seq_len, 1, "document", "cut", 0.0, 0), starts_word)
    lengths = blocks["length"].astype(np.int64) + 2  # with [CLS] and [SEP]
    tokens = int(lengths.sum())
    rows = {number: int(pack_blocks(lengths, seq_len, number).max()) + 1 for number in BLOCKS_PER_ROW}
    measured, total = first_shards.num_tokens, store.split(split).num_tokens
    padding = {str(number): round(1 - tokens / (count * seq_len), 4) for number, count in rows.items()}
    return {
        "measured_tokens": measured,
        "padding_by_max_blocks_per_row": padding,
        "rows_by_max_blocks_per_row": {str(number): -(-count * total // measured) for number, count in rows.items()},
        "tokens_per_epoch": -(-tokens * total // measured),
    }


def beginning(store: Store, split: str) -> Store:
    """Returns the store as if this split ended with the shard that contains token MEASURED_TOKENS."""
    entry = store.index["splits"][split]
    starts = np.cumsum([0] + [shard["num_tokens"] for shard in entry["shards"]])
    shards = entry["shards"][: int(np.searchsorted(starts, MEASURED_TOKENS))]
    shortened = {key: sum(shard[key] for shard in shards) for key in ("num_tokens", "num_sentences", "num_documents")}
    index = store.index | {"splits": {split: shortened | {"shards": shards}}}
    return Store(store.where, index, store.fingerprint)


def write_report(folder: Path, report: dict) -> None:
    """Writes report.json."""
    (folder / REPORT_FILE).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def read_report(store: Store) -> dict:
    """Returns the report of a store. Raises InputError if it is damaged, or missing: `prepare` always writes one."""
    try:
        return json.loads(store.file(REPORT_FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        advice = "make the store again with scripts/prepare_data.py"
        raise InputError(f"store {store.where}: its {REPORT_FILE} is damaged; {advice}") from error


# ----------------------------------------------------------------------------------------------------------------------
# Tables.


def show_report(report: dict, where: str) -> Group:
    """Returns a report for a rich console; `where` names the store."""
    splits = report["splits"]
    dropped = [f"{count:,} {DROPPED[reason]}" for reason, count in report["documents_dropped"].items() if count]
    documents = f"{report['documents_read']:,} documents read, dropped: {', '.join(dropped) or 'none'}"
    return Group(
        Text(f"store {where}: vocabulary of {report['vocab_size']:,} tokens; {documents}"),
        *(Text(line) for line in skipped_lines(report.get("skipped", {}))),  # reports of release 0.1 have none
        splits_table(splits),
        Text(f"in rows of {report['seq_len']} tokens:"),
        rows_table(splits),
        Text("lengths in tokens:"),
        lengths_table(splits),
    )


def splits_table(splits: dict[str, dict]) -> Table:
    """Returns a table of sizes, one line per split."""
    columns: dict[str, Column] = {
        "documents": "documents",
        "sentences": "sentences",
        "words": "words",
        "tokens": "tokens",
        "[UNK]": lambda figures: f"{figures['unknown_tokens'] / figures['tokens']:.3%}",
        "tokens per epoch": "tokens_per_epoch",
    }
    table = Table(box=rich.box.SIMPLE_HEAD)
    table.add_column("split")
    for name in columns:
        table.add_column(Text(name), justify="right")
    for split, figures in splits.items():
        cells = [column(figures) if callable(column) else f"{figures[column]:,}" for column in columns.values()]
        table.add_row(split, *cells)
    return table


def rows_table(splits: dict[str, dict]) -> Table:
    """Returns a table of rows and padding, one line per value of data.max_blocks_per_row."""
    table = Table(box=rich.box.SIMPLE_HEAD)
    table.add_column("data.max_blocks_per_row", justify="right")
    for split, figures in splits.items():
        estimated = figures["measured_tokens"] < figures["tokens"]
        table.add_column(f"{split} rows{' (about)' if estimated else ''}", justify="right")
        table.add_column("padding", justify="right")
    for number in map(str, BLOCKS_PER_ROW):
        cells = [number]
        for figures in splits.values():
            cells.append(f"{figures['rows_by_max_blocks_per_row'][number]:,}")
            cells.append(f"{figures['padding_by_max_blocks_per_row'][number]:.1%}")
        table.add_row(*cells)
    return table


def lengths_table(splits: dict[str, dict]) -> Table:
    """Returns a table of the histograms of document and sentence lengths, one line per bin."""
    table = Table(box=rich.box.SIMPLE_HEAD)
    table.add_column("up to", justify="right")
    histograms = []
    for split, figures in splits.items():
        for kind in ("document", "sentence"):
            table.add_column(f"{split} {kind}s", justify="right")
            histograms.append(figures[f"{kind}_lengths_in_tokens"])
    for length in sorted({int(length) for counts in histograms for length in counts}):
        table.add_row(f"{length:,}", *(f"{counts.get(str(length), 0):,}" for counts in histograms))
    return table

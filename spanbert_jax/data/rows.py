"""Blocks to rows, the unit that batches are made of.

    packed:     [CLS] block [SEP] [CLS] block [SEP] ... padding        pair:  [CLS] A     [SEP] B     [SEP] padding
    segments:     1     1     1     2     2     2         0                     1   1       1   1       1      0
    positions:    0     1..   .     0     1..   .         0                     0   1..     .   .       .      0
    token types:  0     0     0     0     0     0         0                     0   0       0   1       1      0

The plan of a split (which blocks in which row) is a file beside the store, made once for the settings it depends on, and read with `pread`.
"""

import contextlib
import dataclasses
import hashlib
import os
import tempfile
import uuid
from pathlib import Path

import numpy as np

from spanbert_jax.data.blocks import BLOCK, BlockSettings, sentences_of, split_blocks
from spanbert_jax.data.packing import pack_blocks
from spanbert_jax.data.pairs import draw_pairs
from spanbert_jax.data.store import Split
from spanbert_jax.errors import InputError

MAGIC = int.from_bytes(b"SBROWS02", "little")
HEADER = 6  # int64 words: magic, fingerprint of the settings, tokens in the split, rows, blocks, tokens in the blocks


def build_rows(split: Split, settings: BlockSettings, starts_word: np.ndarray, tags: tuple[str, ...]) -> "Rows":
    """The rows of a split; `starts_word` is bool [V], true where a token begins a word, `tags` the kinds of tags to read with them.

    The plan is kept in the store's folder and found again the next time; if that cannot be written, it goes into an unnamed temporary file.
    InputError: pairs of a single document.
    """
    if settings.capacity < 1 or settings.max_blocks_per_row < 1:
        raise ValueError(f"no rows of {settings.seq_len} tokens and {settings.max_blocks_per_row} blocks")
    name = f"{split.name}-{settings.blocks}-{settings.seq_len}x{settings.max_blocks_per_row}-{fingerprint(settings) % 2**32:08x}.rows"
    path = split.store.folder / "rows" / name
    try:
        return Rows(split, path.open("rb", buffering=0), settings, tags)
    except (OSError, InvalidPlan):  # not there, not ours to read, or not whole
        plan = plan_rows(split, settings, starts_word)
    return Rows(split, write_plan(plan, path), settings, tags)


def fingerprint(settings: BlockSettings) -> int:
    """A number of 63 bits that tells settings apart."""
    text = repr(dataclasses.astuple(settings))
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little") >> 1


def plan_rows(split: Split, settings: BlockSettings, starts_word: np.ndarray) -> list[np.ndarray]:
    """The arrays of a plan file: header int64 [6], first block of each row int64 [rows + 1], blocks in row order BLOCK [blocks]; and for
    pairs whether B is from elsewhere, int8 [rows].

    Rows stand in the order of their first block in the corpus, and so do the blocks in a row: a run of rows is a fair sample of its text.
    """
    labels = np.empty(0, np.int8)
    if settings.pairs:
        if split.num_documents == 1:
            raise InputError(
                f"store {split.store.where}: data.blocks = pair needs text of another document, and the {split.name} split has one"
            )
        parts, labels = draw_pairs(
            *sentences_of(split, settings, starts_word), settings.capacity, settings.short_seq_prob, settings.seed
        )
        blocks = np.empty(2 * len(parts), BLOCK)
        blocks["start"], blocks["length"] = parts[..., 0].reshape(-1), (parts[..., 1] - parts[..., 0]).reshape(-1)
        first = np.arange(0, len(blocks) + 1, 2)
    else:
        blocks = split_blocks(split, settings, starts_word)
        row_of_block = pack_blocks(blocks["length"] + 2, settings.seq_len, settings.max_blocks_per_row)  # [blocks]
        blocks = blocks[np.argsort(row_of_block, kind="stable")]
        sizes = np.bincount(row_of_block) if len(blocks) else np.zeros(0, np.int64)
        first = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    header = [
        MAGIC,
        fingerprint(settings),
        split.num_tokens,
        len(first) - 1,
        len(blocks),
        int(blocks["length"].sum(dtype=np.int64)),
    ]
    return [np.array(header, "<i8"), first.astype("<i8"), blocks, labels]


def write_plan(plan: list[np.ndarray], path: Path):
    """Write a plan to `path`, complete or not at all, or if that fails to an unnamed temporary file; returns it open for reading."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(exist_ok=True)
        temporary.write_bytes(b"".join(plan))
        temporary.rename(path)
        return path.open("rb", buffering=0)
    except OSError:  # the store may lie on a read-only or full disk
        file = tempfile.TemporaryFile()
        file.writelines(plan)
        file.flush()
        return file
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


class InvalidPlan(Exception):
    """A plan file that is cut short or was made for other settings: it is made anew."""


class Rows:
    """The rows of a split, read by number. Safe in threads; nothing of the corpus stays in memory.

    `num_rows`, `num_blocks` (a pair has two), and `padding_fraction`, the share of padding among all num_rows * seq_len places.
    """

    def __init__(self, split: Split, file, settings: BlockSettings, tags: tuple[str, ...]):
        self.split = split
        self.settings = settings
        self.tags = tags
        self._file = file
        header = np.frombuffer(os.pread(file.fileno(), 8 * HEADER, 0).ljust(8 * HEADER, b"\0"), "<i8")
        self.num_rows, self.num_blocks, block_tokens = (int(word) for word in header[3:])
        self._blocks_at = 8 * (HEADER + self.num_rows + 1)  # file address of the block table
        self._labels_at = self._blocks_at + BLOCK.itemsize * self.num_blocks
        size = self._labels_at + (self.num_rows if settings.pairs else 0)
        if [*header[:3].tolist(), os.fstat(file.fileno()).st_size] != [
            MAGIC,
            fingerprint(settings),
            split.num_tokens,
            size,
        ]:
            raise InvalidPlan
        special = 3 * self.num_rows if settings.pairs else 2 * self.num_blocks
        self.padding_fraction = (
            1 - (block_tokens + special) / (self.num_rows * settings.seq_len) if self.num_rows else 0.0
        )
        ids = split.store.index["special_ids"]
        self._pad, self._cls, self._sep = (ids[token] for token in ("[PAD]", "[CLS]", "[SEP]"))

    def blocks(self, row: int) -> np.ndarray:
        """Blocks of one row, in order: BLOCK [blocks in it], fields `start` (address in the split) and `length` (tokens)."""
        if not 0 <= row < self.num_rows:
            raise IndexError(f"row {row} of {self.num_rows}")
        low, high = np.frombuffer(os.pread(self._file.fileno(), 16, 8 * (HEADER + int(row))), "<i8").tolist()
        return np.frombuffer(
            os.pread(self._file.fileno(), BLOCK.itemsize * (high - low), self._blocks_at + BLOCK.itemsize * low), BLOCK
        )

    def read(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """Rows number `ids` int64 [n], in that order, as int32 arrays. Raises IndexError for a number that is no row's.

        tokens, segments, positions, token_types [n, L]: padding has segment, position and type 0 and the id of [PAD]; [CLS] and [SEP] carry
        their block's segment; positions restart where the segment does. block_start, block_length [n, N]: place in the row of the block's
        first token, and the number of tokens up to its [SEP]; both 0 where there is no block; A and B of a pair are two. With tags, `tags`
        [n, L]: bit k is tag k of `tags`. With pairs, nsp_targets [n, 1]: 1 where B is from elsewhere (reference 2.4), and nsp_weights [n, 1]
        float32: 1.
        """
        rows, length, pairs = len(ids), self.settings.seq_len, self.settings.pairs
        blocks = [self.blocks(row) for row in ids]
        counts = np.array([len(row) for row in blocks], np.int64)  # [n]
        flat = np.concatenate(blocks) if rows else np.empty(0, BLOCK)  # [K] all blocks of the batch
        row = np.repeat(np.arange(rows), counts)
        column = ragged_range(counts)  # [K] which block of its row
        opening = (column == 0) | (not pairs)  # [K] whether it has a [CLS] of its own
        width = flat["length"] + opening + 1  # [K] places, with [CLS] and [SEP]
        ends = np.cumsum(width)
        begin = ends - width  # [K] first place if the rows were one long line without padding
        begin -= np.repeat(begin[np.cumsum(counts) - counts], counts)  # and in its row

        result = {
            name: np.zeros((rows, length), np.int32) for name in ("tokens", "segments", "positions", "token_types")
        }
        result |= {
            name: np.zeros((rows, 2 if pairs else self.settings.max_blocks_per_row), np.int32)
            for name in ("block_start", "block_length")
        }
        result["block_start"][row, column] = begin + opening
        result["block_length"][row, column] = flat["length"]

        inside = ragged_range(width)  # places of each block with [CLS] and [SEP], one after another
        at = np.repeat(row * length + begin, width) + inside
        result["segments"].reshape(-1)[at] = 1 if pairs else np.repeat(column + 1, width)
        result["positions"].reshape(-1)[at] = at % length if pairs else inside
        result["token_types"].reshape(-1)[at] = np.repeat(column, width) if pairs else 0
        tokens = result["tokens"].reshape(-1)
        tokens[:] = self._pad
        tokens[at[(ends - width)[opening]]] = self._cls
        tokens[at[ends - 1]] = self._sep
        content = np.ones(len(at), np.bool_)
        content[(ends - width)[opening]] = content[ends - 1] = False
        where = list(zip(flat["start"].tolist(), flat["length"].tolist(), strict=True))
        texts = [self.split.read(start, count) for start, count in where]
        tokens[at[content]] = np.concatenate(texts) if texts else []
        if self.tags:
            result["tags"] = np.zeros((rows, length), np.int32)
            result["tags"].reshape(-1)[at[content]] = (
                np.concatenate([self._tags(start, count) for start, count in where]) if where else []
            )
        if pairs:
            labels = [os.pread(self._file.fileno(), 1, self._labels_at + int(row)) for row in ids]
            result["nsp_targets"] = np.frombuffer(b"".join(labels), np.int8).astype(np.int32)[:, None]
            result["nsp_weights"] = np.ones((rows, 1), np.float32)
        return result

    def _tags(self, start: int, count: int) -> np.ndarray:
        return sum(self.split.tags(kind, start, count).astype(np.int32) << bit for bit, kind in enumerate(self.tags))


def ragged_range(lengths: np.ndarray) -> np.ndarray:
    """0..n-1 for each n of `lengths`, one after another: int64 [sum of lengths]."""
    starts = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) - np.repeat(starts, lengths)

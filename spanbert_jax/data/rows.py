"""Rows, the unit of batches: one or several blocks, or one pair of segments, and padding.

    blocks:       [CLS] block [SEP] [CLS] block [SEP] ... padding     pair:  [CLS] first [SEP] second [SEP] padding
    segments:       1     1     1     2     2     2         0                  1     1     1     1      1      0
    positions:      0     1..   .     0     1..   .         0                  0     1..   .     .      .      0
    token types:    0     0     0     0     0     0         0                  0     0     0     1      1      0

The plan of a split (which blocks are in which row) is a file in the store's folder, made once for its settings:

    int64 [6]          MAGIC, fingerprint of the settings, tokens in the split, rows, blocks, tokens in the blocks
    int64 [rows + 1]   first block of each row, and the number of blocks
    BLOCK [blocks]     the blocks in the order of their rows
    int8 [rows]        only of pairs: 1 where the second segment is of another document, else 0
"""

import contextlib
import dataclasses
import functools
import hashlib
import os
import tempfile
import uuid
from pathlib import Path

import numpy as np

from spanbert_jax.data.blocks import BLOCK, BlockSettings, sentence_and_document_edges, split_blocks
from spanbert_jax.data.packing import pack_blocks
from spanbert_jax.data.pairs import draw_pairs
from spanbert_jax.data.random_access import RandomAccessFile
from spanbert_jax.data.shard import BEGINS
from spanbert_jax.data.store import Split
from spanbert_jax.errors import InputError
from spanbert_jax.folders import publish_file

MAGIC = int.from_bytes(b"SBROWS03", "little")  # of the format, and of what is planned: which blocks are in which rows
HEADER = 6  # int64 numbers in the header of a plan

Plan = tuple[np.ndarray, np.ndarray, np.ndarray]  # first block of each row, blocks, labels


def build_rows(split: Split, settings: BlockSettings, starts_word: np.ndarray, tags: tuple[str, ...]) -> "Rows":
    """Returns the rows of a split.

    The plan is kept in the store's folder; if it cannot be written there, it goes into an unnamed temporary file. Of
    several processes that make it at the same time, the first one keeps its own, and the others read that.

    Args:
      split: the text.
      settings: kind and size of the blocks and rows.
      starts_word: bool [V], true where a token begins a word.
      tags: the kinds of tags to read with the tokens.

    Raises:
      InputError: pairs are asked for, and the split has a single document; or a plan cannot be written anywhere.
    """
    if settings.capacity < 1 or settings.max_blocks_per_row < 1:
        raise ValueError(f"no rows of {settings.seq_len} tokens and {settings.max_blocks_per_row} blocks")
    size = f"{settings.seq_len}x{settings.max_blocks_per_row}"
    name = f"{split.name}-{settings.blocks}-{size}-{fingerprint(settings) % 2**32:08x}.rows"
    path = split.store.folder / "rows" / name

    def kept() -> "Rows | None":
        """Returns the rows of the plan in the store, None if there is none. A damaged one is removed."""
        with contextlib.suppress(OSError):
            try:
                return Rows(split, RandomAccessFile(functools.partial(os.open, path, os.O_RDONLY)), settings, tags)
            except InvalidPlan:
                path.unlink()
        return None

    rows = kept()
    if rows is None:
        plan = plan_rows(split, settings, starts_word)
        rows = kept()
    if rows is None:
        with contextlib.suppress(OSError):  # the store may be on a read-only or full disk
            keep_plan(plan, path)
        rows = kept() or Rows(split, unnamed_file(plan), settings, tags)
    return rows


def fingerprint(settings: BlockSettings) -> int:
    """Returns a number of 63 bits that differs between settings, and between the plans that releases make of them."""
    text = repr((MAGIC, *dataclasses.astuple(settings)))
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little") >> 1


# ----------------------------------------------------------------------------------------------------
# Plans.


class InvalidPlan(Exception):
    """A plan file is incomplete or was made for other settings, and has to be made again."""


def plan_rows(split: Split, settings: BlockSettings, starts_word: np.ndarray) -> list[np.ndarray]:
    """Returns the arrays of a plan file, as the module's docstring lists them.

    Rows are in the order of their first block in the corpus, and so are the blocks in a row: an interval of rows is a
    fair sample of its text.
    """
    planner = _plan_pairs if settings.pairs else _plan_blocks
    first_block, blocks, labels = planner(split, settings, starts_word)
    num_rows, block_tokens = len(first_block) - 1, int(blocks["length"].sum(dtype=np.int64))
    header = [MAGIC, fingerprint(settings), split.num_tokens, num_rows, len(blocks), block_tokens]
    return [np.array(header, "<i8"), first_block.astype("<i8"), blocks, labels]


def _plan_blocks(split: Split, settings: BlockSettings, starts_word: np.ndarray) -> Plan:
    """Returns the plan of "document" or "sentence" blocks, without labels."""
    blocks = split_blocks(split, settings, starts_word)
    row_of_block = pack_blocks(blocks["length"] + 2, settings.seq_len, settings.max_blocks_per_row)
    blocks_in_row = np.bincount(row_of_block) if len(blocks) else np.zeros(0, np.int64)
    first_block = np.concatenate([np.zeros(1, np.int64), np.cumsum(blocks_in_row)])
    return first_block, blocks[np.argsort(row_of_block, kind="stable")], np.empty(0, np.int8)


def _plan_pairs(split: Split, settings: BlockSettings, starts_word: np.ndarray) -> Plan:
    """Returns the plan of pairs."""
    if split.num_documents == 1:
        raise InputError(
            f"store {split.store.where}: data.blocks = pair needs text of another document, and its {split.name} split"
            " has a single one; give data.blocks = document, or make a store of more documents"
        )
    edges = sentence_and_document_edges(split, settings, starts_word)
    pairs, labels = draw_pairs(*edges, settings.capacity, settings.short_seq_prob, settings.seed)
    blocks = np.empty(2 * len(pairs), BLOCK)
    blocks["start"] = pairs[..., 0].reshape(-1)
    blocks["length"] = (pairs[..., 1] - pairs[..., 0]).reshape(-1)
    return np.arange(0, len(blocks) + 1, 2), blocks, labels


def keep_plan(plan: list[np.ndarray], path: Path) -> None:
    """Writes a plan to `path`, complete or not at all, unless there is a file already.

    Raises:
      OSError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(exist_ok=True)
        temporary.write_bytes(b"".join(array.data for array in plan))
        publish_file(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def unnamed_file(plan: list[np.ndarray]) -> RandomAccessFile:
    """Returns a plan in a temporary file without a name, which disappears with its last descriptor.

    Raises:
      InputError: it cannot be written.
    """
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115 (it is open as long as it is read)
        file.writelines(array.data for array in plan)
        file.flush()
    except OSError as error:
        raise InputError(
            f"{tempfile.gettempdir()}: cannot write the plan of rows there ({error.strerror}), nor into the store;"
            " free some space, or set TMPDIR to another folder"
        ) from error
    return RandomAccessFile(lambda: os.dup(file.fileno()))


# ----------------------------------------------------------------------------------------------------
# Reading.


class Rows:
    """The rows of a split, read by number. Safe in threads; nothing of the corpus stays in memory.

    Attributes:
      num_rows: number of rows.
      num_blocks: number of blocks; a pair has two.
      padding_fraction: fraction of padding among all num_rows * seq_len positions.
    """

    def __init__(self, split: Split, file: RandomAccessFile, settings: BlockSettings, tags: tuple[str, ...]):
        """Opens a plan.

        Args:
          split: the text.
          file: the plan.
          settings: those that the plan was made for.
          tags: the kinds of tags to read with the tokens.

        Raises:
          InvalidPlan: the file is not a complete plan of this split with these settings.
          OSError: it cannot be read.
        """
        self.split = split
        self.settings = settings
        self.tags = tags
        self._file = file
        header = np.frombuffer(self._read(0, 8 * HEADER).ljust(8 * HEADER, b"\0"), "<i8").tolist()
        self.num_rows, self.num_blocks, block_tokens = header[3:]
        self._blocks_at = 8 * (HEADER + self.num_rows + 1)  # address of the blocks in the file
        self._labels_at = self._blocks_at + BLOCK.itemsize * self.num_blocks
        file_size = self._labels_at + (self.num_rows if settings.pairs else 0)
        expected = [MAGIC, fingerprint(settings), split.num_tokens, file_size]
        if [*header[:3], file.size()] != expected:
            raise InvalidPlan
        special_tokens = 3 * self.num_rows if settings.pairs else 2 * self.num_blocks
        used = block_tokens + special_tokens
        self.padding_fraction = 1 - used / (self.num_rows * settings.seq_len) if self.num_rows else 0.0
        ids = split.store.index["special_ids"]
        self._pad, self._cls, self._sep = (ids[token] for token in ("[PAD]", "[CLS]", "[SEP]"))

    def blocks(self, row: int) -> np.ndarray:
        """Returns the blocks of one row, in order: BLOCK [blocks].

        Raises:
          IndexError: there is no such row.
        """
        if not 0 <= row < self.num_rows:
            raise IndexError(f"row {row} of {self.num_rows}")
        first, end = np.frombuffer(self._read(8 * (HEADER + int(row)), 16), "<i8").tolist()
        address, size = self._blocks_at + BLOCK.itemsize * first, BLOCK.itemsize * (end - first)
        return np.frombuffer(self._read(address, size), BLOCK)

    def read(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the rows number `ids` int64 [B], in that order.

        Returns:
          int32 arrays, but for nsp_weights:
          tokens, segments, positions, token_types [B, L]: [CLS] and [SEP] have the segment of their block; positions
            restart where the segment does; padding has the id of [PAD] and segment, position and type 0.
          block_start, block_length [B, N]: position of a block's first token, and number of its tokens, both without
            [CLS] and [SEP]; both 0 where there is no block. The segments of a pair are two blocks.
          tags [B, L], if tags are read: bit 2k is set if the token has tag k of `self.tags`, and bit 2k + 1 if it is
            the first of those that are tagged together (never in stores that lack this; see shard.py).
          nsp_targets [B, 1], of pairs: 1 where the second segment is of another document (docs/original.md 2.4).
          nsp_weights [B, 1] float32, of pairs: 1.

        Raises:
          IndexError: there is no such row.
        """
        settings = self.settings
        blocks_of_row = [self.blocks(row) for row in ids]
        blocks = np.concatenate(blocks_of_row) if blocks_of_row else np.empty(0, BLOCK)  # [G]
        blocks_in_row = np.array([len(blocks) for blocks in blocks_of_row], np.int64)  # [B]
        layout = lay_out(blocks_in_row, blocks["length"], settings)
        batch = {
            "tokens": self._tokens(layout, blocks),
            "segments": layout.scatter(1 if settings.pairs else layout.per_token(layout.column + 1)),
            "positions": layout.scatter(layout.index % settings.seq_len if settings.pairs else layout.offset),
            "token_types": layout.scatter(layout.per_token(layout.column) if settings.pairs else 0),
            "block_start": layout.block_table(layout.text_start),
            "block_length": layout.block_table(blocks["length"]),
        }
        if self.tags:
            batch["tags"] = self._tags(layout, blocks)
        if settings.pairs:
            labels = b"".join(self._read(self._labels_at + int(row), 1) for row in ids)
            batch["nsp_targets"] = np.frombuffer(labels, np.int8).astype(np.int32)[:, None]
            batch["nsp_weights"] = np.ones((len(ids), 1), np.float32)
        return batch

    def _tokens(self, layout: "Layout", blocks: np.ndarray) -> np.ndarray:
        """Returns the ids of the tokens, with special tokens and padding: int32 [B, L]."""
        texts = [self.split.read(start, length) for start, length in blocks.tolist()]
        tokens = np.empty(len(layout.index), np.int32)  # [E]
        tokens[layout.cls] = self._cls
        tokens[layout.sep] = self._sep
        tokens[layout.is_text] = np.concatenate(texts) if texts else []
        return layout.scatter(tokens, padding=self._pad)

    def _tags(self, layout: "Layout", blocks: np.ndarray) -> np.ndarray:
        """Returns the tags of the tokens as bits: int32 [B, L]."""
        tags = np.zeros(len(layout.index), np.int32)  # [E]
        bits = [kind + suffix for kind in self.tags for suffix in ("", BEGINS)]
        for bit, kind in enumerate(bits):
            if kind not in self.split.tag_kinds:
                continue
            of_kind = [self.split.tags(kind, start, length) for start, length in blocks.tolist()]
            if of_kind:
                tags[layout.is_text] |= np.concatenate(of_kind).astype(np.int32) << bit
        return layout.scatter(tags)

    def _read(self, address: int, size: int) -> bytes:
        return self._file.read(address, size)


@dataclasses.dataclass(frozen=True)
class Layout:
    """The positions of the G blocks of a batch of B rows, and of their E tokens, [CLS] and [SEP] included.

    Tokens are numbered block after block.

    Attributes:
      shape: (B, L).
      max_blocks: N.
      row, column: int64 [G], row of each block, and its number in the row.
      size: int32 [G], tokens of each block with [CLS] (but for the second segment of a pair) and [SEP].
      text_start: int64 [G], position of each block's first token of text.
      index: int64 [E], row * L + position of each token: its index in a flattened array [B, L].
      offset: int64 [E], number of each token in its block.
      cls, sep: int64 [number of them], the numbers of the special tokens among the E tokens.
      is_text: bool [E], false for [CLS] and [SEP].
    """

    shape: tuple[int, int]
    max_blocks: int
    row: np.ndarray
    column: np.ndarray
    size: np.ndarray
    text_start: np.ndarray
    index: np.ndarray
    offset: np.ndarray
    cls: np.ndarray
    sep: np.ndarray
    is_text: np.ndarray

    def per_token(self, values: np.ndarray) -> np.ndarray:
        """Repeats values of the blocks [G] for each of their tokens: [E]."""
        return np.repeat(values, self.size)

    def scatter(self, values: np.ndarray | int, padding: int = 0) -> np.ndarray:
        """Puts values of the tokens, [E] or one for all, at their positions: int32 [B, L]."""
        result = np.full(self.shape, padding, np.int32)
        result.reshape(-1)[self.index] = values
        return result

    def block_table(self, values: np.ndarray) -> np.ndarray:
        """Puts values of the blocks [G] into a table with 0 where there is no block: int32 [B, N]."""
        table = np.zeros((self.shape[0], self.max_blocks), np.int32)
        table[self.row, self.column] = values
        return table


def lay_out(blocks_in_row: np.ndarray, lengths: np.ndarray, settings: BlockSettings) -> Layout:
    """Returns the layout of a batch.

    Args:
      blocks_in_row: int64 [B], number of blocks in each row, at least 1.
      lengths: int32 [G], tokens of text in each block, without [CLS] and [SEP].
      settings: those of the rows.
    """
    shape = len(blocks_in_row), settings.seq_len
    row = np.repeat(np.arange(shape[0]), blocks_in_row)  # [G]
    column = ragged_range(blocks_in_row)  # [G]
    has_cls = (column == 0) | (not settings.pairs)  # [G]
    size = lengths + has_cls + 1  # [G]

    # Each block has the tokens start to end - 1 of the E tokens; the first one is at `position` in its row.
    end = np.cumsum(size)  # [G]
    start = end - size  # [G]
    first_block = np.cumsum(blocks_in_row) - blocks_in_row  # [B]
    position = start - np.repeat(start[first_block], blocks_in_row)  # [G]

    offset = ragged_range(size)  # [E]
    index = np.repeat(row * settings.seq_len + position, size) + offset  # [E]
    cls, sep = start[has_cls], end - 1
    is_text = np.ones(len(index), np.bool_)  # [E]
    is_text[cls] = is_text[sep] = False
    max_blocks = 2 if settings.pairs else settings.max_blocks_per_row
    return Layout(shape, max_blocks, row, column, size, position + has_cls, index, offset, cls, sep, is_text)


def ragged_range(lengths: np.ndarray) -> np.ndarray:
    """Returns 0..n-1 for each n of `lengths`, one after another: int64 [E], E the sum of the lengths."""
    starts = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) - np.repeat(starts, lengths)

"""Documents to rows: whole sentences of one document make a block, and one or more blocks make a row.

A block takes sentences of its document, in order, as long as they fit into seq_len - 2 pieces (reference 3, "doc" mode). Where the
original loses text this does not: a sentence longer than a block is cut at word starts, and the last document counts. So the blocks of a
split tile its pieces: block k is the pieces edges[k]..edges[k + 1].

    row:        [CLS] block [SEP] [CLS] block [SEP] ... padding
    segments:     1     1     1     2     2     2         0
    positions:    0     1..   .     0     1..   .         0

The plan of a split (which blocks in which row) is a file beside the store, made once for each seq_len and number of blocks, and read with
`pread`.
"""

import contextlib
import os
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np

from spanbert_jax.data.store import Split

BLOCK = np.dtype([("start", "<i8"), ("length", "<i4")])  # address of the block's first piece, and pieces in it
MAGIC = int.from_bytes(b"SBROWS01", "little")
HEADER = 6  # int64 words: magic, seq_len, max_blocks_per_row, rows, blocks, pieces
DOCUMENTS_AT_A_TIME = 1 << 16  # bounds the memory of planning


def build_rows(split: Split, seq_len: int, max_blocks_per_row: int, starts_word: np.ndarray) -> "Rows":
    """Rows of `seq_len` pieces with at most `max_blocks_per_row` blocks each; `starts_word` is bool [V], true where a piece begins a word.

    The plan is kept in the store's folder and found again the next time; if that cannot be written, it goes into an unnamed temporary file.
    """
    if seq_len < 3 or max_blocks_per_row < 1:
        raise ValueError(f"no rows of {seq_len} pieces and {max_blocks_per_row} blocks: at least 3 pieces and 1 block are needed")
    path = split.store.folder / "rows" / f"{split.name}-{seq_len}x{max_blocks_per_row}.rows"
    try:
        return Rows(split, path.open("rb", buffering=0), seq_len, max_blocks_per_row)
    except (OSError, InvalidPlan):  # not there, not ours to read, or not whole
        plan = plan_rows(split, seq_len, max_blocks_per_row, starts_word)
    return Rows(split, write_plan(plan, path), seq_len, max_blocks_per_row)


def plan_rows(split: Split, seq_len: int, max_blocks_per_row: int, starts_word: np.ndarray) -> list[np.ndarray]:
    """The arrays of a plan file: header int64 [6], first block of each row int64 [rows + 1], blocks in row order BLOCK [blocks].

    Rows stand in the order of their first block in the corpus, and so do the blocks in a row: a run of rows is a fair sample of its text.
    """
    edges = split_edges(split, seq_len - 2, starts_word)  # [blocks + 1]
    blocks = np.empty(len(edges) - 1, BLOCK)
    blocks["start"], blocks["length"] = edges[:-1], np.diff(edges)
    row_of_block = pack_blocks(blocks["length"] + 2, seq_len, max_blocks_per_row)  # [blocks]
    order = np.argsort(row_of_block, kind="stable")
    sizes = np.bincount(row_of_block) if len(blocks) else np.zeros(0, np.int64)
    first = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    header = np.array([MAGIC, seq_len, max_blocks_per_row, len(sizes), len(blocks), split.num_tokens], "<i8")
    return [header, first.astype("<i8"), blocks[order]]


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


def split_edges(split: Split, capacity: int, starts_word: np.ndarray) -> np.ndarray:
    """Block edges of a whole split: int64 [blocks + 1], from 0 to its number of pieces."""
    sentences, documents = split.sentence_offsets(), split.document_offsets()
    parts = [np.zeros(1, np.int64)]
    for low in range(0, split.num_documents, DOCUMENTS_AT_A_TIME):
        chunk = documents[low:low + DOCUMENTS_AT_A_TIME + 1]
        offsets = sentences[chunk[0]:chunk[-1] + 1]
        offsets = cut_long_sentences(offsets, capacity, starts_word, split.read)
        parts.append(greedy_edges(offsets, sentences[chunk], capacity)[1:])
    return np.concatenate(parts)


def cut_long_sentences(offsets: np.ndarray, capacity: int, starts_word: np.ndarray, read: Callable[[int, int], np.ndarray]) -> np.ndarray:
    """Sentence offsets int64 [S + 1] with further ones inside sentences of more than `capacity` pieces, so that none is longer.

    A cut falls on the last word start that fits; inside a word only when that word alone is longer than `capacity`. `read(start, count)`
    gives ids.
    """
    cuts = []
    for sentence in np.flatnonzero(np.diff(offsets) > capacity):
        start, end = int(offsets[sentence]), int(offsets[sentence + 1])
        words = start + np.flatnonzero(starts_word[read(start, end - start)])  # addresses where a word begins
        while end - start > capacity:
            last = int(np.searchsorted(words, start + capacity, "right")) - 1
            fits = last >= 0 and words[last] > start
            start = int(words[last]) if fits else start + capacity
            cuts.append(start)
    return np.sort(np.concatenate([offsets, np.array(cuts, np.int64)])) if cuts else offsets


def greedy_edges(sentences: np.ndarray, documents: np.ndarray, capacity: int) -> np.ndarray:
    """Block edges: those of the sentence offsets `sentences` int64 [S + 1] where a block begins, and the end.

    `documents` int64 [documents + 1] are the addresses where documents begin, and the end. Each block takes sentences until the next one
    would not fit or its document ends. For every sentence at once we look up where a block that begins with it would end; the blocks then
    are one walk. Raises ValueError for a sentence of more than `capacity` pieces.
    """
    if np.any(np.diff(sentences) > capacity):
        raise ValueError(f"a sentence of {np.diff(sentences).max()} pieces in blocks of {capacity}")
    starts = sentences[:-1]
    document_end = documents[np.searchsorted(documents, starts, "right")]
    follower = np.searchsorted(sentences, np.minimum(starts + capacity, document_end), "right") - 1  # [S] first sentence of the next block
    follower = memoryview(follower)  # plain ints, several times faster to walk than an array
    chosen, sentence = [0], 0
    while sentence < len(follower):
        sentence = follower[sentence]
        chosen.append(sentence)
    return sentences[chosen]


def pack_blocks(lengths: np.ndarray, seq_len: int, max_blocks_per_row: int) -> np.ndarray:
    """Row number of each block, int64 [blocks]; `lengths` are in pieces with [CLS] and [SEP].

    Best fit decreasing: blocks from long to short (of equal ones the earlier first), each into the row with the least room that still
    holds it, or a new one. Rows with equal room are a stack, and the set of rooms in use is the bits of one integer, so a block costs
    constant time. Rows are numbered by their first block.
    """
    if max_blocks_per_row == 1:
        return np.arange(len(lengths))
    row_of_block = np.empty(len(lengths), np.int64)
    stacks = [[] for _ in range(seq_len + 1)]  # rows by the room they have left
    rooms = 0  # bit r: some row has room r
    fill = []  # blocks in each row
    for block in np.argsort(-lengths.astype(np.int64), kind="stable").tolist():
        length = int(lengths[block])
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = stacks[room].pop()
            if not stacks[room]:
                rooms ^= 1 << room
            fill[row] += 1
        else:
            room, row = seq_len, len(fill)
            fill.append(1)
        row_of_block[block] = row
        if fill[row] < max_blocks_per_row:
            stacks[room - length].append(row)
            rooms |= 1 << (room - length)
    first = np.unique(row_of_block, return_index=True)[1]  # [rows] first block of each row
    number = np.empty(len(first), np.int64)
    number[np.argsort(first)] = np.arange(len(first))
    return number[row_of_block]


class InvalidPlan(Exception):
    """A plan file that is cut short or was made for other settings: it is made anew."""


class Rows:
    """The rows of a split, read by number. Safe in threads; nothing of the corpus stays in memory.

    `num_rows`, `num_blocks`, and `padding_fraction`, the share of padding among all num_rows * seq_len places.
    """

    def __init__(self, split: Split, file, seq_len: int, max_blocks_per_row: int):
        self.split = split
        self.seq_len = seq_len
        self.max_blocks_per_row = max_blocks_per_row
        self._file = file
        header = np.frombuffer(os.pread(file.fileno(), 8 * HEADER, 0).ljust(8 * HEADER, b"\0"), "<i8")
        self.num_rows, self.num_blocks, pieces = (int(word) for word in header[3:])
        self._blocks_at = 8 * (HEADER + self.num_rows + 1)  # file address of the block table
        size = self._blocks_at + BLOCK.itemsize * self.num_blocks
        expected = [MAGIC, seq_len, max_blocks_per_row, split.num_tokens, size]
        if [*header[:3].tolist(), pieces, os.fstat(file.fileno()).st_size] != expected:
            raise InvalidPlan
        self.padding_fraction = 1 - (pieces + 2 * self.num_blocks) / (self.num_rows * seq_len) if self.num_rows else 0.0
        special = split.store.index["special_ids"]
        self._pad, self._cls, self._sep = (special[piece] for piece in ("[PAD]", "[CLS]", "[SEP]"))

    def blocks(self, row: int) -> np.ndarray:
        """Blocks of one row, in order: BLOCK [blocks in it], fields `start` (address in the split) and `length` (pieces)."""
        if not 0 <= row < self.num_rows:
            raise IndexError(f"row {row} of {self.num_rows}")
        low, high = np.frombuffer(os.pread(self._file.fileno(), 16, 8 * (HEADER + int(row))), "<i8").tolist()
        return np.frombuffer(os.pread(self._file.fileno(), BLOCK.itemsize * (high - low), self._blocks_at + BLOCK.itemsize * low), BLOCK)

    def read(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """Rows number `ids` int64 [n], in that order, as int32 arrays. Raises IndexError for a number that is no row's.

        tokens, segments, positions, token_types [n, L]: padding has segment and position 0 and the id of [PAD]; [CLS] and [SEP] carry
        their block's segment; positions restart in each block. block_start, block_length [n, N]: place in the row of the block's first
        piece after [CLS], and the number of pieces up to its [SEP]; both 0 where there is no block.
        """
        rows, blocks = len(ids), [self.blocks(row) for row in ids]
        counts = np.array([len(row) for row in blocks], np.int64)  # [n]
        flat = np.concatenate(blocks) if rows else np.empty(0, BLOCK)  # [K] all blocks of the batch
        row = np.repeat(np.arange(rows), counts)
        column = np.arange(len(flat)) - np.repeat(np.cumsum(counts) - counts, counts)  # [K] which block of its row
        length = flat["length"].astype(np.int64)
        ends = np.cumsum(length + 2)
        begin = ends - length - 2  # [K] place of [CLS] if the rows were one long line without padding
        begin -= np.repeat(begin[np.cumsum(counts) - counts], counts)  # and in its row

        result = {name: np.zeros((rows, self.seq_len), np.int32) for name in ("tokens", "segments", "positions", "token_types")}
        result |= {name: np.zeros((rows, self.max_blocks_per_row), np.int32) for name in ("block_start", "block_length")}
        result["block_start"][row, column] = begin + 1
        result["block_length"][row, column] = length

        inside = ragged_range(length + 2)  # places of each block with [CLS] and [SEP], one after another
        at = np.repeat(row * self.seq_len + begin, length + 2) + inside
        result["segments"].reshape(-1)[at] = np.repeat(column + 1, length + 2)
        result["positions"].reshape(-1)[at] = inside
        tokens = result["tokens"].reshape(-1)
        tokens[:] = self._pad
        tokens[at[ends - length - 2]] = self._cls
        tokens[at[ends - 1]] = self._sep
        content = np.ones(len(at), np.bool_)
        content[ends - length - 2] = content[ends - 1] = False
        texts = [self.split.read(start, count) for start, count in zip(flat["start"].tolist(), flat["length"].tolist(), strict=True)]
        tokens[at[content]] = np.concatenate(texts) if texts else []
        return result


def ragged_range(lengths: np.ndarray) -> np.ndarray:
    """0..n-1 for each n of `lengths`, one after another: int64 [sum of lengths]."""
    starts = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) - np.repeat(starts, lengths)

"""Made-up text for tests of masking and of the pipeline: a vocabulary, and rows with the tokens-per-word law of the golden statistics."""

import json
from pathlib import Path

import numpy as np

GOLDENS = Path(__file__).parents[1] / "goldens"
PAD, UNK, CLS, SEP, MASK = 0, 100, 101, 102, 103
VOCABULARY, FIRST_CONTINUATION = 2000, 1000  # as in golden_masking.json, a word starts where the token is below 1000


class Tokenizer:
    pad_id, cls_id, sep_id, mask_id = PAD, CLS, SEP, MASK
    starts_word = np.arange(VOCABULARY) < FIRST_CONTINUATION


def token_counts():
    counts = np.random.default_rng(5).integers(1, 1000, VOCABULARY)
    counts[:200] = 0
    return counts


def text(numbers, length, single=False):
    """`length` tokens that begin with a word; words have 1 to 5 tokens (single: all 1)."""
    law = json.loads((GOLDENS / "original_masking_stats.json").read_text())["meta"]["synthetic_wordpieces_per_word"]
    words = (
        np.ones(length, np.int64)
        if single
        else numbers.choice([int(tokens) for tokens in law], length, p=list(law.values()))
    )
    begins = np.cumsum(words) - words
    tokens = numbers.integers(FIRST_CONTINUATION, VOCABULARY, length)
    begins = begins[begins < length]
    tokens[begins] = numbers.integers(200, FIRST_CONTINUATION, len(begins))
    return tokens


def tags(numbers, length):
    """Numbers with two bits, each set in runs of 1 to 4 tokens, a few of them in a block; none in some blocks."""
    bits = np.zeros((2, length), np.int64)
    for kind in bits:
        for first in numbers.integers(0, length, int(numbers.integers(0, 2 + length // 20))):
            kind[first : first + numbers.integers(1, 5)] = 1
    return bits[0] + 2 * bits[1]


class Rows:
    """Rows of blocks of the given lengths: blocks[r] are the lengths in row r. Kept in memory, with the interface of blocks.Rows."""

    def __init__(self, seq_len, blocks, seed=0, single=False):
        numbers, more_numbers = np.random.default_rng(seed), np.random.default_rng([seed, 1])
        most = max(len(lengths) for lengths in blocks)
        self.num_rows = len(blocks)
        self.fields = {
            name: np.zeros((len(blocks), seq_len), np.int32)
            for name in ("tokens", "segments", "positions", "token_types")
        }
        self.fields |= {name: np.zeros((len(blocks), most), np.int32) for name in ("block_start", "block_length")}
        self.fields["tags"] = np.zeros((len(blocks), seq_len), np.int32)
        for row, lengths in enumerate(blocks):
            at = 0
            for number, length in enumerate(lengths):
                where = row, slice(at, at + length + 2)
                self.fields["tokens"][where] = [CLS, *text(numbers, length, single), SEP]
                self.fields["tags"][row, at + 1 : at + length + 1] = tags(more_numbers, length)
                self.fields["segments"][where] = number + 1
                self.fields["positions"][where] = np.arange(length + 2)
                self.fields["block_start"][row, number] = at + 1
                self.fields["block_length"][row, number] = length
                at += length + 2
            assert at <= seq_len

    def read(self, ids):
        return {name: field[ids] for name, field in self.fields.items()}


def random_blocks(numbers, rows, seq_len, most):
    """Lengths of up to `most` blocks for each of `rows` rows of seq_len tokens, of all sizes, some rows with room left over."""
    out = []
    for _ in range(rows):
        room, lengths = seq_len, []
        for _ in range(numbers.integers(1, most + 1)):
            if room >= 3:
                lengths.append(int(numbers.integers(1, room - 1)) if numbers.random() < 0.7 else room - 2)
                room -= lengths[-1] + 2
        out.append(lengths)
    return out

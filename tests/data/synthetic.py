"""Made-up vocabulary and rows for the tests of masking and of the pipeline, with as many tokens per word as the
goldens.
"""

import json
from pathlib import Path

import numpy as np

GOLDENS = Path(__file__).parents[1] / "goldens"
PAD, UNK, CLS, SEP, MASK = 0, 100, 101, 102, 103
# As in golden_masking.json, a word starts where the token is below 1000.
VOCABULARY, FIRST_CONTINUATION = 2000, 1000


class Tokenizer:
    pad_id, cls_id, sep_id, mask_id = PAD, CLS, SEP, MASK
    starts_word = np.arange(VOCABULARY) < FIRST_CONTINUATION


def token_counts():
    counts = np.random.default_rng(5).integers(1, 1000, VOCABULARY)
    counts[:200] = 0
    return counts


def text(numbers, length, single=False):
    """Returns `length` tokens that begin with a word; words have 1 to 5 tokens, or if `single` one."""
    if single:
        sizes = np.ones(length, np.int64)
    else:
        meta = json.loads((GOLDENS / "original_masking_stats.json").read_text())["meta"]
        probabilities = meta["synthetic_wordpieces_per_word"]
        sizes = numbers.choice([int(size) for size in probabilities], length, p=list(probabilities.values()))
    begins = np.cumsum(sizes) - sizes
    tokens = numbers.integers(FIRST_CONTINUATION, VOCABULARY, length)
    begins = begins[begins < length]
    tokens[begins] = numbers.integers(200, FIRST_CONTINUATION, len(begins))
    return tokens


def tags(numbers, length):
    """Returns a number per token with two bits for each of two kinds, set in no or a few intervals of 1 to 4 tokens.

    The second bit is that of where an interval begins; intervals often touch.
    """
    bits = np.zeros((2, 2, length), np.int64)
    for tagged, begins in bits:
        for first in numbers.integers(0, length, int(numbers.integers(0, 2 + length // 10))):
            tagged[first : first + numbers.integers(1, 5)] = 1
            begins[first] = 1
    return np.sum([kind[0] + 2 * kind[1] << 2 * number for number, kind in enumerate(bits)], 0)


class Rows:
    """Rows in memory with the interface of rows.Rows, of blocks of given lengths: blocks[r] are the lengths in row
    r.
    """

    def __init__(self, seq_len, blocks, seed=0, single=False):
        numbers, more_numbers = np.random.default_rng(seed), np.random.default_rng([seed, 1])
        most = max(len(lengths) for lengths in blocks)
        self.num_rows = len(blocks)
        per_token = ("tokens", "segments", "positions", "token_types", "tags")
        self.fields = {name: np.zeros((len(blocks), seq_len), np.int32) for name in per_token}
        self.fields |= {name: np.zeros((len(blocks), most), np.int32) for name in ("block_start", "block_length")}
        for row, lengths in enumerate(blocks):
            start = 0
            for number, length in enumerate(lengths):
                block = row, slice(start, start + length + 2)
                self.fields["tokens"][block] = [CLS, *text(numbers, length, single), SEP]
                self.fields["tags"][row, start + 1 : start + length + 1] = tags(more_numbers, length)
                self.fields["segments"][block] = number + 1
                self.fields["positions"][block] = np.arange(length + 2)
                self.fields["block_start"][row, number] = start + 1
                self.fields["block_length"][row, number] = length
                start += length + 2
            assert start <= seq_len

    def read(self, ids):
        return {name: field[ids] for name, field in self.fields.items()}


def random_blocks(numbers, rows, seq_len, most):
    """Returns lengths of up to `most` blocks for each of `rows` rows of seq_len tokens, some with room left over."""
    blocks = []
    for _ in range(rows):
        room, lengths = seq_len, []
        for _ in range(numbers.integers(1, most + 1)):
            if room >= 3:
                lengths.append(int(numbers.integers(1, room - 1)) if numbers.random() < 0.7 else room - 2)
                room -= lengths[-1] + 2
        blocks.append(lengths)
    return blocks

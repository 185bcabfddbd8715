"""Span masking in numpy: which tokens of a row are masked, and what replaces them.

The masking algorithm is the original's (Joshi et al., TACL 2020, section 3.1; docs/original.md 1.3 and 1.4). For each
block of n tokens:

1. A scheme (schemes.py) draws candidate spans one after another: an anchor token, and the first and last token of
   the span.
2. A candidate whose anchor is already masked is rejected. All tokens of any other candidate are masked, from the left,
   until ceil(rate * n) tokens of the block are masked: the last span ends there, possibly inside a word.
3. Consecutive masked tokens form one merged span. A replacement is drawn for each merged span, or for each token:
   [MASK], random tokens, or the text itself.

targets.py then lists what to predict.

Every draw is Threefry of (seed, stream, epoch, row) and a counter that identifies it (candidate or position, purpose,
and block in the row). So the masks of a row depend on nothing else: neither on its batch nor on threads or hosts. They
do depend on how blocks were packed into rows.

The blocks of all rows are processed together as flat lists. An "address" is the index of a token in the flattened
tokens [B * L].
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from spanbert_jax.data import random
from spanbert_jax.data.schemes import SCHEMES, Blocks, Candidates, Intervals, MaskingSettings, Text, tags_of

FIELDS = ("tokens", "tags", "block_start", "block_length")  # fields of rows that are masked; the rest goes on

# The fewest and most candidates of a block that are drawn at once. They change the speed, never a mask.
CANDIDATES = (4, 32)
SCHEME, CANDIDATE, REPLACEMENT, TOKEN = range(4)  # what a draw is for: the low bits of its counter's second word
PURPOSES = 4
TRAINING, EVALUATION = range(2)  # streams: what the key of a row is for; order.py defines the next ones


@functools.cache
def budgets(seq_len: int, rate: float) -> np.ndarray:
    """Returns int64 [L + 1]: how many tokens to mask in a block of n = 0..L tokens.

    That is ceil(rate * n) in float64, as the original computes it (docs/original.md 1.3.1).
    """
    return np.array([math.ceil(length * rate) for length in range(seq_len + 1)], np.int64)


def mask_slots(rate: float, layouts: list[tuple[int, int]]) -> int:
    """Returns M, the most tokens that can be masked in a row, whatever the lengths of its blocks.

    It is known before any text is read, so that batches have one shape. The budget of each block is rounded up.

    Args:
      rate: of masking.
      layouts: (number of blocks, number of text tokens in them together) of every kind of row.
    """
    budget = budgets(max(tokens for _, tokens in layouts), rate)
    best = {1: budget}  # blocks -> [n]: the most masked tokens of n tokens in so many blocks
    for blocks in range(2, max(blocks for blocks, _ in layouts) + 1):
        best[blocks] = np.array([np.max(best[blocks - 1][: n + 1] + budget[n::-1]) for n in range(len(budget))])
    return int(max(best[blocks][tokens] for blocks, tokens in layouts))


def place(candidates: Candidates, masked: np.ndarray, remaining: np.ndarray) -> np.ndarray:
    """Applies candidates in the order they were drawn, step 2 of the algorithm, for all blocks at once.

    Instead of one candidate after another, the first accepted candidate over each token is found for all tokens
    together: a candidate is accepted if no accepted one before it covers its anchor. Starting from "all are accepted",
    each pass settles those whose chain of earlier candidates is one longer. So the passes end, after a few, with the
    result of the sequential algorithm.

    Args:
      candidates: [G, C] addresses within the block of each.
      masked: bool [B * L], tokens masked before; the new ones are added to it.
      remaining: int64 [G], how many tokens each block may still mask.

    Returns:
      how many tokens of each block are new, int64 [G].
    """
    blocks, per_block = candidates.anchor.shape
    anchor, first, last = (field.reshape(-1) for field in candidates)  # [G * C], as all flat lists of candidates below
    count = len(anchor)
    number = np.arange(count)  # the order of drawing; blocks share no token, so one numbering serves all
    allowed = ~masked[anchor]
    lengths = last - first + 1
    owner = np.repeat(number, lengths)  # [E] every token of every candidate
    token = np.arange(len(owner)) + np.repeat(first - np.cumsum(lengths) + lengths, lengths)  # [E] its address
    cover = np.empty(len(masked), np.int64)  # [B * L] number of the first accepted candidate over each token

    accepted, settled = allowed, False
    while not settled:
        cover[:] = count
        used = accepted[owner]
        cover[token[used][::-1]] = owner[used][::-1]  # of several values for an element numpy keeps the last
        again = allowed & (cover[anchor] >= number)
        accepted, settled = again, np.array_equal(again, accepted)

    # [E], in the order in which tokens are masked.
    new = np.flatnonzero((cover[token] == owner) & ~masked[token])
    new_block = owner[new] // per_block
    gains = np.bincount(new_block, minlength=blocks)  # [G]
    rank = np.arange(len(new)) - (np.cumsum(gains) - gains)[new_block]  # within the block
    masked[token[new[rank < remaining[new_block]]]] = True  # the budget cuts the last span off
    return np.minimum(gains, remaining)


def _draw_masks(text: Text, blocks: Blocks, key: random.Key, settings: MaskingSettings, size: int) -> np.ndarray:
    """Returns bool [B * L], the masked tokens: draws candidates until the budget of every block is used up.

    Args:
      text, blocks: of the rows.
      key: two words [B].
      settings: of config.masking.
      size: B * L.
    """
    masked = np.zeros(size, np.bool_)
    remaining = blocks.budget.copy()
    drawn = 0
    while len(short := np.flatnonzero(remaining)):  # only blocks with a remaining budget are drawn for
        numbers = drawn + np.arange(np.clip(remaining.max() // 2, *CANDIDATES))
        candidates = _propose(text, blocks.take(short), numbers, key, settings)
        remaining[short] -= place(candidates, masked, remaining[short])
        drawn += len(numbers)
    return masked


def _propose(text: Text, blocks: Blocks, numbers: np.ndarray, key: random.Key, settings: MaskingSettings) -> Candidates:
    """Returns the candidates with these numbers [C] of some blocks, each by its block's scheme."""
    purpose = (CANDIDATE + PURPOSES * blocks.number).astype(np.uint32)[:, None]
    keys = key[0][blocks.row, None], key[1][blocks.row, None]
    bits = random.threefry(keys, (numbers.astype(np.uint32), purpose))
    proposed = [SCHEMES[name](text, blocks, bits, settings) for name in settings.schemes]
    chosen = proposed[0]
    for index, other in enumerate(proposed[1:], start=1):
        is_other = blocks.scheme[:, None] == index
        chosen = Candidates(*(np.where(is_other, b, a) for a, b in zip(chosen, other)))
    return chosen


def row_key(seed: int, stream: int, epoch: ArrayLike, row: np.ndarray) -> random.Key:
    """Returns the key of each row's draws, two uint32 words [B].

    seed and stream (training or evaluation) are Python ints, epoch and row int64 [B] (or one epoch for all rows).
    """
    epoch_words = np.asarray(epoch).astype(np.uint32), np.uint32(stream)
    return random.threefry(random.threefry(random.words(seed), epoch_words), random.words(row))


class Masked(NamedTuple):
    """The masked tokens of a batch, in the order of rows and positions. All int64 [T]; positions count from the row."""

    row: np.ndarray
    position: np.ndarray
    token: np.ndarray  # of the text, before its replacement
    first: np.ndarray  # position of the first token of its merged span
    last: np.ndarray
    block_first: np.ndarray  # position of the first token of its block
    block_last: np.ndarray


def mask_tokens(
    rows: dict[str, np.ndarray], key: random.Key, settings: MaskingSettings, counts_upto: np.ndarray, mask_id: int
) -> tuple[np.ndarray, Masked]:
    """Masks rows.

    Args:
      rows: tokens [B, L] int32; starts_word [B, L] bool, true where a word begins; block_start and block_length [B, N]
        int32 (length 0: no such block; blocks in order of position, a special token before each); for schemes that read
        tags also tags [B, L] int32 (of rows.Rows.read) for the kinds of tags_of(settings), 0 on special tokens.
      key: two uint32 words [B], of row_key.
      settings: of config.masking.
      counts_upto: int64 [V], cumulative sum of how often each token occurs in the training text: random replacements
        follow these frequencies (the original draws from its whole corpus, docs/original.md 1.4).
      mask_id: of [MASK].

    Returns:
      tokens [B, L] int32 with replacements, and what was masked.
    """
    length = rows["tokens"].shape[1]
    tokens = rows["tokens"].reshape(-1)  # [B * L]
    blocks = _blocks(rows, key, settings)
    is_masked = _draw_masks(_text(rows, settings), blocks, key, settings, tokens.size)
    address = np.flatnonzero(is_masked)  # [T]
    first, last = _merged_spans(address)
    block = blocks.take(np.searchsorted(blocks.start, address, side="right") - 1)
    masked = Masked(
        row=address // length,
        position=address % length,
        token=tokens[address].astype(np.int64),
        first=first % length,
        last=last % length,
        block_first=block.start % length,
        block_last=(block.start + block.length - 1) % length,
    )
    shown = tokens.copy()
    shown[address] = _replacements(masked, key, settings, counts_upto, mask_id)
    return shown.reshape(rows["tokens"].shape), masked


def _merged_spans(address: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first and last address [T] of the merged span (consecutive addresses) of each masked address [T].

    [CLS] and [SEP], which are never masked, separate the spans of two blocks.
    """
    begins = np.flatnonzero(np.diff(address, prepend=-2) != 1)  # [spans]
    lengths = np.diff(begins, append=len(address))
    return np.repeat(address[begins], lengths), np.repeat(address[begins + lengths - 1], lengths)


def _replacements(
    masked: Masked, key: random.Key, settings: MaskingSettings, counts_upto: np.ndarray, mask_id: int
) -> np.ndarray:
    """Returns what the model sees at each masked token, int64 [T]: [MASK], a random token, or the text."""
    decisive = masked.first if settings.replacement == "span" else masked.position  # the position whose draw decides
    fractions = [settings.mask_fraction, settings.random_fraction]
    cuts = random.cut_points([*fractions, 1 - settings.mask_fraction - settings.random_fraction])
    choice = random.choose(_draw_at(key, masked.row, decisive, REPLACEMENT)[0], cuts)
    shown = np.where(choice == 0, mask_id, masked.token)
    replaced = np.flatnonzero(choice == 1)
    bits = _draw_at(key, masked.row[replaced], masked.position[replaced], TOKEN)
    shown[replaced] = _random_tokens(bits, counts_upto)
    return shown


def _blocks(rows: dict[str, np.ndarray], key: random.Key, settings: MaskingSettings) -> Blocks:
    """Returns the blocks of all rows, each with its budget and its scheme."""
    seq_len = rows["tokens"].shape[1]
    row, number = np.nonzero(rows["block_length"])  # [G] each, by row, then by number
    length = rows["block_length"][row, number].astype(np.int64)
    start = rows["block_start"][row, number] + row * seq_len
    purpose = (SCHEME + PURPOSES * number).astype(np.uint32)
    bits = random.threefry((key[0][row], key[1][row]), (np.uint32(0), purpose))[0]
    scheme = random.choose(bits, random.cut_points(settings.weights))
    return Blocks(row, number, start, length, budgets(seq_len, settings.rate)[length], scheme)


def _text(rows: dict[str, np.ndarray], settings: MaskingSettings) -> Text:
    """Returns the words of the rows, flat, and the intervals of tagged tokens."""
    starts = rows["starts_word"].reshape(-1)
    word_start = np.append(np.flatnonzero(starts), starts.size)
    tagged = {}
    for number, kind in enumerate(tags_of(settings)):
        bits = rows["tags"].reshape(-1) >> 2 * number
        is_tagged = bits & 1 == 1
        begins = is_tagged & ~np.append(False, is_tagged[:-1])
        if settings.touching_tags == "apart":
            begins |= is_tagged & (bits & 2 == 2)
        ends = is_tagged & ~np.append(is_tagged[1:] & ~begins[1:], False)
        tagged[kind] = Intervals(np.flatnonzero(begins), np.flatnonzero(ends))
    return Text(np.cumsum(starts) - 1, word_start, tagged)


def _draw_at(key: random.Key, row: np.ndarray, position: np.ndarray, purpose: int) -> random.Key:
    """Returns the draws, two words [T], of tokens at positions [T] in rows [T]; key: two words [B]."""
    return random.threefry((key[0][row], key[1][row]), (position.astype(np.uint32), np.uint32(purpose)))


def _random_tokens(bits: random.Key, counts_upto: np.ndarray) -> np.ndarray:
    """Returns int64 [T] tokens drawn by their counts: the tokens at uniform indices of the sorted corpus."""
    return np.searchsorted(counts_upto, random.below_wide(bits, counts_upto[-1]), side="right")

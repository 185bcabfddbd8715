"""Span masking as pure tf ops: which tokens of a row are masked, and what replaces them.

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
import tensorflow as tf

from spanbert_jax.data import random
from spanbert_jax.data.schemes import SCHEMES, Blocks, Candidates, Intervals, MaskingSettings, Text, tags_of

FIELDS = ("tokens", "tags", "block_start", "block_length")  # fields of rows that masking reads; the rest goes on

# The fewest and most candidates of a block that are drawn at once. They change the speed, never a mask.
CANDIDATES = (4, 32)
SCHEME, CANDIDATE, REPLACEMENT, TOKEN = range(4)  # what a draw is for: the low bits of its counter's second word
PURPOSES = 4


@functools.cache
def budgets(seq_len: int, rate: float) -> np.ndarray:
    """Returns int32 [L + 1]: how many tokens to mask in a block of n = 0..L tokens.

    That is ceil(rate * n) in float64, as the original computes it (docs/original.md 1.3.1).
    """
    return np.array([math.ceil(length * rate) for length in range(seq_len + 1)], np.int32)


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


def place(candidates: Candidates, masked: tf.Tensor, remaining: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Applies candidates in the order they were drawn, step 2 of the algorithm, for all blocks at once.

    Instead of one candidate after another, the first accepted candidate over each token is found for all tokens
    together: a candidate is accepted if no accepted one before it covers its anchor. Starting from "all are accepted",
    each pass settles those whose chain of earlier candidates is one longer. So the passes end, after a few, with the
    result of the sequential algorithm.

    Args:
      candidates: [G, C] addresses within the block of each.
      masked: bool [B * L], tokens masked before.
      remaining: int32 [G], how many tokens each block may still mask.

    Returns:
      masked [B * L] with the new tokens, and how many tokens of each block are new, int32 [G].
    """
    shape = tf.shape(candidates.anchor)
    count = shape[0] * shape[1]
    anchor = tf.reshape(candidates.anchor, [-1])  # [G * C], as all flat lists of candidates below
    first = tf.reshape(candidates.first, [-1])
    lengths = tf.reshape(candidates.last, [-1]) - first + 1
    number = tf.range(count)  # the order of drawing; blocks share no token, so one numbering serves all
    allowed = ~tf.gather(masked, anchor)

    ends = tf.cumsum(lengths)
    owner = tf.repeat(number, lengths)  # [E] every token of every candidate
    token = tf.range(tf.size(owner)) + tf.gather(first - ends + lengths, owner)  # [E] its address

    def cover(accepted):  # [B * L] number of the first accepted candidate over each token
        return tf.math.unsorted_segment_min(tf.where(tf.gather(accepted, owner), owner, count), token, tf.size(masked))

    def settle(accepted, _):
        again = allowed & (tf.gather(cover(accepted), anchor) >= number)
        return again, tf.reduce_any(again != accepted)

    accepted, _ = tf.while_loop(lambda _, changed: changed, settle, (allowed, True))

    # [E], in the order in which tokens are masked.
    new = (tf.gather(cover(accepted), token) == owner) & ~tf.gather(masked, token)
    new_block = tf.boolean_mask(owner // shape[1], new)
    new_token = tf.boolean_mask(token, new)
    gains = tf.math.bincount(new_block, minlength=shape[0], maxlength=shape[0])  # [G]
    rank = tf.range(tf.size(new_token)) - tf.gather(tf.cumsum(gains, exclusive=True), new_block)  # within the block
    kept = tf.boolean_mask(new_token, rank < tf.gather(remaining, new_block))  # the budget cuts the last span off
    masked = tf.tensor_scatter_nd_update(masked, kept[:, None], tf.ones_like(kept, tf.bool))
    return masked, tf.minimum(gains, remaining)


def _draw_masks(text: Text, blocks: Blocks, key: random.Key, settings: MaskingSettings, size: tf.Tensor) -> tf.Tensor:
    """Returns bool [B * L], the masked tokens: draws candidates until the budget of every block is used up.

    Args:
      text, blocks: of the rows.
      key: two words [B].
      settings: of config.masking.
      size: B * L.
    """

    def propose(part: Blocks, numbers: tf.Tensor) -> Candidates:
        counter = tf.cast(numbers, tf.uint32)  # [C]
        purpose = tf.cast(CANDIDATE + PURPOSES * part.number, tf.uint32)[:, None]
        bits = random.threefry(tuple(tf.gather(word, part.row)[:, None] for word in key), (counter, purpose))
        proposed = [SCHEMES[name](text, part, bits, settings) for name in settings.schemes]
        chosen = proposed[0]
        for index, other in enumerate(proposed[1:], start=1):
            chosen = Candidates(*(tf.where(part.scheme[:, None] == index, b, a) for a, b in zip(chosen, other)))
        return chosen

    def draw(masked, remaining, drawn):
        short = tf.where(remaining > 0)[:, 0]  # only blocks with a remaining budget are drawn for
        numbers = drawn + tf.range(tf.clip_by_value(tf.reduce_max(remaining) // 2, *CANDIDATES))
        masked, gained = place(propose(blocks.take(short), numbers), masked, tf.gather(remaining, short))
        return masked, tf.tensor_scatter_nd_sub(remaining, short[:, None], gained), drawn + tf.size(numbers)

    start = (tf.zeros([size], tf.bool), blocks.budget, 0)
    return tf.while_loop(lambda masked, remaining, drawn: tf.reduce_any(remaining > 0), draw, start)[0]


def row_key(seed: int, stream: int, epoch: tf.Tensor, row: tf.Tensor) -> random.Key:
    """Returns the key of each row's draws, two uint32 words [B].

    seed and stream (training or evaluation) are Python ints, epoch and row int64 [B].
    """
    epoch_words = tf.cast(epoch, tf.uint32), tf.fill(tf.shape(epoch), np.uint32(stream))
    return random.threefry(random.threefry(random.words(seed), epoch_words), random.words(row))


class Masked(NamedTuple):
    """The masked tokens of a batch, in the order of rows and positions. All int32 [T]; positions count from the row."""

    row: tf.Tensor
    position: tf.Tensor
    token: tf.Tensor  # of the text, before its replacement
    first: tf.Tensor  # position of the first token of its merged span
    last: tf.Tensor
    block_first: tf.Tensor  # position of the first token of its block
    block_last: tf.Tensor


def mask_tokens(
    rows: dict[str, tf.Tensor],
    key: random.Key,
    settings: MaskingSettings,
    starts_word: tf.Tensor,
    counts_upto: tf.Tensor,
    mask_id: int,
) -> tuple[tf.Tensor, Masked]:
    """Masks rows.

    Args:
      rows: FIELDS: tokens [B, L] int32, block_start and block_length [B, N] int32 (length 0: no such block; blocks in
        order of position, a special token before each); for schemes that read tags also tags [B, L] int32, bit k for
        kind k of tags_of(settings), 0 on special tokens.
      key: two uint32 words [B], of row_key.
      settings: of config.masking.
      starts_word: bool [V].
      counts_upto: int64 [V], cumulative sum of how often each token occurs in the training text: random replacements
        follow these frequencies (the original draws from its whole corpus, docs/original.md 1.4).
      mask_id: of [MASK].

    Returns:
      tokens [B, L] int32 with replacements, and what was masked.
    """
    shape = tf.shape(rows["tokens"])
    length = shape[1]
    tokens = tf.reshape(rows["tokens"], [-1])  # [B * L]
    blocks = _blocks(rows, key, settings, length)
    is_masked = _draw_masks(_text(rows, starts_word, settings), blocks, key, settings, tf.size(tokens))
    address = _addresses(is_masked)  # [T]
    first, last = _merged_spans(address)
    block = blocks.take(tf.searchsorted(blocks.start, address, side="right") - 1)
    masked = Masked(
        row=address // length,
        position=address % length,
        token=tf.gather(tokens, address),
        first=first % length,
        last=last % length,
        block_first=block.start % length,
        block_last=(block.start + block.length - 1) % length,
    )
    shown = _replacements(masked, key, settings, counts_upto, mask_id)
    return tf.reshape(tf.tensor_scatter_nd_update(tokens, address[:, None], shown), shape), masked


def _merged_spans(address: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the first and last address [T] of the merged span (consecutive addresses) of each masked address [T].

    [CLS] and [SEP], which are never masked, separate the spans of two blocks.
    """
    begins = tf.concat([[True], address[1:] != address[:-1] + 1], 0)[: tf.size(address)]
    ends = tf.concat([begins[1:], [True]], 0)[: tf.size(address)]
    number = tf.cumsum(tf.cast(begins, tf.int32)) - 1  # [T] of the merged span
    return tf.gather(tf.boolean_mask(address, begins), number), tf.gather(tf.boolean_mask(address, ends), number)


def _replacements(
    masked: Masked, key: random.Key, settings: MaskingSettings, counts_upto: tf.Tensor, mask_id: int
) -> tf.Tensor:
    """Returns what the model sees at each masked token, int32 [T]: [MASK], a random token, or the text."""
    decisive = masked.first if settings.replacement == "span" else masked.position  # the position whose draw decides
    keys = tuple(tf.gather(word, masked.row) for word in key)
    random_token = _random_tokens(_draw_at(keys, masked.position, TOKEN), counts_upto)
    fractions = [settings.mask_fraction, settings.random_fraction]
    cuts = random.cut_points([*fractions, 1 - settings.mask_fraction - settings.random_fraction])
    choice = random.choose(_draw_at(keys, decisive, REPLACEMENT)[0], cuts)
    return tf.where(choice == 0, mask_id, tf.where(choice == 1, random_token, masked.token))


def _blocks(rows: dict[str, tf.Tensor], key: random.Key, settings: MaskingSettings, seq_len: tf.Tensor) -> Blocks:
    """Returns the blocks of all rows, each with its budget and its scheme."""
    where = tf.where(rows["block_length"] > 0)  # [G, 2], by row, then by number
    row, number = tf.unstack(tf.cast(where, tf.int32), axis=1)
    length = tf.gather_nd(rows["block_length"], where)
    start = tf.gather_nd(rows["block_start"], where) + row * seq_len
    longest = rows["tokens"].shape[1]
    budget = tf.gather(budgets(longest, settings.rate), length)
    purpose = tf.cast(SCHEME + PURPOSES * number, tf.uint32)
    bits = random.threefry(tuple(tf.gather(word, row) for word in key), (np.uint32(0), purpose))[0]
    return Blocks(row, number, start, length, budget, random.choose(bits, random.cut_points(settings.weights)))


def _text(rows: dict[str, tf.Tensor], starts_word: tf.Tensor, settings: MaskingSettings) -> Text:
    """Returns the words of the rows, flat, and the intervals of tagged tokens.

    A word begins at each token that does not begin with ## (docs/original.md 1.3.3).
    """
    starts = tf.gather(starts_word, tf.reshape(rows["tokens"], [-1]))
    word_start = tf.concat([_addresses(starts), [tf.size(starts)]], 0)
    tagged = {}
    for bit, kind in enumerate(tags_of(settings)):
        is_tagged = tf.reshape(rows["tags"] // 2**bit % 2 == 1, [-1])
        before, after = (tf.concat(parts, 0) for parts in (([False], is_tagged[:-1]), (is_tagged[1:], [False])))
        tagged[kind] = Intervals(_addresses(is_tagged & ~before), _addresses(is_tagged & ~after))
    return Text(tf.cumsum(tf.cast(starts, tf.int32)) - 1, word_start, tagged)


def _addresses(where: tf.Tensor) -> tf.Tensor:
    """Returns the addresses, int32, at which a flat bool tensor is true."""
    return tf.cast(tf.where(where)[:, 0], tf.int32)


def _draw_at(key: random.Key, position: tf.Tensor, purpose: int) -> random.Key:
    """Returns the draws, two words [T], of tokens at positions [T] in rows with keys [T]."""
    return random.threefry(key, (tf.cast(position, tf.uint32), np.uint32(purpose)))


def _random_tokens(bits: random.Key, counts_upto: tf.Tensor) -> tf.Tensor:
    """Returns int32 [T] tokens drawn by their counts: the tokens at uniform indices of the sorted corpus."""
    return tf.searchsorted(counts_upto, random.below_wide(bits, counts_upto[-1]), side="right")

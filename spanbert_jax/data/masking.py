"""Span masking as pure tf ops: which tokens of a row are masked, what replaces them, and what the model must predict of them.

The law is the original's (Joshi et al., TACL 2020, section 3.1; reference sections 1.3 and 1.4). For each block of n tokens:

1. Candidate spans are drawn one after another by a scheme (schemes.py): an anchor token, and the first and last token of the span.
2. A candidate whose anchor is already masked is rejected; of any other, all tokens are masked, from the left, until ceil(rate * n) tokens
   of the block are: the last span is cut there, inside a word if need be.
3. Masked tokens that touch make one merged span. A fate is drawn for each ([MASK], random tokens, or kept), or for each token.
4. Every masked token is an MLM target; and an SBO target, seen from the two tokens around its merged span, unless one of these would be
   [CLS] or [SEP], or the token is beyond the first `max_targets` of the span.

Every draw is Threefry of (seed, stream, epoch, row) and a counter that names it (candidate or position, purpose and block in the row), so a
row's masks depend on nothing else: not on the batch it is in, nor on threads or hosts. They do depend on how blocks were packed into rows.

Blocks of all rows are worked on together as flat lists. "Address" is the index of a token in the flattened [B * L] tokens.
"""

import functools
import math

import numpy as np
import tensorflow as tf

from spanbert_jax.data import random
from spanbert_jax.data.schemes import SCHEMES, Blocks, Candidates, MaskingSettings, Runs, Text, tags_of

CANDIDATES = (
    4,
    32,
)  # least and most of a block drawn at a time, until its budget is spent. Changes speed only, never a mask
SCHEME, CANDIDATE, FATE, TOKEN = range(4)  # what a draw is for: the low bits of its counter's second word
PURPOSES = 4


@functools.cache
def budgets(seq_len: int, rate: float) -> np.ndarray:
    """int32 [L + 1]: tokens to mask in a block of 0..L tokens, ceil(rate * n) in float64 as the original computes it (reference 1.3.1)."""
    return np.array([math.ceil(length * rate) for length in range(seq_len + 1)], np.int32)


def mask_slots(rate: float, layouts: list[tuple[int, int]]) -> int:
    """M: the most tokens that can be masked in a row, whatever the lengths of its blocks.

    Known before any text is read, so that batches have one shape. Each block has its own rounding up. layouts: (blocks in a row, tokens of
    text in them together) of every kind of row.
    """
    budget = budgets(max(tokens for _, tokens in layouts), rate)
    best = {1: budget}  # blocks -> [n]: the most of n tokens in so many blocks
    for blocks in range(2, max(blocks for blocks, _ in layouts) + 1):
        best[blocks] = np.array([np.max(best[blocks - 1][: n + 1] + budget[n::-1]) for n in range(len(budget))])
    return int(max(best[blocks][tokens] for blocks, tokens in layouts))


def place(candidates: Candidates, masked: tf.Tensor, room: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Carries out candidates in the order they were drawn: the law's step 2, for all blocks at once.

    Instead of one candidate after another, the first accepted candidate over each token is found for all tokens together: a candidate is
    accepted if none before it lies over its anchor. Starting from "all are accepted", each pass settles those whose chain of earlier
    candidates is one longer, so the passes end, after a few, with the one answer that the sequential law gives.

    candidates: [G, C] addresses, each block's within that block.  masked: [B * L] bool, tokens masked before.
    room: [G] int32, how many tokens each block may still mask.
    Returns masked [B * L] with the new tokens, and how many each block got, [G] int32.
    """
    shape = tf.shape(candidates.anchor)
    count = shape[0] * shape[1]
    anchor = tf.reshape(candidates.anchor, [-1])  # [G * C], as all flat lists of candidates below
    first = tf.reshape(candidates.first, [-1])
    lengths = tf.reshape(candidates.last, [-1]) - first + 1
    number = tf.range(count)  # order of drawing within a block; blocks share no token, so one numbering does for all
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

    new = (tf.gather(cover(accepted), token) == owner) & ~tf.gather(
        masked, token
    )  # [E] in the order the law masks them
    new_block = tf.boolean_mask(owner // shape[1], new)
    new_token = tf.boolean_mask(token, new)
    gains = tf.math.bincount(new_block, minlength=shape[0], maxlength=shape[0])  # [G]
    rank = tf.range(tf.size(new_token)) - tf.gather(tf.cumsum(gains, exclusive=True), new_block)  # within the block
    kept = tf.boolean_mask(new_token, rank < tf.gather(room, new_block))  # the budget cuts the last span
    masked = tf.tensor_scatter_nd_update(masked, kept[:, None], tf.ones_like(kept, tf.bool))
    return masked, tf.minimum(gains, room)


def _draw_masks(text: Text, blocks: Blocks, key: random.Key, settings: MaskingSettings, size: tf.Tensor) -> tf.Tensor:
    """[B * L] bool: the masked tokens. `key`: two words [B]; `size`: B * L. Draws candidates until every block has spent its budget."""

    def propose(part: Blocks, numbers: tf.Tensor) -> Candidates:
        counter = tf.cast(numbers, tf.uint32)  # [C]
        purpose = tf.cast(CANDIDATE + PURPOSES * part.number, tf.uint32)[:, None]
        bits = random.threefry(tuple(tf.gather(word, part.row)[:, None] for word in key), (counter, purpose))
        proposed = [SCHEMES[name](text, part, bits, settings) for name in settings.schemes]
        chosen = proposed[0]
        for index, other in enumerate(proposed[1:], start=1):
            chosen = Candidates(*(tf.where(part.scheme[:, None] == index, b, a) for a, b in zip(chosen, other)))
        return chosen

    def draw(masked, room, drawn):
        short = tf.where(room > 0)[:, 0]  # only blocks that still have room are drawn for
        numbers = drawn + tf.range(tf.clip_by_value(tf.reduce_max(room) // 2, *CANDIDATES))
        masked, gained = place(propose(blocks.take(short), numbers), masked, tf.gather(room, short))
        return masked, tf.tensor_scatter_nd_sub(room, short[:, None], gained), drawn + tf.size(numbers)

    start = (tf.zeros([size], tf.bool), blocks.budget, 0)
    return tf.while_loop(lambda masked, room, drawn: tf.reduce_any(room > 0), draw, start)[0]


# ---------------------------------------------------------------------------------------------------------------------------------------
# Targets.


def row_key(seed: int, stream: int, epoch: tf.Tensor, row: tf.Tensor) -> random.Key:
    """The key of each row's draws. seed, stream (training, evaluation): Python ints; epoch, row: int64 [B]. Two uint32 words [B]."""
    epoch_words = tf.cast(epoch, tf.uint32), tf.fill(tf.shape(epoch), np.uint32(stream))
    return random.threefry(random.threefry(random.words(seed), epoch_words), random.words(row))


def mask(
    rows: dict[str, tf.Tensor],
    key: random.Key,
    settings: MaskingSettings,
    slots: int,
    starts_word: tf.Tensor,
    counts_upto: tf.Tensor,
    mask_id: int,
) -> dict[str, tf.Tensor]:
    """Masks rows and lists what to predict.

    rows: tokens [B, L] int32, block_start and block_length [B, N] int32 (length 0: no such block; blocks in order of position, a special
    token before each); for schemes that look at tags also tags [B, L] int32, bit k for kind k of tags_of(settings), 0 on special tokens.
    key: two uint32 words [B], of `row_key`. slots: M, of `mask_slots`. starts_word: bool [V]. counts_upto: int64 [V], cumulative sum of how
    often each token occurs in the training text: random replacements follow it (the original draws from its whole corpus, reference 1.4).
    Returns tokens [B, L] int32 with replacements; mlm_positions, mlm_targets [B, M] int32, mlm_weights [B, M] float32; sbo_left, sbo_right,
    sbo_offset, sbo_targets [B, M] int32, sbo_weights [B, M] float32. Slot i of both kinds speaks of the i-th masked token of the row. Slots
    without a target are 0 throughout. sbo_left and sbo_right are positions in the row, sbo_offset the token's place in its merged span.
    """
    shape = tf.shape(rows["tokens"])
    length = shape[1]
    tokens = tf.reshape(rows["tokens"], [-1])  # [B * L]
    blocks = _blocks(rows, key, settings, length)
    masked = _draw_masks(_text(rows, starts_word, settings), blocks, key, settings, tf.size(tokens))
    address = _addresses(masked)  # [T] all masked tokens, in order
    row = address // length

    begins = tf.concat([[True], address[1:] != address[:-1] + 1], 0)[
        : tf.size(address)
    ]  # [CLS] and [SEP] part the runs of two blocks
    ends = tf.concat([begins[1:], [True]], 0)[: tf.size(address)]
    run = tf.cumsum(tf.cast(begins, tf.int32)) - 1  # [T] number of the merged span
    first = tf.gather(tf.boolean_mask(address, begins), run)
    last = tf.gather(tf.boolean_mask(address, ends), run)

    target = tf.gather(tokens, address)
    spoken = first if settings.replacement == "span" else address  # the token whose draw decides the fate
    draws = tuple(tf.gather(word, row) for word in key)
    fate = _draw_at(draws, spoken % length, FATE)[0]
    drawn_token = _random_tokens(_draw_at(draws, address % length, TOKEN), counts_upto)
    cuts = random.cut_points(
        [settings.mask_fraction, settings.random_fraction, 1 - settings.mask_fraction - settings.random_fraction]
    )
    outcome = random.choose(fate, cuts)  # 0: [MASK], 1: random token, 2: kept
    shown = tf.where(outcome == 0, mask_id, tf.where(outcome == 1, drawn_token, target))

    outside = settings.boundaries == "external"
    block = blocks.take(tf.searchsorted(blocks.start, address, side="right") - 1)
    bounded = (first > block.start) & (last < block.start + block.length - 1) if outside else tf.ones_like(begins)
    offset = address - first
    seen = bounded & (offset < settings.max_targets)
    left, right = (first - 1, last + 1) if outside else (first, last)

    columns = [address % length, target, tf.ones_like(target)]
    columns += [
        tf.where(seen, value, 0) for value in (left % length, right % length, offset, target, tf.ones_like(target))
    ]
    columns = _to_slots(tf.stack(columns, 1), row, shape[0], slots)
    names = (
        "mlm_positions",
        "mlm_targets",
        "mlm_weights",
        "sbo_left",
        "sbo_right",
        "sbo_offset",
        "sbo_targets",
        "sbo_weights",
    )
    out = {
        name: tf.cast(column, tf.float32) if name.endswith("weights") else column
        for name, column in zip(names, columns)
    }
    out["tokens"] = tf.reshape(tf.tensor_scatter_nd_update(tokens, address[:, None], shown), shape)
    return out


def _blocks(rows: dict[str, tf.Tensor], key: random.Key, settings: MaskingSettings, seq_len: tf.Tensor) -> Blocks:
    """The list of blocks that are there, each with its budget and its scheme."""
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
    """Words of the rows, flat: one begins at each token that does not begin with ## (reference 1.3.3). And the runs of tagged tokens."""
    starts = tf.gather(starts_word, tf.reshape(rows["tokens"], [-1]))
    word_start = tf.concat([_addresses(starts), [tf.size(starts)]], 0)
    tagged = {}
    for bit, kind in enumerate(tags_of(settings)):
        there = tf.reshape(rows["tags"] // 2**bit % 2 == 1, [-1])
        before, after = (tf.concat(parts, 0) for parts in (([False], there[:-1]), (there[1:], [False])))
        tagged[kind] = Runs(_addresses(there & ~before), _addresses(there & ~after))
    return Text(tf.cumsum(tf.cast(starts, tf.int32)) - 1, word_start, tagged)


def _addresses(where: tf.Tensor) -> tf.Tensor:
    """int32 addresses at which a flat bool tensor is true."""
    return tf.cast(tf.where(where)[:, 0], tf.int32)


def _draw_at(key: random.Key, position: tf.Tensor, purpose: int) -> random.Key:
    """Two words [T] for tokens at positions [T] of rows with keys [T]."""
    return random.threefry(key, (tf.cast(position, tf.uint32), np.uint32(purpose)))


def _random_tokens(bits: random.Key, counts_upto: tf.Tensor) -> tf.Tensor:
    """int32 [T] tokens with odds exactly as their counts: the token at a uniform place of the corpus in sorted order."""
    return tf.searchsorted(counts_upto, random.below_wide(bits, counts_upto[-1]), side="right")


def _to_slots(values: tf.Tensor, row: tf.Tensor, rows: tf.Tensor, slots: int) -> list[tf.Tensor]:
    """Columns of values [T, K], sorted by their rows [T], as K tensors [B, M], zero where a row has fewer than M."""
    counts = tf.math.bincount(row, minlength=rows, maxlength=rows)  # [B]
    slot = tf.range(tf.size(row)) - tf.gather(tf.cumsum(counts, exclusive=True), row)
    width = values.shape[1]
    dense = tf.scatter_nd((row * slots + slot)[:, None], values, [rows * slots, width])
    return [tf.reshape(column, [rows, slots]) for column in tf.unstack(dense, axis=1)]

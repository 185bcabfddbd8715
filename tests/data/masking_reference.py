"""The masking algorithm in plain Python, one block and one token at a time (docs/original.md 1.2 to 1.4).

It is slow, and meant to be read. Its random choices come from a `draws` object, so that the same algorithm can be given
the original's random numbers or the library's:

    draws.candidates(length) -> iterator of (anchor, words): a span of so many words from the word of the anchor, which
        is in 0..length-1; words 0: the anchor alone. Instead of words also (first, last) of a tagged interval; with
        anchor None it is never rejected.
    draws.replacement(position) -> number in [0, 1): below mask_fraction [MASK], then random tokens, then unchanged
    draws.random_token(position) -> random replacement token
"""

import math

import numpy as np

SBO_FIELDS = ("sbo_left", "sbo_right", "sbo_offset", "sbo_targets", "sbo_weights")
TAG_KINDS = {"named_entity": "entities", "noun_phrase": "phrases", "pmi": "ngrams"}  # of the schemes that use tags


def masked_tokens(starts_word, rate, candidates):
    """Returns the masked tokens of one block as a set.

    Args:
      starts_word: one bool per token.
      rate: share of the tokens to mask.
      candidates: iterator of (anchor, words).
    """
    length = len(starts_word)
    budget = math.ceil(length * rate)
    masked = set()
    while len(masked) < budget:
        anchor, words = next(candidates)
        if anchor in masked:
            continue
        for index in range(words[0], words[1] + 1) if isinstance(words, tuple) else span(starts_word, anchor, words):
            if len(masked) < budget:
                masked.add(index)
    return masked


def span(starts_word, anchor, words):
    """Returns the tokens of `words` words from the anchor's word on, up to the end of the block."""
    if not words:
        return [anchor]
    first = anchor
    while first > 0 and not starts_word[first]:
        first -= 1
    tokens = [first]
    for index in range(first + 1, len(starts_word)):
        words -= bool(starts_word[index])
        if not words:
            break
        tokens.append(index)
    return tokens


def merge(masked):
    """Returns the maximal intervals of masked tokens as (first, last), from left to right."""
    spans = []
    for index in sorted(masked):
        if spans and spans[-1][1] == index - 1:
            spans[-1] = (spans[-1][0], index)
        else:
            spans.append((index, index))
    return spans


def tagged_intervals(tags, kind, touching):
    """Returns the intervals of one kind of tags as (first, last): bit 2 * kind is tagged, the next one begins here."""
    intervals = []
    for index, tag in enumerate(tags):
        if tag >> 2 * kind & 1:
            continues = intervals and intervals[-1][1] == index - 1
            if continues and not (touching == "apart" and tag >> 2 * kind & 2):
                intervals[-1] = (intervals[-1][0], index)
            else:
                intervals.append((index, index))
    return intervals


def replace(sentence, spans, replacement, mask_fraction, random_fraction, mask_id, draws):
    """Returns the sentence as the model sees it. `replacement`: "span" or "token", what one draw is for."""
    shown = list(sentence)
    for first, last in spans:
        draw = draws.replacement(first)
        for index in range(first, last + 1):
            if replacement == "token":
                draw = draws.replacement(index)
            if draw < mask_fraction:
                shown[index] = mask_id
            elif draw < mask_fraction + random_fraction:
                shown[index] = draws.random_token(index)
    return shown


def pair_rows(sentence, spans, boundaries, max_targets):
    """Returns [left, right, targets...] of each span with both boundaries in the block, with exactly max_targets
    targets.
    """
    rows = []
    for first, last in spans:
        left, right = (first - 1, last + 1) if boundaries == "external" else (first, last)
        if left >= 0 and right < len(sentence):
            targets = list(sentence[first : last + 1])[:max_targets]
            rows.append([left, right] + targets + [0] * (max_targets - len(targets)))
    return rows


# ----------------------------------------------------------------------------------------------------------------------
# The library's draws and its output of a whole row.


def threefry(key, counter):
    """Returns Threefry-2x32-20 of a key and a counter, with Python integers."""
    mask = 2**32 - 1
    keys = (*key, key[0] ^ key[1] ^ 0x1BD11BDA)
    x0, x1 = (counter[0] + keys[0]) & mask, (counter[1] + keys[1]) & mask
    for number in range(1, 21):
        x0 = (x0 + x1) & mask
        rotation = (13, 15, 26, 6, 17, 29, 16, 24)[(number - 1) % 8]
        x1 = ((x1 << rotation) & mask | x1 >> (32 - rotation)) ^ x0
        if number % 4 == 0:
            x0 = (x0 + keys[number // 4 % 3]) & mask
            x1 = (x1 + keys[(number // 4 + 1) % 3] + number // 4) & mask
    return x0, x1


class CounterDraws:
    """The draws for block number `block`, which begins at position `start` of a row, as in
    spanbert_jax/data/masking.py.
    """

    def __init__(self, key, block, start, settings, token_counts, tags):
        self.key, self.block, self.start, self.settings = key, block, start, settings
        self.cumulative_counts = np.cumsum(token_counts)
        kinds = dict.fromkeys(TAG_KINDS[scheme] for scheme in settings.schemes if scheme in TAG_KINDS)
        self.tagged = {
            kind: tagged_intervals(tags, number, settings.touching_tags) for number, kind in enumerate(kinds)
        }
        lengths = range(settings.max_span - settings.min_span + 1)
        cumulative = np.cumsum([(1 - settings.geometric_p) ** length for length in lengths])
        self.cuts = [round(weight / cumulative[-1] * 2**32) for weight in cumulative[:-1]]

    def scheme(self):
        cumulative = np.cumsum(self.settings.weights) / sum(self.settings.weights)
        bits = threefry(self.key, (0, 0 + 4 * self.block))[0]
        return self.settings.schemes[sum(bits >= round(weight * 2**32) for weight in cumulative[:-1])]

    def candidates(self, length):
        scheme, number = self.scheme(), 0
        while True:
            bits = threefry(self.key, (number, 1 + 4 * self.block))
            yield self.candidate(scheme, bits, length)
            number += 1

    def candidate(self, scheme, bits, length):
        anchor = bits[0] * length >> 32
        if scheme in ("named_entity", "noun_phrase"):
            tagged = self.tagged[TAG_KINDS[scheme]]
            if tagged and bits[1] < round(self.settings.tagged_fraction * 2**32):
                return None, tagged[bits[0] * len(tagged) >> 32]
            return anchor, 1
        if scheme == "pmi":
            return anchor, next((ngram for ngram in self.tagged["ngrams"] if ngram[0] <= anchor <= ngram[1]), 1)
        return anchor, self.words(scheme, bits[1])

    def words(self, scheme, bits):
        settings = self.settings
        geometric = settings.min_span + sum(bits >= cut for cut in self.cuts)
        return {"subword": 0, "whole_word": 1, "fixed_span": settings.fixed_span, "geometric_span": geometric}[scheme]

    def replacement(self, position):
        return threefry(self.key, (self.start + position, 2))[0] / 2**32

    def random_token(self, position):
        high, low = threefry(self.key, (self.start + position, 3))
        index = ((high % 2**31) * 2**32 + low) % int(self.cumulative_counts[-1])
        return int(np.nonzero(self.cumulative_counts > index)[0][0])


def mask_row(tokens, tags, blocks, key, settings, slots, starts_word, token_counts, mask_id):
    """Returns what targets.mask gives for one row, as a dict of lists.

    Args:
      tokens: of the row.
      tags: a number per token, with the bits that targets.mask expects.
      blocks: (start, length) of each.
      key: of the row.
      settings: how to mask.
      slots: M.
      starts_word: bool [V].
      token_counts: int64 [V], weights of random tokens.
      mask_id: of [MASK].
    """
    out = {name: [] for name in ("mlm_positions", "mlm_targets", *SBO_FIELDS)}
    out["tokens"] = list(tokens)
    for number, (start, length) in enumerate(blocks):
        sentence = [int(token) for token in tokens[start : start + length]]
        draws = CounterDraws(key, number, start, settings, token_counts, tags[start : start + length])
        starts = [bool(starts_word[token]) for token in sentence]
        spans = merge(masked_tokens(starts, settings.rate, draws.candidates(length)))
        fractions = settings.mask_fraction, settings.random_fraction
        out["tokens"][start : start + length] = replace(
            sentence, spans, settings.replacement, *fractions, mask_id, draws
        )
        external = settings.boundaries == "external"
        pairs = {row[0] + external: row for row in pair_rows(sentence, spans, settings.boundaries, 10**6)}
        for first, last in spans:
            for index in range(first, last + 1):
                out["mlm_positions"].append(start + index)
                out["mlm_targets"].append(sentence[index])
                used = first in pairs and index - first < settings.max_targets
                left, right, *targets = pairs[first] if used else (-start, -start, *[0] * length)
                offset = index - first
                values = (start + left, start + right, offset * used, targets[offset], 1.0 * used)
                for name, value in zip(SBO_FIELDS, values):
                    out[name].append(value)
    out["mlm_weights"] = [1.0] * len(out["mlm_positions"])
    return {name: values if name == "tokens" else values + [0] * (slots - len(values)) for name, values in out.items()}

"""The masking law in plain Python, one block and one token at a time (reference sections 1.2 to 1.4): slow, and meant to be read.

Where chance decides, it asks a `draws` object, so the same law can be fed the original's random numbers or the library's:
    draws.candidates(length) -> iterator of (anchor, words): anchors in 0..length-1, spans of so many words; words 0: the anchor alone; instead
        of words also (first, last) of a tagged run, and for anchor None, which is never rejected
    draws.fate(position) -> number in [0, 1): below mask_fraction [MASK], then random tokens, then kept
    draws.random_token(position) -> random replacement token
"""

import math

import numpy as np


def place(starts_word, rate, candidates):
    """The masked tokens of one block as a set. starts_word: one bool a token. candidates: iterator of (anchor, words)."""
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
    """The tokens of `words` words from the one the anchor is in, up to the end of the block."""
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
    """Maximal runs of masked tokens as (first, last), from left to right."""
    spans = []
    for index in sorted(masked):
        if spans and spans[-1][1] == index - 1:
            spans[-1] = (spans[-1][0], index)
        else:
            spans.append((index, index))
    return spans


def replace(sentence, spans, replacement, mask_fraction, random_fraction, mask_id, draws):
    """The sentence as the model sees it."""
    shown = list(sentence)
    for first, last in spans:
        fate = draws.fate(first)
        for index in range(first, last + 1):
            if replacement == "token":
                fate = draws.fate(index)
            if fate < mask_fraction:
                shown[index] = mask_id
            elif fate < mask_fraction + random_fraction:
                shown[index] = draws.random_token(index)
    return shown


def pair_rows(sentence, spans, boundaries, max_targets):
    """[left, right, targets...] of each span with boundaries inside the block, targets cut or filled up with 0 to max_targets."""
    rows = []
    for first, last in spans:
        left, right = (first - 1, last + 1) if boundaries == "external" else (first, last)
        if left >= 0 and right < len(sentence):
            targets = list(sentence[first : last + 1])[:max_targets]
            rows.append([left, right] + targets + [0] * (max_targets - len(targets)))
    return rows


# ---------------------------------------------------------------------------------------------------------------------------------------
# The library's draws and its output of a whole row.


def threefry(key, counter):
    """Threefry-2x32-20 with Python integers."""
    word = 2**32 - 1
    keys = (*key, key[0] ^ key[1] ^ 0x1BD11BDA)
    x0, x1 = (counter[0] + keys[0]) & word, (counter[1] + keys[1]) & word
    for number in range(1, 21):
        x0 = (x0 + x1) & word
        turn = (13, 15, 26, 6, 17, 29, 16, 24)[(number - 1) % 8]
        x1 = ((x1 << turn) & word | x1 >> (32 - turn)) ^ x0
        if number % 4 == 0:
            x0 = (x0 + keys[number // 4 % 3]) & word
            x1 = (x1 + keys[(number // 4 + 1) % 3] + number // 4) & word
    return x0, x1


class CounterDraws:
    """The draws of block `block` at `start` of a row, as spanbert_jax/data/masking.py makes them."""

    def __init__(self, key, block, start, settings, token_counts, tags):
        kinds = [
            {"named_entity": "entities", "noun_phrase": "phrases", "pmi": "ngrams"}.get(name)
            for name in settings.schemes
        ]
        kinds = list(dict.fromkeys(kind for kind in kinds if kind))
        self.runs = {
            kind: merge([index for index, tag in enumerate(tags) if tag >> bit & 1]) for bit, kind in enumerate(kinds)
        }
        self.key, self.block, self.start, self.settings, self.upto = (
            key,
            block,
            start,
            settings,
            np.cumsum(token_counts),
        )
        odds = np.cumsum(
            [(1 - settings.geometric_p) ** length for length in range(settings.max_span - settings.min_span + 1)]
        )
        self.cuts = [round(odd / odds[-1] * 2**32) for odd in odds[:-1]]

    def scheme(self):
        odds = np.cumsum(self.settings.weights) / sum(self.settings.weights)
        bits = threefry(self.key, (0, 0 + 4 * self.block))[0]
        return self.settings.schemes[sum(bits >= round(odd * 2**32) for odd in odds[:-1])]

    def candidates(self, length):
        scheme, number = self.scheme(), 0
        while True:
            bits = threefry(self.key, (number, 1 + 4 * self.block))
            yield self.candidate(scheme, bits, length)
            number += 1

    def candidate(self, scheme, bits, length):
        anchor = bits[0] * length >> 32
        if scheme in ("named_entity", "noun_phrase"):
            runs = self.runs["entities" if scheme == "named_entity" else "phrases"]
            if runs and bits[1] < round(self.settings.tagged_fraction * 2**32):
                return None, runs[bits[0] * len(runs) >> 32]
            return anchor, 1
        if scheme == "pmi":
            return anchor, next((run for run in self.runs["ngrams"] if run[0] <= anchor <= run[1]), 1)
        return anchor, self.words(scheme, bits[1])

    def words(self, scheme, bits):
        settings = self.settings
        geometric = settings.min_span + sum(bits >= cut for cut in self.cuts)
        return {"subword": 0, "whole_word": 1, "fixed_span": settings.fixed_span, "geometric_span": geometric}[scheme]

    def fate(self, position):
        return threefry(self.key, (self.start + position, 2))[0] / 2**32

    def random_token(self, position):
        high, low = threefry(self.key, (self.start + position, 3))
        place = ((high % 2**31) * 2**32 + low) % int(self.upto[-1])
        return int(np.nonzero(self.upto > place)[0][0])


def mask_row(tokens, tags, blocks, key, settings, slots, starts_word, token_counts, mask_id):
    """What masking.mask gives for one row, as a dict of lists. tags: a number a token, bits as masking.mask wants them. blocks: (start, length)."""
    out = {
        name: []
        for name in (
            "mlm_positions",
            "mlm_targets",
            "sbo_left",
            "sbo_right",
            "sbo_offset",
            "sbo_targets",
            "sbo_weights",
        )
    }
    out["tokens"] = list(tokens)
    for number, (start, length) in enumerate(blocks):
        sentence = [int(token) for token in tokens[start : start + length]]
        draws = CounterDraws(key, number, start, settings, token_counts, tags[start : start + length])
        starts = [bool(starts_word[token]) for token in sentence]
        spans = merge(place(starts, settings.rate, draws.candidates(length)))
        shown = replace(
            sentence, spans, settings.replacement, settings.mask_fraction, settings.random_fraction, mask_id, draws
        )
        out["tokens"][start : start + length] = shown
        pairs = {
            row[0] + (settings.boundaries == "external"): row
            for row in pair_rows(sentence, spans, settings.boundaries, 10**6)
        }
        for first, last in spans:
            for index in range(first, last + 1):
                out["mlm_positions"].append(start + index)
                out["mlm_targets"].append(sentence[index])
                seen = first in pairs and index - first < settings.max_targets
                left, right, targets = (
                    (pairs[first][0], pairs[first][1], pairs[first][2:]) if seen else (-start, -start, [0] * length)
                )
                values = (start + left, start + right, (index - first) * seen, targets[index - first], 1.0 * seen)
                for name, value in zip(("sbo_left", "sbo_right", "sbo_offset", "sbo_targets", "sbo_weights"), values):
                    out[name].append(value)
    out["mlm_weights"] = [1.0] * len(out["mlm_positions"])
    return {name: values if name == "tokens" else values + [0] * (slots - len(values)) for name, values in out.items()}

"""Masking schemes: each proposes spans of a block, one after another; masking.py decides which of them are masked.

A scheme is a function (text, blocks, bits, settings) -> Candidates, where `bits` are two uint32 words [G, C], one pair a candidate. A new one is
such a function and a line in SCHEMES. What it must know of the text (where words start; tags of its tokens) is a field of Text. It may propose
what is already masked.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from spanbert_jax.data import random
from spanbert_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class MaskingSettings:
    """The knobs of `config.masking` (configs/base.py says what each means), and the ids masking needs to know."""

    schemes: tuple[str, ...]
    weights: tuple[float, ...]
    rate: float
    geometric_p: float
    min_span: int
    max_span: int
    fixed_span: int
    mask_fraction: float
    random_fraction: float
    replacement: str
    boundaries: str
    max_targets: int
    tagged_fraction: float


class Blocks(NamedTuple):
    """The blocks of a batch of rows, as a flat list in order of address. All [G]."""

    row: tf.Tensor  # int32, which row of the batch
    number: tf.Tensor  # int32, which block of its row
    start: tf.Tensor  # int32, address of its first token
    length: tf.Tensor  # int32, tokens, without [CLS] and [SEP]; at least 1
    budget: tf.Tensor  # int32, tokens to mask
    scheme: tf.Tensor  # int32, index into settings.schemes

    def take(self, indices: tf.Tensor) -> "Blocks":
        """Those at some indices of the list."""
        return Blocks(*(tf.gather(field, indices) for field in self))


class Runs(NamedTuple):
    """Maximal runs of tagged tokens, in order of address. Both [R] int32 addresses."""

    first: tf.Tensor
    last: tf.Tensor


class Text(NamedTuple):
    """What schemes know of the text of a batch."""

    word_of: tf.Tensor  # [B * L] int32, number of the word each token is in (special tokens and padding count as words)
    word_start: tf.Tensor  # [words + 1] int32, address of each word's first token; ends with B * L
    tagged: dict[str, Runs]  # by kind of tag, of those that the settings' schemes look at


class Candidates(NamedTuple):
    """Spans proposed for blocks, in the order they were drawn. All [G, C] int32 addresses."""

    anchor: tf.Tensor
    first: tf.Tensor
    last: tf.Tensor


def subword(text: Text, blocks: Blocks, bits: random.Key, settings: MaskingSettings) -> Candidates:
    """Single tokens, each token with the same odds (BERT; reference 1.2). BERT draws fates once a token: replacement = "token"."""
    anchor = _anchors(blocks, bits)
    return Candidates(anchor, anchor, anchor)


def whole_word(text: Text, blocks: Blocks, bits: random.Key, settings: MaskingSettings) -> Candidates:
    """Single words, with odds by their number of tokens (reference 1.1: spans of 1 to 1 words)."""
    return _spans_of_words(text, blocks, _anchors(blocks, bits), 1)


def fixed_span(text: Text, blocks: Blocks, bits: random.Key, settings: MaskingSettings) -> Candidates:
    """Spans of `fixed_span` words."""
    return _spans_of_words(text, blocks, _anchors(blocks, bits), settings.fixed_span)


def geometric_span(text: Text, blocks: Blocks, bits: random.Key, settings: MaskingSettings) -> Candidates:
    """Spans of Geometric(p) words, cut off to min_span..max_span and renormalised (paper 3.1; reference 1.3.2 and quirk 2)."""
    odds = (1.0 - settings.geometric_p) ** np.arange(settings.max_span - settings.min_span + 1)
    length = settings.min_span + random.choose(bits[1], random.cut_points(odds))
    return _spans_of_words(text, blocks, _anchors(blocks, bits), length)


def named_entity(text: Text, blocks: Blocks, bits: random.Key, settings: MaskingSettings) -> Candidates:
    """Named entities for a share `tagged_fraction` of the draws, else whole words (paper 5.1; reference 1.5)."""
    return _tagged_runs(text, text.tagged["entities"], blocks, bits, settings)


def noun_phrase(text: Text, blocks: Blocks, bits: random.Key, settings: MaskingSettings) -> Candidates:
    """Noun phrases for a share `tagged_fraction` of the draws, else whole words (paper 5.1)."""
    return _tagged_runs(text, text.tagged["phrases"], blocks, bits, settings)


def pmi(text: Text, blocks: Blocks, bits: random.Key, settings: MaskingSettings) -> Candidates:
    """n-grams of a given list as if they were words, and single words elsewhere (Levine et al., ICLR 2021), with odds by number of tokens."""
    runs = text.tagged["ngrams"]
    word = _spans_of_words(text, blocks, _anchors(blocks, bits), 1)
    number = (
        tf.searchsorted(runs.first, tf.reshape(word.anchor, [-1]), side="right") - 1
    )  # of the last run that begins before the anchor
    number = tf.reshape(number, tf.shape(word.anchor))
    first, last = (
        tf.gather(tf.concat([edge, [-1]], 0), number % (tf.size(edge) + 1)) for edge in runs
    )  # run -1 stands for none
    inside = (word.anchor >= first) & (word.anchor <= last)
    return Candidates(word.anchor, tf.where(inside, first, word.first), tf.where(inside, last, word.last))


SCHEMES: dict[str, Callable[[Text, Blocks, random.Key, MaskingSettings], Candidates]] = {
    "subword": subword,
    "whole_word": whole_word,
    "fixed_span": fixed_span,
    "geometric_span": geometric_span,
    "named_entity": named_entity,
    "noun_phrase": noun_phrase,
    "pmi": pmi,
}
TAGS = {
    "named_entity": "entities",
    "noun_phrase": "phrases",
    "pmi": "ngrams",
}  # what a scheme must know of the text: a kind of tag in the store


def tags_of(settings: MaskingSettings) -> tuple[str, ...]:
    """The kinds of tags that the schemes look at, each once, in the order of their bits in `tags` of mask()."""
    return tuple(dict.fromkeys(TAGS[name] for name in settings.schemes if name in TAGS))


def _anchors(blocks: Blocks, bits: random.Key) -> tf.Tensor:
    """[G, C] addresses, uniform over the tokens of each block, from the first word of the bits."""
    return blocks.start[:, None] + tf.cast(random.below(bits[0], blocks.length[:, None]), tf.int32)


def _spans_of_words(text: Text, blocks: Blocks, anchor: tf.Tensor, length: tf.Tensor | int) -> Candidates:
    """Spans of `length` words from the start of the anchor's word, kept within the block (reference 1.3.4d; quirk 1).

    A block's first token starts a word whatever it looks like: its block may begin inside a word that was longer than a block.
    """
    word = tf.gather(text.word_of, anchor)
    first = tf.gather(text.word_start, word)
    end = tf.gather(text.word_start, tf.minimum(word + length, tf.size(text.word_start) - 1))
    start = blocks.start[:, None]
    return Candidates(anchor, tf.maximum(first, start), tf.minimum(end, start + blocks.length[:, None]) - 1)


def _tagged_runs(text: Text, runs: Runs, blocks: Blocks, bits: random.Key, settings: MaskingSettings) -> Candidates:
    """A run of the block, each with the same odds, for a share `tagged_fraction` of the draws; else, and in blocks without one, a word.

    The original never rejects a run, though some of it may be masked. So its anchor is the special token before the block, which never is.
    """
    low = tf.searchsorted(runs.first, blocks.start)  # [G]
    count = tf.searchsorted(runs.first, blocks.start + blocks.length) - low
    wanted = random.choose(bits[1], random.cut_points([settings.tagged_fraction, 1 - settings.tagged_fraction])) == 0
    number = low[:, None] + tf.cast(random.below(bits[0], tf.maximum(count, 1)[:, None]), tf.int32)
    run = (
        tf.broadcast_to((blocks.start - 1)[:, None], tf.shape(number)),
        *(tf.gather(tf.concat([edge, [0]], 0), number) for edge in runs),
    )
    word = _spans_of_words(text, blocks, _anchors(blocks, bits), 1)
    return Candidates(*(tf.where(wanted & (count > 0)[:, None], a, b) for a, b in zip(run, word)))


def settings_from_config(config) -> MaskingSettings:
    """MaskingSettings from `config.masking`. InputError names every value no masking can be done with."""
    fields = {field.name: config.masking[field.name] for field in dataclasses.fields(MaskingSettings)}
    settings = MaskingSettings(**(fields | {"schemes": tuple(fields["schemes"]), "weights": tuple(fields["weights"])}))
    unknown = [name for name in settings.schemes if name not in SCHEMES]
    problems = [f"masking.schemes: unknown scheme {name!r}; known: {', '.join(SCHEMES)}" for name in unknown]
    for name, known in (("replacement", ("span", "token")), ("boundaries", ("external", "internal"))):
        if fields[name] not in known:
            problems.append(f"masking.{name}: {fields[name]!r} is not one of {', '.join(known)}")
    if (
        len(settings.weights) != len(settings.schemes)
        or min(settings.weights, default=0) < 0
        or not sum(settings.weights) > 0
    ):
        problems.append(
            f"masking.weights: needs one weight, not negative, for each of the {len(settings.schemes)} schemes"
        )
    if not 0 < settings.rate <= 1:
        problems.append(f"masking.rate: {settings.rate} is not above 0 and at most 1")
    if not 1 <= settings.min_span <= settings.max_span or settings.fixed_span < 1:
        problems.append("masking: needs 1 <= min_span <= max_span and fixed_span >= 1")
    if not 0 <= settings.geometric_p < 1:
        problems.append(f"masking.geometric_p: {settings.geometric_p} is not at least 0 and below 1")
    if (
        min(settings.mask_fraction, settings.random_fraction) < 0
        or settings.mask_fraction + settings.random_fraction > 1 + 1e-9
    ):
        problems.append("masking: mask_fraction and random_fraction must not be negative, nor more than 1 together")
    if not 0 <= settings.tagged_fraction < 1:
        problems.append(
            f"masking.tagged_fraction: {settings.tagged_fraction} is not at least 0 and below 1 (a block may have too few tagged tokens)"
        )
    if problems:
        raise InputError("\n".join(problems))
    return settings

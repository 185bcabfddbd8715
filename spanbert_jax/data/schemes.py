"""Masking schemes: each proposes spans of a block, one after another; masking.py decides which of them are masked.

A scheme is a function (text, blocks, bits, settings) -> Candidates, where `bits` are two uint32 words [G, C], a pair
for each candidate. A new scheme is such a function and a line in SCHEMES. What it needs to know about the text (where
words start, tags of tokens) is a field of Text. It may propose tokens that are already masked.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from spanbert_jax.config import knob_problems
from spanbert_jax.data import random
from spanbert_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class MaskingSettings:
    """The knobs of config.masking, explained in configs/base.py."""

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
    touching_tags: str


class Blocks(NamedTuple):
    """The blocks of a batch of rows, as a flat list in order of address. All int64 [G]."""

    row: np.ndarray  # number of its row in the batch
    number: np.ndarray  # its number in its row
    start: np.ndarray  # address of its first token
    length: np.ndarray  # number of tokens without [CLS] and [SEP], at least 1
    budget: np.ndarray  # number of tokens to mask
    scheme: np.ndarray  # index into settings.schemes

    def take(self, indices: np.ndarray) -> "Blocks":
        """Returns the blocks at some indices of the list."""
        return Blocks(*(field[indices] for field in self))


class Intervals(NamedTuple):
    """Tokens that are tagged together, in order of address. Both int64 [intervals], addresses."""

    first: np.ndarray
    last: np.ndarray


class Text(NamedTuple):
    """What schemes know about the text of a batch."""

    word_of: (
        np.ndarray
    )  # [B * L] int64, number of the word each token is in (special tokens and padding count as words)
    word_start: np.ndarray  # [words + 1] int64, address of each word's first token; ends with B * L
    tagged: dict[str, Intervals]  # by kind of tag, for the kinds that the schemes of the settings read


class Candidates(NamedTuple):
    """Spans proposed for blocks, in the order they were drawn. All int64 [G, C], addresses."""

    anchor: np.ndarray
    first: np.ndarray
    last: np.ndarray


def subword(text: Text, blocks: Blocks, bits: random.Key, settings: MaskingSettings) -> Candidates:
    """Proposes single tokens, uniformly (BERT; docs/original.md 1.2). BERT draws a replacement per "token"."""
    anchor = _anchors(blocks, bits)
    return Candidates(anchor, anchor, anchor)


def whole_word(text: Text, blocks: Blocks, bits: random.Key, settings: MaskingSettings) -> Candidates:
    """Proposes single words, with probabilities by their number of tokens (docs/original.md 1.1, 1.3.4d)."""
    return _spans_of_words(text, blocks, _anchors(blocks, bits), 1)


def fixed_span(text: Text, blocks: Blocks, bits: random.Key, settings: MaskingSettings) -> Candidates:
    """Proposes spans of `fixed_span` words."""
    return _spans_of_words(text, blocks, _anchors(blocks, bits), settings.fixed_span)


def geometric_span(text: Text, blocks: Blocks, bits: random.Key, settings: MaskingSettings) -> Candidates:
    """Proposes spans of Geometric(p) words, truncated to min_span..max_span and renormalised.

    Source: paper 3.1; docs/original.md 1.3.2 and quirk 2.
    """
    weights = (1.0 - settings.geometric_p) ** np.arange(settings.max_span - settings.min_span + 1)
    length = settings.min_span + random.choose(bits[1], random.cut_points(weights))
    return _spans_of_words(text, blocks, _anchors(blocks, bits), length)


def named_entity(text: Text, blocks: Blocks, bits: random.Key, settings: MaskingSettings) -> Candidates:
    """Proposes named entities in a fraction `tagged_fraction` of the draws, else words.

    Source: paper 6.1; docs/original.md 1.5.
    """
    return _tagged(text, text.tagged["entities"], blocks, bits, settings)


def noun_phrase(text: Text, blocks: Blocks, bits: random.Key, settings: MaskingSettings) -> Candidates:
    """Proposes noun phrases in a fraction `tagged_fraction` of the draws, else words (paper 6.1)."""
    return _tagged(text, text.tagged["phrases"], blocks, bits, settings)


def pmi(text: Text, blocks: Blocks, bits: random.Key, settings: MaskingSettings) -> Candidates:
    """Proposes n-grams of a given list as if they were words, else words (Levine et al., ICLR 2021)."""
    ngrams = text.tagged["ngrams"]
    word = _spans_of_words(text, blocks, _anchors(blocks, bits), 1)
    # The number of the last n-gram that begins at or before the anchor; -1: none.
    number = np.searchsorted(ngrams.first, word.anchor, side="right") - 1
    first, last = (np.append(edge, -1)[number] for edge in ngrams)
    inside = (word.anchor >= first) & (word.anchor <= last)
    return Candidates(word.anchor, np.where(inside, first, word.first), np.where(inside, last, word.last))


SCHEMES: dict[str, Callable[[Text, Blocks, random.Key, MaskingSettings], Candidates]] = {
    "subword": subword,
    "whole_word": whole_word,
    "fixed_span": fixed_span,
    "geometric_span": geometric_span,
    "named_entity": named_entity,
    "noun_phrase": noun_phrase,
    "pmi": pmi,
}
# The kind of tag that a scheme needs in the store.
TAGS = {"named_entity": "entities", "noun_phrase": "phrases", "pmi": "ngrams"}


def tags_of(settings: MaskingSettings) -> tuple[str, ...]:
    """Returns the kinds of tags that the schemes read, each once, in the order of their bits in the rows' `tags`."""
    return tuple(dict.fromkeys(TAGS[name] for name in settings.schemes if name in TAGS))


def _anchors(blocks: Blocks, bits: random.Key) -> np.ndarray:
    """Returns [G, C] addresses, uniform over the tokens of each block, from the first word of the bits."""
    return blocks.start[:, None] + random.below(bits[0], blocks.length[:, None])


def _spans_of_words(text: Text, blocks: Blocks, anchor: np.ndarray, length: np.ndarray | int) -> Candidates:
    """Returns spans of `length` words from the start of the anchor's word, kept within the block.

    The first token of a block always starts a word, since a block may begin inside a word that is longer than a block.
    Source: docs/original.md 1.3.4d and quirk 1.
    """
    word = text.word_of[anchor]
    first = text.word_start[word]
    end = text.word_start[np.minimum(word + length, len(text.word_start) - 1)]
    start = blocks.start[:, None]
    return Candidates(anchor, np.maximum(first, start), np.minimum(end, start + blocks.length[:, None]) - 1)


def _tagged(text: Text, tagged: Intervals, blocks: Blocks, bits: random.Key, settings: MaskingSettings) -> Candidates:
    """Returns a uniform tagged interval of the block in a fraction `tagged_fraction` of the draws, else a word.

    Blocks without tagged intervals get words. The original never rejects a tagged interval, even if some of it is
    masked already; so the anchor here is the special token before the block, which is never masked.
    """
    low = np.searchsorted(tagged.first, blocks.start)  # [G]
    count = np.searchsorted(tagged.first, blocks.start + blocks.length) - low
    cuts = random.cut_points([settings.tagged_fraction, 1 - settings.tagged_fraction])
    use_tagged = (random.choose(bits[1], cuts) == 0) & (count > 0)[:, None]
    number = low[:, None] + random.below(bits[0], np.maximum(count, 1)[:, None])
    first, last = (np.append(edge, 0)[number] for edge in tagged)
    word = _spans_of_words(text, blocks, _anchors(blocks, bits), 1)
    span = (blocks.start - 1)[:, None], first, last
    return Candidates(*(np.where(use_tagged, a, b) for a, b in zip(span, word)))


def settings_from_config(config) -> MaskingSettings:
    """Returns the MaskingSettings of config.masking.

    Raises:
      InputError: lists every value that masking cannot use, one per line.
    """
    fields = {field.name: config.masking[field.name] for field in dataclasses.fields(MaskingSettings)}
    settings = MaskingSettings(**(fields | {"schemes": tuple(fields["schemes"]), "weights": tuple(fields["weights"])}))
    unknown = [name for name in settings.schemes if name not in SCHEMES]
    problems = [f"masking.schemes: unknown scheme {name!r}; known: {', '.join(SCHEMES)}" for name in unknown]
    problems += knob_problems(config, "masking.")
    weights, schemes = settings.weights, settings.schemes
    if len(weights) != len(schemes) or min(weights, default=0) < 0 or not sum(weights) > 0:
        problems.append(f"masking.weights: needs one weight, not negative, for each of the {len(schemes)} schemes")
    if settings.min_span > settings.max_span:
        problems.append(f"masking.min_span {settings.min_span} is more than masking.max_span {settings.max_span}")
    mask, replace = settings.mask_fraction, settings.random_fraction
    if min(mask, replace) < 0 or mask + replace > 1 + 1e-9:
        problems.append("masking: mask_fraction and random_fraction must not be negative, nor more than 1 together")
    if problems:
        raise InputError("\n".join(problems))
    return settings

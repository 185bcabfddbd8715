"""Tags: bits that say which tokens belong to a named entity, a noun phrase or a listed n-gram, and which begin one.

Some masking schemes mask those as a whole. The original has the first bit alone, so that two entities that touch become
one (docs/original.md 1.5). Kinds:

  entities  named entities, spaCy's doc.ents
  phrases   base noun phrases, spaCy's doc.noun_chunks
  ngrams    the n-grams of a list, as in PMI-Masking (Levine et al., ICLR 2021): one per line, words separated by blanks

Tags are a function of the text, the model and the list alone: they do not depend on the number of workers, nor on which
texts are tagged together.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator

import numpy as np
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import models, trainers

from spanbert_jax.data.shard import BEGINS
from spanbert_jax.data.sources.paths import open_bytes
from spanbert_jax.data.tokenizer import use_bert_words
from spanbert_jax.data.tokenizer_files import WordRules
from spanbert_jax.errors import InputError

SPACY_KINDS = ("entities", "phrases")
KINDS = (*SPACY_KINDS, "ngrams")
SPACY_BATCH = 16  # texts that spaCy processes together
MAX_SPACY_CHARACTERS = 4096  # of such a text; spaCy's memory grows by about 10 KB per character
LINES_AT_A_TIME = 10_000  # of a list of n-grams; published lists have 800,000
UNKNOWN = "[UNK]"  # stands for unlisted words; no word itself, since BERT's rules divide it at the brackets

CharacterRange = tuple[int, int]  # first character, and the one after the last
RangesByKind = dict[str, list[list[CharacterRange]]]  # kind -> the ranges in each sentence


class Tagger:
    """The tags that a store keeps with its tokens. Picklable; each process loads the model or list at its first use.

    Attributes:
      kinds: the kinds of tags, in the order of KINDS, each followed by the one of where its spans begin.
    """

    def __init__(self, kinds: tuple[str, ...], model: str, ngrams: str, rules: WordRules):
        """Loads and checks what the kinds need.

        Args:
          kinds: some of KINDS; none for a tagger without tags.
          model: name or folder of a spaCy pipeline; "" if no kind needs it.
          ngrams: path (also gs://) of a list of n-grams in UTF-8; "" if "ngrams" is not among the kinds.
          rules: by which list and text are cleaned before they are compared: those of the tokenizer.

        Raises:
          InputError: a kind is unknown, spaCy or the model is missing or does not find a kind, or the list cannot be
            read.
        """
        unknown = [kind for kind in kinds if kind not in KINDS]
        if unknown:
            raise InputError(f"tags: there is no kind {', '.join(unknown)}; there are {', '.join(KINDS)}")
        self.kinds = tuple(f"{kind}{suffix}" for kind in KINDS if kind in kinds for suffix in ("", BEGINS))
        spacy_kinds = tuple(kind for kind in SPACY_KINDS if kind in kinds)
        self._finders: list[SpacyFinder | NgramFinder] = []
        if spacy_kinds:
            self._finders.append(SpacyFinder(spacy_kinds, model))
        if "ngrams" in kinds:
            self._finders.append(NgramFinder(ngrams, rules))
        self._description = {kind: finder.describe() for finder in self._finders for kind in finder.kinds}

    def describe(self) -> dict[str, dict]:
        """Returns what decides the tags of each kind, in JSON's types. Equal descriptions give equal tags."""
        return {kind: dict(self._description[kind.removesuffix(BEGINS)]) for kind in self.kinds}

    def tags(self, sentences: list[str], offsets: list[list[CharacterRange]]) -> dict[str, list[np.ndarray]]:
        """Returns, for each kind, one array bool [tokens] per sentence: whether a token shares a character with a
        range, or is the first one that does.

        Args:
          sentences: the text.
          offsets: of the sentences' tokens, from Tokenizer.encode_with_offsets.
        """
        tags = {}
        for finder in self._finders:
            for kind, ranges_of_sentences in finder.ranges(sentences).items():
                triples = zip(sentences, ranges_of_sentences, offsets, strict=True)
                tags[kind] = [token_bits(len(text), ranges, token_ranges) for text, ranges, token_ranges in triples]
                pairs = zip(ranges_of_sentences, offsets)
                tags[kind + BEGINS] = [first_tokens(ranges, token_ranges) for ranges, token_ranges in pairs]
        return tags


def token_bits(length: int, ranges: list[CharacterRange], offsets: list[CharacterRange]) -> np.ndarray:
    """Returns which tokens share a character with one of the ranges: bool [tokens].

    Args:
      length: of the sentence, in characters.
      ranges: what is tagged.
      offsets: of the tokens.
    """
    inside = np.zeros(length + 1, np.int32)
    for start, end in ranges:
        inside[start + 1 : end + 1] = 1
    tagged_before = np.cumsum(inside)  # [length + 1] number of tagged characters before each character
    edges = np.array(offsets, np.int64).reshape(-1, 2)
    return tagged_before[edges[:, 1]] > tagged_before[edges[:, 0]]


def first_tokens(ranges: list[CharacterRange], offsets: list[CharacterRange]) -> np.ndarray:
    """Returns which tokens are the first to share a character with one of the ranges: bool [tokens].

    Args:
      ranges: what is tagged.
      offsets: of the tokens, in their order.
    """
    starts, ends = np.array(ranges, np.int64).reshape(-1, 2).T
    edges = np.array(offsets, np.int64).reshape(-1, 2)
    first = np.searchsorted(edges[:, 1], starts, side="right")  # the first token that ends after the range begins
    bits = np.zeros(len(edges) + 1, np.bool_)
    bits[first[np.append(edges[:, 0], np.iinfo(np.int64).max)[first] < ends]] = True
    return bits[:-1]


# ----------------------------------------------------------------------------------------------------------------------
# spaCy.


@dataclasses.dataclass(frozen=True)
class SpacyFinder:
    """Finds "entities" and "phrases" with a spaCy pipeline."""

    kinds: tuple[str, ...]
    model: str

    def describe(self) -> dict[str, str]:
        """Returns the names and versions of the pipeline and of spaCy."""
        meta = load_pipeline(self.model, self.kinds).meta
        import spacy

        return {"model": f"{meta['lang']}_{meta['name']}", "version": meta["version"], "spacy": spacy.__version__}

    def ranges(self, sentences: list[str]) -> RangesByKind:
        """Returns the ranges of each kind in each sentence."""
        pipeline = load_pipeline(self.model, self.kinds)
        found: RangesByKind = {kind: [[] for _ in sentences] for kind in self.kinds}
        chunks = (
            (chunk, (number, start))
            for number, sentence in enumerate(sentences)
            for start, chunk in text_chunks(sentence)
        )
        with pipeline.memory_zone():  # without it spaCy keeps every new word
            for doc, (number, start) in pipeline.pipe(chunks, as_tuples=True, batch_size=SPACY_BATCH):
                for kind in self.kinds:
                    spans = doc.ents if kind == "entities" else doc.noun_chunks
                    found[kind][number] += [(start + span.start_char, start + span.end_char) for span in spans]
        return found


@functools.cache
def load_pipeline(model: str, kinds: tuple[str, ...]):
    """Returns an installed spaCy pipeline, without the components that none of `kinds` needs.

    Raises:
      InputError: spaCy or the pipeline is missing, or it does not find one of the kinds.
    """
    subject = f"tags of {' and '.join(kinds)}"
    try:
        import spacy
    except ImportError as error:
        raise InputError(f"{subject} need spaCy: pip install 'spanbert_jax[tags]'") from error
    unneeded = ["lemmatizer", "senter"]
    unneeded += ["ner"] if "entities" not in kinds else []
    unneeded += ["tagger", "morphologizer", "attribute_ruler", "parser"] if "phrases" not in kinds else []
    try:
        pipeline = spacy.load(model, exclude=unneeded)
    except (OSError, ImportError, ValueError) as error:
        installed = ", ".join(spacy.util.get_installed_models())
        installed = installed or "none (pip install 'spanbert_jax[tags]' brings a small English one)"
        raise InputError(f"{subject}: cannot load the spaCy model {model!r}; those installed: {installed}") from error
    assigned = {attribute for name in pipeline.pipe_names for attribute in pipeline.get_pipe_meta(name).assigns}
    finds = {
        "entities": "doc.ents" in assigned,
        "phrases": "token.dep" in assigned and "noun_chunks" in pipeline.Defaults.syntax_iterators,
    }
    missing = [kind for kind in kinds if not finds[kind]]
    if missing:
        raise InputError(
            f"{subject}: the spaCy model {model!r} finds no {' or '.join(missing)};"
            " choose another one or leave that kind out"
        )
    return pipeline


def text_chunks(text: str) -> Iterator[tuple[int, str]]:
    """Yields a text as (start, chunk) of at most MAX_SPACY_CHARACTERS, each ending with a blank if it has one."""
    start = 0
    while len(text) - start > MAX_SPACY_CHARACTERS:
        blank = text.rfind(" ", start, start + MAX_SPACY_CHARACTERS)
        end = blank + 1 if blank >= start else start + MAX_SPACY_CHARACTERS
        yield start, text[start:end]
        start = end
    if start < len(text):
        yield start, text[start:]


# ----------------------------------------------------------------------------------------------------------------------
# Lists of n-grams.


@dataclasses.dataclass(frozen=True)
class NgramFinder:
    """Finds the n-grams of a list: from left to right, at each word the longest. Words are those of BERT's rules."""

    path: str
    rules: WordRules
    kinds = ("ngrams",)

    def describe(self) -> dict[str, str | int | bool]:
        """Returns a description of the content of the list, without its path."""
        ngrams = load_ngrams(self.path, self.rules)
        return {"sha256": ngrams.sha256, "count": len(ngrams.known), **self.rules.settings()}

    def ranges(self, sentences: list[str]) -> RangesByKind:
        """Returns the ranges of n-grams in each sentence."""
        ngrams = load_ngrams(self.path, self.rules)
        found = []
        for encoding in ngrams.words.encode_batch(sentences, add_special_tokens=False):
            offsets = encoding.offsets  # each access makes a new list
            found.append([(offsets[first][0], offsets[end - 1][1]) for first, end in ngrams.find(tuple(encoding.ids))])
        return {"ngrams": found}


@dataclasses.dataclass(frozen=True)
class Ngrams:
    """A list of n-grams, with words as numbers.

    Attributes:
      words: text -> the number of each word; all words that are in no n-gram have the same number.
      known: the n-grams.
      lengths: first word -> lengths of the n-grams that begin with it, longest first.
      sha256: of the file (hex).
    """

    words: HFTokenizer
    known: frozenset[tuple[int, ...]]
    lengths: dict[int, tuple[int, ...]]
    sha256: str

    def find(self, words: tuple[int, ...]) -> Iterator[tuple[int, int]]:
        """Yields (first word, one after the last word) of each n-gram in a sentence."""
        first = 0
        while first < len(words):
            ends = (first + length for length in self.lengths.get(words[first], ()))
            end = next((end for end in ends if end <= len(words) and words[first:end] in self.known), None)
            if end:
                yield first, end
            first = end or first + 1


@functools.cache
def load_ngrams(path: str, rules: WordRules) -> Ngrams:
    """Returns the n-grams of a list.

    Raises:
      InputError: it cannot be read, or has no n-grams.
    """
    if not path:
        raise InputError("tags: no list of n-grams; name its file")
    try:
        with open_bytes(path) as file:
            data = file.read()
        lines = [line for line in data.decode("utf-8-sig").split("\n") if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(
            f"tags: byte {error.start} of the list of n-grams {path} is not UTF-8 text; give one n-gram per line"
        ) from error
    words = word_numbers(lines, rules)
    known = set()
    for first in range(0, len(lines), LINES_AT_A_TIME):
        encodings = words.encode_batch_fast(lines[first : first + LINES_AT_A_TIME], add_special_tokens=False)
        known |= {tuple(encoding.ids) for encoding in encodings if encoding.ids}
    if not known:
        raise InputError(f"tags: the list of n-grams {path} holds none; give a text file with one n-gram per line")
    lengths: dict[int, set[int]] = {}
    for ngram in known:
        lengths.setdefault(ngram[0], set()).add(len(ngram))
    longest_first = {word: tuple(sorted(of_word, reverse=True)) for word, of_word in lengths.items()}
    return Ngrams(words, frozenset(known), longest_first, hashlib.sha256(data).hexdigest())


def word_numbers(lines: list[str], rules: WordRules) -> HFTokenizer:
    """Returns a tokenizer that gives each word of the lines its own number, and all other words the same one."""
    learner = use_bert_words(HFTokenizer(models.WordLevel()), rules)
    learner.train_from_iterator(lines, trainers.WordLevelTrainer(vocab_size=1 << 31, show_progress=False))
    numbers = {word: number for number, word in enumerate(sorted(learner.get_vocab()))}
    model = models.WordLevel(numbers | {UNKNOWN: len(numbers)}, unk_token=UNKNOWN)
    return use_bert_words(HFTokenizer(model), rules)

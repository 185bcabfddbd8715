"""Tags: one bit a token, whether it belongs to a named entity, a noun phrase or a listed n-gram, for the schemes that mask those whole.

A bit a token is all the original keeps (reference 1.5), so two entities that touch, with no token between them, become one run. Kinds:

  entities  named entities, spaCy's doc.ents
  phrases   base noun phrases, spaCy's doc.noun_chunks
  ngrams    the n-grams of a list, as in PMI-Masking (Levine et al., ICLR 2021): a line each, its words separated by blanks

Tags are a function of the text, the model and the list alone: neither the number of workers nor what is tagged together decides.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator

import numpy as np
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import models, trainers

from spanbert_jax.data.sources.paths import open_bytes
from spanbert_jax.data.tokenizer import cut_words_as_bert
from spanbert_jax.errors import InputError

SPACY_KINDS = ("entities", "phrases")
KINDS = (*SPACY_KINDS, "ngrams")
BATCH, LONGEST = (
    16,
    4096,
)  # texts and characters a text that spaCy sees at once: its memory grows by about 10 KB a character
SOME_LINES = 10_000  # of a list of n-grams, encoded at once: the public ones have 800,000
UNKNOWN = "[UNK]"  # no word: BERT's rules cut it at the brackets

Span = tuple[int, int]  # first character and the one after the last
Spans = dict[str, list[list[Span]]]  # kind -> the spans of each sentence


class Tagger:
    """The tags that a store keeps beside its tokens. Picklable; each process loads the model or list once, when it first needs it."""

    def __init__(self, kinds: tuple[str, ...], model: str, ngrams: str, lowercase: bool):
        """Finds what is needed and checks that it is fit.

        Args:
          kinds: some of KINDS, none for a tagger that tags nothing.
          model: name of an installed spaCy pipeline, or a folder of one; "" if no kind needs it.
          ngrams: path (also gs://) of a list of n-grams in UTF-8; "" if "ngrams" is not wanted.
          lowercase: the tokenizer's: whether the list and the text are compared lower-cased and without accents.

        Raises:
          InputError: an unknown kind, spaCy or the model is missing or does not give a kind, or the list cannot be read.
        """
        unknown = [kind for kind in kinds if kind not in KINDS]
        if unknown:
            raise InputError(f"tags: there is no kind {', '.join(unknown)}; there are {', '.join(KINDS)}")
        self.kinds = tuple(kind for kind in KINDS if kind in kinds)
        by_spacy = tuple(kind for kind in self.kinds if kind in SPACY_KINDS)
        self._finders = [SpacyFinder(by_spacy, model)] if by_spacy else []
        self._finders += [NgramFinder(ngrams, lowercase)] if "ngrams" in self.kinds else []
        self._description = {kind: finder.describe() for finder in self._finders for kind in finder.kinds}

    def describe(self) -> dict[str, dict]:
        """What decides the tags of each kind, in JSON's types: equal descriptions give equal tags."""
        return {kind: dict(self._description[kind]) for kind in self.kinds}

    def tags(self, sentences: list[str], offsets: list[list[Span]]) -> dict[str, list[np.ndarray]]:
        """For each kind, one bool array [tokens] a sentence: whether any character of the token is in a span of that kind.

        offsets: of the sentences' tokens, from Tokenizer.encode_with_offsets.
        """
        found = {}
        for finder in self._finders:
            for kind, spans in finder.spans(sentences).items():
                found[kind] = [
                    token_bits(len(sentence), *both) for sentence, *both in zip(sentences, spans, offsets, strict=True)
                ]
        return found


def token_bits(length: int, spans: list[Span], offsets: list[Span]) -> np.ndarray:
    """bool [tokens]: which tokens of a sentence of `length` characters share one with a span."""
    inside = np.zeros(length + 1, np.int32)
    for start, end in spans:
        inside[start + 1 : end + 1] = 1
    before = np.cumsum(inside)  # [length + 1] how many characters of spans stand before each place
    edges = np.array(offsets, np.int64).reshape(-1, 2)
    return before[edges[:, 1]] > before[edges[:, 0]]


# ---------------------------------------------------------------------------------------------------------------------------------------
# spaCy.


@dataclasses.dataclass(frozen=True)
class SpacyFinder:
    """Spans of "entities" and "phrases" by a spaCy pipeline."""

    kinds: tuple[str, ...]
    model: str

    def describe(self) -> dict[str, str]:
        """The pipeline and its version, and spaCy's."""
        meta = load_pipeline(self.model, self.kinds).meta
        import spacy

        return {"model": f"{meta['lang']}_{meta['name']}", "version": meta["version"], "spacy": spacy.__version__}

    def spans(self, sentences: list[str]) -> Spans:
        """The spans of each sentence."""
        pipeline = load_pipeline(self.model, self.kinds)
        found = {kind: [[] for _ in sentences] for kind in self.kinds}
        cut = ((part, (number, start)) for number, sentence in enumerate(sentences) for start, part in parts(sentence))
        with pipeline.memory_zone():  # or spaCy keeps every new word for ever
            for doc, (number, start) in pipeline.pipe(cut, as_tuples=True, batch_size=BATCH):
                for kind in self.kinds:
                    spans = doc.ents if kind == "entities" else doc.noun_chunks
                    found[kind][number] += [(start + span.start_char, start + span.end_char) for span in spans]
        return found


@functools.cache
def load_pipeline(model: str, kinds: tuple[str, ...]):
    """An installed spaCy pipeline without the components that none of `kinds` needs. Raises InputError if there is no fit one."""
    wanted = f"tags of {' and '.join(kinds)}"
    try:
        import spacy
    except ImportError as error:
        raise InputError(f"{wanted} need spaCy: pip install 'spanbert_jax[tags]'") from error
    idle = ["lemmatizer", "senter"]
    idle += ["ner"] if "entities" not in kinds else []
    idle += ["tagger", "morphologizer", "attribute_ruler", "parser"] if "phrases" not in kinds else []
    try:
        pipeline = spacy.load(model, exclude=idle)
    except (OSError, ImportError, ValueError) as error:
        there = (
            ", ".join(spacy.util.get_installed_models())
            or "none (pip install 'spanbert_jax[tags]' brings a small English one)"
        )
        raise InputError(f"{wanted}: cannot load the spaCy model {model!r}; those installed: {there}") from error
    assigned = {what for name in pipeline.pipe_names for what in pipeline.get_pipe_meta(name).assigns}
    gives = {
        "entities": "doc.ents" in assigned,
        "phrases": "token.dep" in assigned and "noun_chunks" in pipeline.Defaults.syntax_iterators,
    }
    missing = [kind for kind in kinds if not gives[kind]]
    if missing:
        raise InputError(
            f"{wanted}: the spaCy model {model!r} finds no {' or '.join(missing)}; choose another one or leave that kind out"
        )
    return pipeline


def parts(text: str) -> Iterator[tuple[int, str]]:
    """(start, part) of a text in parts of at most LONGEST characters, cut behind a blank where there is one."""
    start = 0
    while len(text) - start > LONGEST:
        blank = text.rfind(" ", start, start + LONGEST)
        end = blank + 1 if blank >= start else start + LONGEST
        yield start, text[start:end]
        start = end
    if start < len(text):
        yield start, text[start:]


# ---------------------------------------------------------------------------------------------------------------------------------------
# Lists of n-grams.


@dataclasses.dataclass(frozen=True)
class NgramFinder:
    """Spans of "ngrams": those of a list that stand in the text, longest first from left to right, over the words that BERT's rules cut."""

    path: str
    lowercase: bool
    kinds = ("ngrams",)

    def describe(self) -> dict[str, str | int | bool]:
        """What is in the list; not where it is."""
        ngrams = load_ngrams(self.path, self.lowercase)
        return {"sha256": ngrams.sha256, "count": len(ngrams.known), "lowercase": self.lowercase}

    def spans(self, sentences: list[str]) -> Spans:
        """The spans of each sentence."""
        ngrams = load_ngrams(self.path, self.lowercase)
        found = []
        for encoding in ngrams.words.encode_batch(sentences, add_special_tokens=False):
            offsets = encoding.offsets  # a new list each time it is asked for
            found.append([(offsets[first][0], offsets[end - 1][1]) for first, end in ngrams.find(tuple(encoding.ids))])
        return {"ngrams": found}


@dataclasses.dataclass(frozen=True)
class Ngrams:
    """A list of n-grams, their words as numbers."""

    words: HFTokenizer  # text -> the number of each word, one for all words that no n-gram has
    known: frozenset[tuple[int, ...]]
    lengths: dict[int, tuple[int, ...]]  # first word -> lengths of the n-grams that begin with it, longest first
    sha256: str  # of the file

    def find(self, words: tuple[int, ...]) -> Iterator[Span]:
        """The first word of each n-gram in a sentence, and the one after its last."""
        place = 0
        while place < len(words):
            ends = (place + length for length in self.lengths.get(words[place], ()) if place + length <= len(words))
            end = next((end for end in ends if words[place:end] in self.known), None)
            if end:
                yield place, end
            place = end or place + 1


@functools.cache
def load_ngrams(path: str, lowercase: bool) -> Ngrams:
    """The n-grams of a list. Raises InputError if it cannot be read or holds none."""
    if not path:
        raise InputError("tags: no list of n-grams; name its file")
    try:
        with open_bytes(path) as file:
            data = file.read()
        lines = [line for line in data.decode("utf-8-sig").split("\n") if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(
            f"tags: byte {error.start} of the list of n-grams {path} is not UTF-8 text; give an n-gram a line"
        ) from error
    learner = cut_words_as_bert(HFTokenizer(models.WordLevel()), lowercase)
    learner.train_from_iterator(lines, trainers.WordLevelTrainer(vocab_size=1 << 31, show_progress=False))
    numbers = {word: number for number, word in enumerate(sorted(learner.get_vocab()))}
    words = cut_words_as_bert(
        HFTokenizer(models.WordLevel(numbers | {UNKNOWN: len(numbers)}, unk_token=UNKNOWN)), lowercase
    )
    some = (lines[first : first + SOME_LINES] for first in range(0, len(lines), SOME_LINES))
    encodings = (encoding for part in some for encoding in words.encode_batch_fast(part, add_special_tokens=False))
    known = frozenset(tuple(encoding.ids) for encoding in encodings if encoding.ids)
    if not known:
        raise InputError(f"tags: the list of n-grams {path} holds none; give a text file, an n-gram a line")
    lengths = {}
    for ngram in known:
        lengths.setdefault(ngram[0], set()).add(len(ngram))
    lengths = {word: tuple(sorted(those, reverse=True)) for word, those in lengths.items()}
    return Ngrams(words, known, lengths, hashlib.sha256(data).hexdigest())

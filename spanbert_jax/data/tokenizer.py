"""WordPiece tokenisation, cased and uncased, on top of Hugging Face `tokenizers`.

A tokenizer is defined by its vocabulary and its rules for words alone. Text never yields [CLS], [SEP], [MASK] or [PAD],
even where it contains these strings (the brackets are separate words, as in any other text): only rows and masks
contain these tokens.

Where Hugging Face's Rust and Google's Python differ, ids are as in Rust: unassigned characters stay, a capital sigma at
the end of a word becomes the same letter as elsewhere, U+2B820-2B91F are not treated as Chinese, and marks and
punctuation are those in its Unicode tables.
"""

import functools
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from spanbert_jax.data.tokenizer_files import (
    CONTINUATION,
    JSON_FILE,
    MAX_WORD_LENGTH,
    TEXT_FILE,
    UNKNOWN,
    WordRules,
    described_by_json,
    read_text,
    read_vocabulary,
    tokens_of_lines,
)
from spanbert_jax.errors import InputError
from spanbert_jax.folders import replace_file

SPECIAL_TOKENS = ("[PAD]", UNKNOWN, "[CLS]", "[SEP]", "[MASK]")
CHOICES = ("auto", "yes", "no")  # values of data.lowercase and data.strip_accents


class Tokenizer:
    """A WordPiece vocabulary and BERT's rules for words.

    Attributes:
      tokens: the V vocabulary entries, in id order.
      rules: for words.
      reason: why these rules were chosen, in a clause; "" if the caller gave them.
      pad_id, unk_id, cls_id, sep_id, mask_id: of the special tokens.
      starts_word: bool [V], true where a token begins a word: every entry without "##", so punctuation and [UNK] are
        words too (docs/original.md 1.3.3).
    """

    def __init__(self, tokens: list[str], rules: WordRules | bool, source: str, reason: str = ""):
        """Makes a tokenizer.

        Args:
          tokens: the V vocabulary entries, in id order.
          rules: for words; a bool stands for WordRules(lowercase=...).
          source: name of the vocabulary in error messages.
          reason: see the class.

        Raises:
          InputError: a special token is missing, or an entry is empty, occurs twice or contains a line break.
        """
        check_vocabulary(tokens, source)
        self.tokens = list(tokens)
        self.rules = WordRules(rules) if isinstance(rules, bool) else rules
        self.reason = reason
        ids = {token: i for i, token in enumerate(tokens)}
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (ids[token] for token in SPECIAL_TOKENS)
        self.starts_word = np.array([not token.startswith(CONTINUATION) for token in tokens], np.bool_)  # [V]
        self._hf = HFTokenizer(models.WordPiece(ids, unk_token=UNKNOWN, max_input_chars_per_word=MAX_WORD_LENGTH))
        use_bert_words(self._hf, self.rules)
        self._hf.decoder = decoders.WordPiece(prefix=CONTINUATION)

    @property
    def vocab_size(self) -> int:
        """V, the number of vocabulary entries."""
        return len(self.tokens)

    @property
    def lowercase(self) -> bool:
        """Whether text is lower-cased."""
        return self.rules.lowercase

    @functools.cached_property
    def fingerprint(self) -> str:
        """Sha256 (hex) of vocabulary and rules, equal exactly if two tokenizers give the same ids."""
        return fingerprint_of(self.tokens, self.rules)

    def summary(self) -> str:
        """Returns a clause that describes vocabulary and rules, and why they are these."""
        return f"{self.vocab_size:,} tokens, {self.rules}" + (f" ({self.reason})" if self.reason else "")

    def encode(self, lines: list[str]) -> list[list[int]]:
        """Returns the ids of each line, without special tokens or truncation.

        A line of blanks and control characters has no ids.
        """
        return [encoding.ids for encoding in self._hf.encode_batch_fast(lines, add_special_tokens=False)]

    def encode_with_offsets(self, lines: list[str]) -> tuple[list[list[int]], list[list[tuple[int, int]]]]:
        """Returns the ids of `encode`, and for each token its range (first, last + 1) of characters in the line.

        Removed characters (accents, control characters) may be in no range. Tokens of one character (the letters of a
        Hangul syllable, when accents are removed) all have the range of that character.
        """
        encodings = self._hf.encode_batch(lines, add_special_tokens=False)
        return [encoding.ids for encoding in encodings], [encoding.offsets for encoding in encodings]

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of a sequence of ids, with special tokens. Spaces around punctuation are a guess."""
        return self._hf.decode([int(i) for i in ids], skip_special_tokens=False)

    def save(self, folder: str | Path) -> None:
        """Writes vocab.txt and tokenizer.json into `folder`, of which `load_tokenizer` makes the same tokenizer."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        copy = HFTokenizer.from_str(self._hf.to_str())  # ours must not recognise "[MASK]" in text
        copy.add_special_tokens(list(SPECIAL_TOKENS))
        copy.post_processor = processors.BertProcessing(("[SEP]", self.sep_id), ("[CLS]", self.cls_id))
        texts = {TEXT_FILE: "".join(token + "\n" for token in self.tokens), JSON_FILE: copy.to_str(pretty=True)}
        for name, text in texts.items():
            with replace_file(folder / name, "wb") as file:
                file.write(text.encode("utf-8"))


def use_bert_words(tokenizer: HFTokenizer, rules: WordRules) -> HFTokenizer:
    """Makes a tokenizer, with any model, clean text and divide it into words as BERT's does. Returns the tokenizer."""
    tokenizer.normalizer = rules.normalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def fingerprint_of(tokens: Sequence[str], rules: WordRules) -> str:
    """Returns Tokenizer.fingerprint of a tokenizer of these tokens and rules."""
    settings = " ".join(f"{name}={value}" for name, value in rules.settings().items())
    return hashlib.sha256("\n".join([settings, *tokens]).encode("utf-8")).hexdigest()


def check_vocabulary(tokens: list[str], source: str) -> None:
    """Checks that vocabulary entries include all special tokens, and that none is empty, occurs twice or breaks lines.

    Args:
      tokens: the entries.
      source: name of the vocabulary in messages.

    Raises:
      InputError: the vocabulary fails some of these checks; one line per problem. No advice shifts the ids of entries.
    """
    known = Counter(tokens)
    problems = []
    if missing := [token for token in SPECIAL_TOKENS if token not in known]:
        problems.append(
            f"no {', '.join(missing)} among its {len(tokens)} entries; write each in place of an unused entry,"
            " or as a new last line"
        )
    if "" in known:
        number = tokens.index("") + 1
        last = number > len("\n".join(tokens).rstrip("\n").split("\n"))
        advice = "remove it" if last else f"give it a name that is not in use, as in [unused{number}]"
        because = "" if last else "; without the line, all later entries would get other ids"
        problems.append(f"line {number} is empty; {advice}{because}")
    broken = next((token for token in tokens if "\n" in token or token.endswith("\r")), None)
    if broken is not None:
        problems.append(f"{broken!r} contains a line break, so that no {TEXT_FILE} can have it; give it another name")
    token, count = max(((token, count) for token, count in known.items() if token), key=lambda item: item[1])
    if count > 1:
        first = tokens.index(token)
        second = tokens.index(token, first + 1)
        problems.append(
            f"{token!r} is on line {first + 1} and again on line {second + 1}; give one of them a name that is not in"
            f" use, as in [unused{second + 1}]"
        )
    if problems:
        raise InputError("\n".join(f"vocabulary {source}: {problem}" for problem in problems))


def from_json(text: str, source: str) -> Tokenizer:
    """Returns the tokenizer that a tokenizer.json, or `to_str()` of a tokenizer of Hugging Face, describes.

    Tokens that were added behind its vocabulary are entries too.

    Raises:
      InputError: it is not BERT's WordPiece, or its vocabulary is invalid; the message names `source` and what differs.
    """
    described = described_by_json(text, source)
    rules, reason = choose_rules(described.tokens, described.rules, described.by, "auto", "auto")
    return Tokenizer(described.tokens, rules, source, reason)


def load_tokenizer(vocab: str, lowercase: str, strip_accents: str = "auto") -> Tokenizer:
    """Returns the tokenizer of a vocabulary.

    Args:
      vocab: as for tokenizer_files.read_vocabulary: an embedded vocabulary, a file, or a folder.
      lowercase: "yes", "no", or "auto": as the vocabulary's files say; if they do not, yes if lower-casing and removing
        accents would change no entry but [special] and <special> ones.
      strip_accents: "yes", "no", or "auto": as the files say; if they do not, as lowercase.

    Raises:
      InputError: an argument has another value, or the vocabulary is unreadable or invalid.
    """
    for name, choice in (("lowercase", lowercase), ("strip_accents", strip_accents)):
        if choice not in CHOICES:
            raise InputError(f"data.{name} is {choice!r}; it must be 'auto', 'yes' or 'no'")
    described = read_vocabulary(vocab)
    rules, reason = choose_rules(described.tokens, described.rules, described.by, lowercase, strip_accents)
    return Tokenizer(described.tokens, rules, vocab, reason)


def choose_rules(
    tokens: list[str], said: dict[str, bool | None], by: str, lowercase: str, strip_accents: str
) -> tuple[WordRules, str]:
    """Returns the rules for words of a vocabulary, and why they are these, in a clause.

    Args:
      tokens: its entries.
      said: what its files say; see Described.
      by: which of them.
      lowercase, strip_accents: as in load_tokenizer.
    """
    lower, accents, split = said.get("lowercase"), said.get("strip_accents"), said.get("split_chinese", True)
    if lowercase != "auto":
        other = f", although {by} says otherwise" if lower not in (None, lowercase == "yes") else ""
        lower, reason = lowercase == "yes", f"as required{other}"
    elif lower is not None:
        reason = f"as {by} says"
    else:
        changed = changed_by_lowercasing(tokens)
        lower = changed is None
        reason = (
            "lower-casing changes no entry" if changed is None else f"lower-casing would change the entry {changed!r}"
        )
    if strip_accents != "auto":
        accents = strip_accents == "yes"
    return WordRules(bool(lower), accents, bool(split)), reason


def changed_by_lowercasing(tokens: list[str]) -> str | None:
    """Returns the first entry that lower-casing and removing accents changes, None if there is none.

    [special] and <special> entries do not count: text never yields them.
    """
    normalize = normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=False, lowercase=True).normalize_str
    brackets = (("[", "]"), ("<", ">"))
    for token in tokens:
        if normalize(token) != token and not any(token.startswith(a) and token.endswith(b) for a, b in brackets):
            return token
    return None


def restored_tokenizer(file: Path, fingerprint: str) -> Tokenizer | None:
    """Returns the tokenizer of a vocab.txt with this fingerprint, which determines its rules; None if there is none.

    Raises:
      InputError: the vocabulary is unreadable or invalid.
    """
    tokens = tokens_of_lines(read_text(file, str(file)))
    for lowercase, strips, splits in itertools.product((False, True), repeat=3):
        rules = WordRules(lowercase, strips, splits)
        if fingerprint_of(tokens, rules) == fingerprint:
            return Tokenizer(tokens, rules, str(file), "as it was saved")
    return None

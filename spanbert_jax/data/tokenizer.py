"""WordPiece tokenisation, cased and uncased, on top of Hugging Face `tokenizers`.

A tokenizer is defined by its vocabulary and its casing alone. A vocabulary file has one entry per line, whose line
number is its id. Text never yields [CLS], [SEP], [MASK] or [PAD], even where it contains these strings (the brackets
are separate words, as in any other text): only rows and masks contain these tokens.

Where Hugging Face's Rust and Google's Python differ, ids are as in Rust: unassigned characters stay, a capital sigma at
the end of a word becomes the same letter as elsewhere, U+2B820-2B91F are not treated as Chinese, and marks and
punctuation are those in its Unicode tables.
"""

import functools
import hashlib
import importlib.resources
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from spanbert_jax.errors import InputError

EMBEDDED = {"cased": False, "uncased": True, "tiny": False}  # name of an embedded vocabulary -> lower-cases text
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY_FILES = ("vocab.txt", "tokenizer.json")  # the first that exists is read from a folder
CONTINUATION = "##"  # prefix of a token that continues a word
MAX_WORD_LENGTH = 100  # characters; a longer word is a single [UNK], as in Google's BERT


class Tokenizer:
    """A WordPiece vocabulary and BERT's rules for words.

    Attributes:
      tokens: the V vocabulary entries, in id order.
      lowercase: whether text is lower-cased and its accents are removed.
      pad_id, unk_id, cls_id, sep_id, mask_id: of the special tokens.
      starts_word: bool [V], true where a token begins a word: every entry without "##", so punctuation and [UNK] are
        words too (docs/original.md 1.3.3).
    """

    def __init__(self, tokens: list[str], lowercase: bool, source: str):
        """Makes a tokenizer.

        Args:
          tokens: the V vocabulary entries, in id order.
          lowercase: whether to lower-case text and remove its accents.
          source: name of the vocabulary in error messages.

        Raises:
          InputError: a special token is missing, or an entry is empty or occurs twice.
        """
        check_vocabulary(tokens, source)
        self.tokens = list(tokens)
        self.lowercase = lowercase
        ids = {token: i for i, token in enumerate(tokens)}
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (ids[token] for token in SPECIAL_TOKENS)
        self.starts_word = np.array([not token.startswith(CONTINUATION) for token in tokens], np.bool_)  # [V]
        self._hf = HFTokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=MAX_WORD_LENGTH))
        use_bert_words(self._hf, lowercase)
        self._hf.decoder = decoders.WordPiece(prefix=CONTINUATION)

    @property
    def vocab_size(self) -> int:
        """V, the number of vocabulary entries."""
        return len(self.tokens)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Sha256 (hex) of vocabulary and casing, equal exactly if two tokenizers give the same ids."""
        text = "\n".join([f"lowercase={self.lowercase}", *self.tokens])
        return hashlib.sha256(text.encode("utf-8")).hexdigest()

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
        """Writes vocab.txt (for `load_tokenizer`) and tokenizer.json (for Hugging Face) into `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "vocab.txt").write_bytes("".join(token + "\n" for token in self.tokens).encode("utf-8"))
        copy = HFTokenizer.from_str(self._hf.to_str())  # ours must not recognise "[MASK]" in text
        copy.add_special_tokens(list(SPECIAL_TOKENS))
        copy.post_processor = processors.BertProcessing(("[SEP]", self.sep_id), ("[CLS]", self.cls_id))
        copy.save(str(folder / "tokenizer.json"))


def use_bert_words(tokenizer: HFTokenizer, lowercase: bool) -> HFTokenizer:
    """Makes a tokenizer, with any model, clean text and divide it into words as BERT's does. Returns the tokenizer."""
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def check_vocabulary(tokens: list[str], source: str) -> None:
    """Checks that vocabulary entries include all special tokens, and that none is empty or occurs twice.

    Args:
      tokens: the entries.
      source: name of the vocabulary in messages.

    Raises:
      InputError: the vocabulary fails one of these checks.
    """
    missing = [token for token in SPECIAL_TOKENS if token not in set(tokens)]
    if missing:
        raise InputError(
            f"vocabulary {source}: no {', '.join(missing)} among its {len(tokens)} entries; add it as a line of its own"
        )
    if "" in tokens:
        raise InputError(f"vocabulary {source}: line {tokens.index('') + 1} is empty; remove it")
    token, count = Counter(tokens).most_common(1)[0]
    if count > 1:
        first = tokens.index(token)
        second = tokens.index(token, first + 1)
        raise InputError(
            f"vocabulary {source}: {token!r} is on line {first + 1} and again on line {second + 1}; keep one of them"
        )


def load_tokenizer(vocab: str, lowercase: str) -> Tokenizer:
    """Returns the tokenizer of a vocabulary.

    Args:
      vocab: an embedded vocabulary ("cased", "uncased", "tiny"), a vocab.txt or WordPiece tokenizer.json, or a folder
        with one of these.
      lowercase: "yes", "no", or "auto": as the embedded vocabulary was made; for a file, yes if no entry but [special]
        ones has a capital.

    Raises:
      InputError: `lowercase` has another value, or the vocabulary is unreadable or invalid.
    """
    if lowercase not in ("auto", "yes", "no"):
        raise InputError(f"data.lowercase is {lowercase!r}; it must be 'auto', 'yes' or 'no'")
    tokens = read_tokens(vocab)
    if lowercase != "auto":
        return Tokenizer(tokens, lowercase == "yes", vocab)
    if vocab in EMBEDDED:
        return Tokenizer(tokens, EMBEDDED[vocab], vocab)
    return Tokenizer(tokens, not any(has_capital(token) for token in tokens), vocab)


def read_tokens(vocab: str) -> list[str]:
    """Returns the entries of a vocabulary, in id order; `vocab` as for `load_tokenizer`.

    Raises:
      InputError: it cannot be read.
    """
    if vocab in EMBEDDED:
        path = importlib.resources.files("spanbert_jax.data").joinpath("assets", "vocab", f"{vocab}.txt")
    else:
        path = vocabulary_file(Path(vocab))
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        names = ", ".join(EMBEDDED)
        raise InputError(
            f"vocabulary {vocab}: cannot read it ({error.strerror}); give {names} or a vocab.txt"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"vocabulary {vocab}: byte {error.start} is not UTF-8 text; give a WordPiece vocab.txt"
        ) from error
    if path.name.endswith(".json"):
        return vocabulary_of_json(text, vocab)
    # splitlines() would also split at entries such as U+2028.
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def vocabulary_file(path: Path) -> Path:
    """Returns the path itself, or of a folder the first of VOCABULARY_FILES that exists in it."""
    if not path.is_dir():
        return path
    candidates = [path / name for name in VOCABULARY_FILES]
    return next((file for file in candidates if file.is_file()), candidates[0])


def vocabulary_of_json(text: str, source: str) -> list[str]:
    """Returns the vocabulary entries of a tokenizer.json, in id order.

    Raises:
      InputError: it is not of a WordPiece tokenizer, or its ids have gaps; the message names `source`.
    """
    try:
        ids = json.loads(text)["model"]["vocab"]
        tokens = sorted(ids, key=ids.get)
        if [ids[token] for token in tokens] == list(range(len(tokens))):
            return tokens
        problem = "its ids are not 0, 1, 2, ..."
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"{type(error).__name__}: {error}"
    raise InputError(f"vocabulary {source}: not the tokenizer.json of a WordPiece ({problem}); give a vocab.txt")


def has_capital(token: str) -> bool:
    """Returns whether lower-casing would change the token; false for [special] tokens."""
    return token != token.lower() and not (token.startswith("[") and token.endswith("]"))

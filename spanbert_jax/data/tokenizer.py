"""WordPiece tokenisation, cased and uncased, on top of Hugging Face `tokenizers`.

The vocabulary file is the whole truth: one token a line, its line number its id. Text never yields [CLS], [SEP], [MASK] or [PAD], even
where these strings stand in it (they are cut at the brackets like any other text): only rows and masks put them there.

Where Hugging Face's Rust and Google's Python differ, ids are as in Rust: unassigned characters stay, a capital sigma at the end of a word
becomes the same letter as elsewhere, U+2B820-2B91F are not taken for Chinese, and marks and punctuation are those its Unicode tables know.
"""

import functools
import hashlib
import importlib.resources
import json
from collections import Counter
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from spanbert_jax.errors import InputError

EMBEDDED = {"cased": False, "uncased": True, "tiny": False}  # name -> lower-cases its text
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY_FILES = ("vocab.txt", "tokenizer.json")  # of a folder, the first that is there
CONTINUATION = "##"  # a token that begins with it continues a word
MAX_WORD_LENGTH = 100  # characters; a longer word is one [UNK], as in Google's BERT


class Tokenizer:
    """WordPiece vocabulary and the rules that cut text into its tokens.

    `tokens` are the V strings in id order. Raises InputError, naming `source`, when a special token is missing or a token is empty or
    doubled.
    """

    def __init__(self, tokens: list[str], lowercase: bool, source: str):
        check_tokens(tokens, source)
        self.tokens = list(tokens)
        self.lowercase = lowercase
        ids = {token: i for i, token in enumerate(tokens)}
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (ids[token] for token in SPECIAL_TOKENS)
        # reference 1.3.3: a word begins at every token without "##", so punctuation and [UNK] are words too
        self.starts_word = np.array([not token.startswith(CONTINUATION) for token in tokens], np.bool_)  # [V]
        self._hf = HFTokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=MAX_WORD_LENGTH))
        cut_words_as_bert(self._hf, lowercase)
        self._hf.decoder = decoders.WordPiece(prefix=CONTINUATION)

    @property
    def vocab_size(self) -> int:
        """V, the number of tokens."""
        return len(self.tokens)

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over the tokens and the casing: equal exactly when two tokenizers give the same ids."""
        text = "\n".join([f"lowercase={self.lowercase}", *self.tokens])
        return hashlib.sha256(text.encode("utf-8")).hexdigest()

    def encode(self, lines: list[str]) -> list[list[int]]:
        """Ids of each line, without special tokens or truncation; a line of blanks and control characters gives []."""
        return [encoding.ids for encoding in self._hf.encode_batch_fast(lines, add_special_tokens=False)]

    def encode_with_offsets(self, lines: list[str]) -> tuple[list[list[int]], list[list[tuple[int, int]]]]:
        """The ids of `encode`, and for each token the (first, last + 1) characters of the line, as given, that it stands for.

        What is stripped (accents, control characters) may lie in no token, and tokens that share a character (the letters of a Hangul
        syllable, when accents are stripped) all have it.
        """
        encodings = self._hf.encode_batch(lines, add_special_tokens=False)
        return [encoding.ids for encoding in encodings], [encoding.offsets for encoding in encodings]

    def decode(self, ids) -> str:
        """Text of a sequence of ids, special tokens shown as they are; spaces around punctuation are a guess."""
        return self._hf.decode([int(i) for i in ids], skip_special_tokens=False)

    def save(self, folder) -> None:
        """Write vocab.txt (which `load_tokenizer` reads) and tokenizer.json (which Hugging Face reads) into `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "vocab.txt").write_bytes("".join(token + "\n" for token in self.tokens).encode("utf-8"))
        other = HFTokenizer.from_str(self._hf.to_str())  # our own must not learn to see "[MASK]" in text
        other.add_special_tokens(list(SPECIAL_TOKENS))
        other.post_processor = processors.BertProcessing(("[SEP]", self.sep_id), ("[CLS]", self.cls_id))
        other.save(str(folder / "tokenizer.json"))


def cut_words_as_bert(tokenizer: HFTokenizer, lowercase: bool) -> HFTokenizer:
    """The same tokenizer, made to clean text and cut it into words as BERT's does, whatever it then makes of the words."""
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def check_tokens(tokens: list[str], source: str) -> None:
    """Raise InputError, naming `source`, unless `tokens` are a WordPiece vocabulary with every special token and no token twice."""
    missing = [token for token in SPECIAL_TOKENS if token not in set(tokens)]
    if missing:
        raise InputError(
            f"vocabulary {source}: no {', '.join(missing)} among its {len(tokens)} tokens; add it as a line of its own"
        )
    if "" in tokens:
        raise InputError(f"vocabulary {source}: line {tokens.index('') + 1} is empty; remove it")
    token, count = Counter(tokens).most_common(1)[0]
    if count > 1:
        first = tokens.index(token)
        again = tokens.index(token, first + 1)
        raise InputError(
            f"vocabulary {source}: token {token!r} stands on line {first + 1} and again on line {again + 1}; keep one"
        )


def load_tokenizer(vocab: str, lowercase: str) -> Tokenizer:
    """Tokenizer of an embedded vocabulary ("cased", "uncased", "tiny"), or of a vocab.txt or tokenizer.json or a folder that holds one.

    `lowercase`: "yes", "no", or "auto": as the embedded vocabulary was made, and for a file, yes when no token but [special] ones has a
    capital. Raises InputError for an unreadable or unfit vocabulary.
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
    """Tokens of an embedded vocabulary, a vocab.txt or a WordPiece tokenizer.json, in id order. Raises InputError when it cannot be read."""
    if vocab in EMBEDDED:
        path = importlib.resources.files("spanbert_jax.data").joinpath("assets", "vocab", f"{vocab}.txt")
    else:
        path = Path(vocab)
        if path.is_dir():
            path = next(
                (path / name for name in VOCABULARY_FILES if (path / name).is_file()), path / VOCABULARY_FILES[0]
            )
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
        return tokens_of_json(text, vocab)
    # not splitlines(): vocabularies hold tokens such as U+2028 that it would take for a line end
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def tokens_of_json(text: str, source: str) -> list[str]:
    """Tokens of a tokenizer.json, in id order. Raises InputError, naming `source`, unless it is of a WordPiece without gaps in its ids."""
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
    """Whether lower-casing would change the token; [special] tokens do not count."""
    return token != token.lower() and not (token.startswith("[") and token.endswith("]"))

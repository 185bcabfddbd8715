"""WordPiece tokenisation, cased and uncased, on top of Hugging Face `tokenizers`.

The vocabulary file is the whole truth: one piece a line, its line number its id. Text never yields [CLS], [SEP], [MASK] or [PAD], even
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
SPECIAL_PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY_FILES = ("vocab.txt", "tokenizer.json")  # of a folder, the first that is there
CONTINUATION = "##"  # a piece that begins with it continues a word
MAX_WORD_LENGTH = 100  # characters; a longer word is one [UNK], as in Google's BERT


class Tokenizer:
    """WordPiece vocabulary and the rules that cut text into its pieces.

    `pieces` are the V strings in id order. Raises InputError, naming `source`, when a special piece is missing or a piece is empty or
    doubled.
    """

    def __init__(self, pieces: list[str], lowercase: bool, source: str):
        check_pieces(pieces, source)
        self.pieces = list(pieces)
        self.lowercase = lowercase
        ids = {piece: i for i, piece in enumerate(pieces)}
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (ids[piece] for piece in SPECIAL_PIECES)
        # reference 1.3.3: a word begins at every piece without "##", so punctuation and [UNK] are words too
        self.starts_word = np.array([not piece.startswith(CONTINUATION) for piece in pieces], np.bool_)  # [V]
        self._hf = HFTokenizer(models.WordPiece(ids, unk_token="[UNK]", max_input_chars_per_word=MAX_WORD_LENGTH))
        cut_words_as_bert(self._hf, lowercase)
        self._hf.decoder = decoders.WordPiece(prefix=CONTINUATION)

    @property
    def vocab_size(self) -> int:
        """V, the number of pieces."""
        return len(self.pieces)

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over the pieces and the casing: equal exactly when two tokenizers give the same ids."""
        text = "\n".join([f"lowercase={self.lowercase}", *self.pieces])
        return hashlib.sha256(text.encode("utf-8")).hexdigest()

    def encode(self, lines: list[str]) -> list[list[int]]:
        """Ids of each line, without special pieces or truncation; a line of blanks and control characters gives []."""
        return [encoding.ids for encoding in self._hf.encode_batch_fast(lines, add_special_tokens=False)]

    def encode_with_offsets(self, lines: list[str]) -> tuple[list[list[int]], list[list[tuple[int, int]]]]:
        """The ids of `encode`, and for each piece the (first, last + 1) characters of the line, as given, that it stands for.

        What is stripped (accents, control characters) may lie in no piece, and pieces that share a character (the letters of a Hangul
        syllable, when accents are stripped) all have it.
        """
        encodings = self._hf.encode_batch(lines, add_special_tokens=False)
        return [encoding.ids for encoding in encodings], [encoding.offsets for encoding in encodings]

    def decode(self, ids) -> str:
        """Text of a sequence of ids, special pieces shown as they are; spaces around punctuation are a guess."""
        return self._hf.decode([int(i) for i in ids], skip_special_tokens=False)

    def save(self, folder) -> None:
        """Write vocab.txt (which `load_tokenizer` reads) and tokenizer.json (which Hugging Face reads) into `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "vocab.txt").write_bytes("".join(piece + "\n" for piece in self.pieces).encode("utf-8"))
        other = HFTokenizer.from_str(self._hf.to_str())  # our own must not learn to see "[MASK]" in text
        other.add_special_tokens(list(SPECIAL_PIECES))
        other.post_processor = processors.BertProcessing(("[SEP]", self.sep_id), ("[CLS]", self.cls_id))
        other.save(str(folder / "tokenizer.json"))


def cut_words_as_bert(tokenizer: HFTokenizer, lowercase: bool) -> HFTokenizer:
    """The same tokenizer, made to clean text and cut it into words as BERT's does, whatever it then makes of the words."""
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def check_pieces(pieces: list[str], source: str) -> None:
    """Raise InputError, naming `source`, unless `pieces` are a WordPiece vocabulary with every special piece and no piece twice."""
    missing = [piece for piece in SPECIAL_PIECES if piece not in set(pieces)]
    if missing:
        raise InputError(f"vocabulary {source}: no {', '.join(missing)} among its {len(pieces)} pieces; add it as a line of its own")
    if "" in pieces:
        raise InputError(f"vocabulary {source}: line {pieces.index('') + 1} is empty; remove it")
    piece, count = Counter(pieces).most_common(1)[0]
    if count > 1:
        first = pieces.index(piece)
        again = pieces.index(piece, first + 1)
        raise InputError(f"vocabulary {source}: piece {piece!r} stands on line {first + 1} and again on line {again + 1}; keep one")


def load_tokenizer(vocab: str, lowercase: str) -> Tokenizer:
    """Tokenizer of an embedded vocabulary ("cased", "uncased", "tiny"), or of a vocab.txt or tokenizer.json or a folder that holds one.

    `lowercase`: "yes", "no", or "auto": as the embedded vocabulary was made, and for a file, yes when no piece but [special] ones has a
    capital. Raises InputError for an unreadable or unfit vocabulary.
    """
    if lowercase not in ("auto", "yes", "no"):
        raise InputError(f"data.lowercase is {lowercase!r}; it must be 'auto', 'yes' or 'no'")
    pieces = read_pieces(vocab)
    if lowercase != "auto":
        return Tokenizer(pieces, lowercase == "yes", vocab)
    if vocab in EMBEDDED:
        return Tokenizer(pieces, EMBEDDED[vocab], vocab)
    return Tokenizer(pieces, not any(has_capital(piece) for piece in pieces), vocab)


def read_pieces(vocab: str) -> list[str]:
    """Pieces of an embedded vocabulary, a vocab.txt or a WordPiece tokenizer.json, in id order. Raises InputError when it cannot be read."""
    if vocab in EMBEDDED:
        path = importlib.resources.files("spanbert_jax.data").joinpath("assets", "vocab", f"{vocab}.txt")
    else:
        path = Path(vocab)
        if path.is_dir():
            path = next((path / name for name in VOCABULARY_FILES if (path / name).is_file()), path / VOCABULARY_FILES[0])
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        names = ", ".join(EMBEDDED)
        raise InputError(f"vocabulary {vocab}: cannot read it ({error.strerror}); give {names} or a vocab.txt") from error
    except UnicodeDecodeError as error:
        raise InputError(f"vocabulary {vocab}: byte {error.start} is not UTF-8 text; give a WordPiece vocab.txt") from error
    if path.name.endswith(".json"):
        return pieces_of_json(text, vocab)
    # not splitlines(): vocabularies hold pieces such as U+2028 that it would take for a line end
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def pieces_of_json(text: str, source: str) -> list[str]:
    """Pieces of a tokenizer.json, in id order. Raises InputError, naming `source`, unless it is of a WordPiece without gaps in its ids."""
    try:
        ids = json.loads(text)["model"]["vocab"]
        pieces = sorted(ids, key=ids.get)
        if [ids[piece] for piece in pieces] == list(range(len(pieces))):
            return pieces
        problem = "its ids are not 0, 1, 2, ..."
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"{type(error).__name__}: {error}"
    raise InputError(f"vocabulary {source}: not the tokenizer.json of a WordPiece ({problem}); give a vocab.txt")


def has_capital(piece: str) -> bool:
    """Whether lower-casing would change the piece; [special] pieces do not count."""
    return piece != piece.lower() and not (piece.startswith("[") and piece.endswith("]"))

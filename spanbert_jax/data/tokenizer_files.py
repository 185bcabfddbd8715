"""What files say about a tokenizer: its vocabulary, and how text is divided into words.

    vocab.txt               one entry per line, whose line number is its id
    tokenizer.json          a tokenizer of Hugging Face `tokenizers`: vocabulary, added tokens, rules for words
    tokenizer_config.json   settings that transformers' BertTokenizer follows rather than those of tokenizer.json

A vocab.txt or tokenizer.json speaks for its folder: what is beside it is read too. A tokenizer that divides text in
another way than BERT's (BPE, Unigram, a normaliser of its own) is refused, since it gives the same words other ids.
"""

import dataclasses
import importlib.resources
import json
from pathlib import Path
from typing import Any

from tokenizers import normalizers

from spanbert_jax.errors import InputError

TEXT_FILE, JSON_FILE, SETTINGS_FILE = "vocab.txt", "tokenizer.json", "tokenizer_config.json"
VOCABULARY_FILES = (TEXT_FILE, JSON_FILE)  # the first that exists is read from a folder
EMBEDDED = {"cased": False, "uncased": True, "tiny": False}  # name of an embedded vocabulary -> lower-cases text
CONTINUATION = "##"  # prefix of a token that continues a word
UNKNOWN = "[UNK]"
MAX_WORD_LENGTH = 100  # characters; a longer word is a single [UNK], as in Google's BERT
OWN_RULES = "give its vocab.txt alone, in a folder of its own, to use that vocabulary with BERT's rules"

# Settings of WordRules -> their keys in a BertNormalizer of tokenizer.json, and in tokenizer_config.json.
RULE_KEYS = {
    "lowercase": ("lowercase", "do_lower_case"),
    "strip_accents": ("strip_accents", "strip_accents"),
    "split_chinese": ("handle_chinese_chars", "tokenize_chinese_chars"),
}
# Parts of a tokenizer.json -> the values of BERT's WordPiece. A key may be missing, where a value is the default.
WORDPIECE: dict[str, dict[str, Any]] = {
    "model": {
        "type": "WordPiece",
        "unk_token": UNKNOWN,
        "continuing_subword_prefix": CONTINUATION,
        "max_input_chars_per_word": MAX_WORD_LENGTH,
    },
    "normalizer": {"type": "BertNormalizer", "clean_text": True},
    "pre_tokenizer": {"type": "BertPreTokenizer"},
}
# Classes of transformers: those that follow BERT's rules, without "Tokenizer", and those that follow tokenizer.json.
BERT_CLASSES = ("Bert", "DistilBert", "Electra", "MobileBert", "ConvBert", "LayoutLM", "Lxmert", "SqueezeBert")
GENERIC_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")
# Settings of BERT's tokenizers for Japanese, with the values that change nothing.
SAME_WORDS = {"word_tokenizer_type": "basic", "subword_tokenizer_type": "wordpiece"}


@dataclasses.dataclass(frozen=True)
class WordRules:
    """How BERT cleans text and divides it into words.

    Attributes:
      lowercase: whether text is lower-cased.
      strip_accents: whether accents are removed, which in many scripts are vowel signs; None: as lowercase.
      split_chinese: whether each Chinese character is a word.
    """

    lowercase: bool
    strip_accents: bool | None = None
    split_chinese: bool = True

    @property
    def removes_accents(self) -> bool:
        """Whether accents are removed."""
        return self.lowercase if self.strip_accents is None else self.strip_accents

    def settings(self) -> dict[str, bool]:
        """Returns the settings in JSON's types; those that follow from lowercase in Google's BERT are left out."""
        described = {"lowercase": self.lowercase}
        if self.removes_accents != self.lowercase:
            described["strip_accents"] = self.removes_accents
        return described if self.split_chinese else described | {"split_chinese": False}

    def __str__(self) -> str:
        words = ["uncased" if self.lowercase else "cased"]
        if self.removes_accents != self.lowercase:
            words.append("accents removed" if self.removes_accents else "accents kept")
        if not self.split_chinese:
            words.append("Chinese characters not separated")
        return ", ".join(words)

    def normalizer(self) -> normalizers.Normalizer:
        """Returns BERT's normaliser with these settings."""
        accents = None if self.removes_accents == self.lowercase else self.removes_accents
        return normalizers.BertNormalizer(
            lowercase=self.lowercase, strip_accents=accents, handle_chinese_chars=self.split_chinese
        )


@dataclasses.dataclass(frozen=True)
class Described:
    """What files say about a tokenizer."""

    tokens: list[str]  # the vocabulary entries, in id order
    rules: dict[str, bool | None]  # settings of WordRules that they give
    by: str  # what gives them: the names of files; "" if nothing does


def read_vocabulary(vocab: str) -> Described:
    """Returns what is known of a vocabulary.

    Args:
      vocab: an embedded vocabulary ("cased", "uncased", "tiny"), a vocab.txt or tokenizer.json, or a folder with one.

    Raises:
      InputError: it cannot be read, is not BERT's WordPiece, or the files of a folder contradict each other.
    """
    if vocab in EMBEDDED:
        path = importlib.resources.files("spanbert_jax.data").joinpath("assets", "vocab", f"{vocab}.txt")
        return Described(tokens_of_lines(read_text(path, vocab)), {"lowercase": EMBEDDED[vocab]}, "its name")
    file = vocabulary_file(Path(vocab))
    text = read_text(file, vocab)
    if file.name.endswith(".json"):
        described = described_by_json(text, vocab, file.name)
    else:
        described = Described(tokens_of_lines(text), {}, "")
    return _with_neighbours(described, file, vocab) if file.name in VOCABULARY_FILES else described


def read_tokens(vocab: str) -> list[str]:
    """Returns the entries of a vocabulary, in id order; see read_vocabulary."""
    return read_vocabulary(vocab).tokens


def read_text(path, vocab: str) -> str:
    """Returns the text of a file. Raises InputError, which calls it the vocabulary `vocab`, if it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        names = ", ".join(EMBEDDED)
        raise InputError(
            f"vocabulary {vocab}: cannot read it ({error.strerror}); give {names} or a vocab.txt"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"vocabulary {vocab}: byte {error.start} is not UTF-8 text; give a WordPiece vocab.txt"
        ) from error


def tokens_of_lines(text: str) -> list[str]:
    """Returns the entries of a vocab.txt."""
    # splitlines() would also split at entries such as U+2028.
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def vocabulary_file(path: Path) -> Path:
    """Returns the path itself, or of a folder the first of VOCABULARY_FILES that exists in it."""
    if not path.is_dir():
        return path
    candidates = [path / name for name in VOCABULARY_FILES]
    return next((file for file in candidates if file.is_file()), candidates[0])


def described_by_json(text: str, source: str, by: str = "its tokenizer.json") -> Described:
    """Returns what a tokenizer.json says. Tokens that were added behind its vocabulary are entries too.

    Args:
      text: of the file.
      source: name of the vocabulary in messages.
      by: what to call the file.

    Raises:
      InputError: it is not of BERT's WordPiece; the message says what differs.
    """
    name = f"vocabulary {source}: {by}"
    tree = _json_object(text, name)
    parts = {part: _only(tree.get(part)) for part in WORDPIECE}
    if parts["model"].get("continuing_subword_prefix") == CONTINUATION:
        parts["model"] = {"type": "WordPiece"} | parts["model"]  # early releases of the library left it out
    if parts["model"].get("type") != "WordPiece":
        kind = parts["model"].get("type")
        raise InputError(
            f"{name} is of {f'a {kind}' if kind else 'no known kind'}, not of a WordPiece; give a vocab.txt"
        )
    problems = [
        f"its {part} has {key} {parts[part].get(key)!r}, not {value!r}"
        for part, wanted in WORDPIECE.items()
        for key, value in wanted.items()
        if parts[part].get(key, None if key == "type" else value) != value
    ]
    tokens, wrong = _tokens_of_json(parts["model"].get("vocab"), tree.get("added_tokens"))
    if problems or wrong:
        raise InputError(f"{name} is of a WordPiece unlike BERT's: {'; '.join([*problems, *wrong])}; {OWN_RULES}")
    return Described(tokens, _rules(parts["normalizer"], 0, name), by)


def _only(part: Any) -> dict:
    """Returns a part of a tokenizer.json; of a sequence of one, that one; {} if the part is none."""
    if not isinstance(part, dict):
        return {}
    members = part.get("normalizers") or part.get("pretokenizers")
    return _only(members[0]) if isinstance(members, list) and len(members) == 1 else part


def _tokens_of_json(vocab: Any, added: Any) -> tuple[list[str], list[str]]:
    """Returns the entries of a vocabulary and of tokens added behind it, in id order, and what is wrong with them."""
    if not isinstance(vocab, dict) or not all(type(number) is int for number in vocab.values()):
        return [], ["its model has no vocabulary {token: id}"]
    ids = dict(vocab)
    for entry in added if isinstance(added, list) else []:
        if isinstance(entry, dict) and type(entry.get("id")) is int and isinstance(entry.get("content"), str):
            ids.setdefault(entry["content"], entry["id"])
    tokens = sorted(ids, key=lambda token: ids[token])
    if [ids[token] for token in tokens] != list(range(len(tokens))):
        return [], ["its ids are not 0, 1, 2, ..."]
    return tokens, []


def _with_neighbours(described: Described, file: Path, vocab: str) -> Described:
    """Returns what a vocabulary file and the files beside it say together."""
    tokens, rules, by = described.tokens, described.rules, described.by
    whole, settings = file.with_name(JSON_FILE), file.with_name(SETTINGS_FILE)
    if file != whole and whole.is_file():
        other = described_by_json(read_text(whole, vocab), vocab, whole.name)
        if other.tokens[: len(tokens)] != tokens:
            raise InputError(
                f"vocabulary {vocab}: {file.name} and {whole.name} have different entries; move the one that does not "
                "belong to the model to another folder"
            )
        tokens, rules, by = other.tokens, other.rules, whole.name
    if settings.is_file():
        said, generic = _settings(read_text(settings, vocab), f"vocabulary {vocab}: its {SETTINGS_FILE}")
        if said and not (generic and rules):
            rules, by = rules | said, SETTINGS_FILE if "lowercase" in said or not rules else by
    return Described(tokens, rules, by)


def _settings(text: str, source: str) -> tuple[dict[str, bool | None], bool]:
    """Returns the rules that a tokenizer_config.json gives, and whether tokenizer.json has precedence.

    Raises:
      InputError: it is of a tokenizer with other rules than BERT's; the message begins with `source`.
    """
    tree = _json_object(text, source)
    kind = tree.get("tokenizer_class") or BERT_CLASSES[0]
    own = [f"{key} is {tree[key]!r}" for key, same in SAME_WORDS.items() if (tree.get(key) or same) != same]
    if kind not in GENERIC_CLASSES and str(kind).removesuffix("Fast").removesuffix("Tokenizer") not in BERT_CLASSES:
        own.append(f"tokenizer_class is {kind!r}")
    if own:
        raise InputError(
            f"{source} is of a tokenizer that divides text otherwise than BERT's: {'; '.join(own)}; {OWN_RULES}"
        )
    return _rules(tree, 1, source), kind in GENERIC_CLASSES


def _rules(tree: dict, column: int, source: str) -> dict[str, bool | None]:
    """Returns the settings of WordRules that a part of a file gives, under the keys of a column of RULE_KEYS."""
    found = {ours: tree[keys[column]] for ours, keys in RULE_KEYS.items() if keys[column] in tree}
    wrong = [
        f"{RULE_KEYS[ours][column]} is {value!r}"
        for ours, value in found.items()
        if not (isinstance(value, bool) or (value is None and ours == "strip_accents"))
    ]
    if wrong:
        raise InputError(f"{source}: {'; '.join(wrong)}, not true or false")
    return found


def _json_object(text: str, source: str) -> dict:
    """Returns the JSON object that a text is. Raises InputError, which begins with `source`, if it is none."""
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise InputError(f"{source} is not JSON ({error})") from error
    if not isinstance(tree, dict):
        raise InputError(f"{source} holds no JSON object")
    return tree

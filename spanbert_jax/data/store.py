"""The tokenised store: a corpus as files of token ids and tags, from which a few rows are read at a time.

    index.json                   format, vocabulary, casing, special ids, kinds of tags, and sizes of splits and shards
    vocab.txt  tokenizer.json    the tokenizer
    report.json                  statistics of the preparation (see preparation/report.py); only in prepared stores
    train.counts                 int64 [V]: how often each token occurs in the split
    train-00000.tokens ...       the shards; see shard.py

A token has one address in its split: the number of tokens before it, in all shards in the order of the index. A store
appears complete or not at all, and is never changed.

The files of a remote store (gs://, s3://, ...) are copied to this machine when they are first used, into a folder named
by the content of the store: $XDG_CACHE_HOME/spanbert_jax/stores/... (or ~/.cache/...). A file appears there complete or
not at all, and several processes may copy the same one at the same time.
"""

import functools
import hashlib
import itertools
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from spanbert_jax.data.random_access import RandomAccessFile
from spanbert_jax.data.shard import Shard, ShardWriter, shard_files, token_dtype
from spanbert_jax.data.sources.paths import is_remote, open_bytes
from spanbert_jax.data.tokenizer import SPECIAL_TOKENS, Tokenizer, restored_tokenizer
from spanbert_jax.data.tokenizer_files import WordRules
from spanbert_jax.errors import InputError
from spanbert_jax.folders import atomic_folder, publish_file

FORMAT = 2
SPLITS = ("train", "valid")
COPY_BUFFER = 1 << 22  # bytes
TOTALS = ("num_tokens", "num_sentences", "num_documents")

# ----------------------------------------------------------------------------------------------------------------------
# Writing.


def write_store(
    folder,
    tokenizer: Tokenizer,
    documents: Mapping[str, Iterable[list[str]]],
    tagger=None,
    shard_documents: int = 1 << 20,
) -> None:
    """Tokenises documents in memory into a new store; preparation/ does the same for files.

    Sentences without a token and documents without a sentence are left out. The store appears complete or not at all.

    Args:
      folder: the new store.
      tokenizer: of the store.
      documents: of each split, as lists of sentences.
      tagger: a tagging.Tagger, or None for no tags.
      shard_documents: documents in a shard.

    Raises:
      InputError: `folder` exists and is not an empty folder, it cannot be written, or the split "train" has no text.
    """
    with atomic_folder(Path(folder)) as temporary:
        shards = {
            split: list(write_shards(temporary, split, tokenizer, texts, tagger, shard_documents))
            for split, texts in documents.items()
        }
        write_index(temporary, tokenizer, tagger, shards)


def write_shards(
    folder: Path, split: str, tokenizer: Tokenizer, documents: Iterable[list[str]], tagger, shard_documents: int
) -> Iterator[Shard]:
    """Writes the shards of a split, and yields each when it is finished."""
    documents = iter(documents)
    number = 0
    while (first := next(documents, None)) is not None:
        writer = ShardWriter(folder, f"{split}-{number:05d}", tokenizer, tagger)
        try:
            writer.add(first)
            for document in itertools.islice(documents, shard_documents - 1):
                writer.add(document)
            shard = writer.close()
        finally:
            writer.abandon()
        if shard:
            yield shard
        number += 1


def write_index(folder: Path, tokenizer: Tokenizer, tagger, shards: Mapping[str, Iterable[Shard]]) -> None:
    """Makes a store of finished shards: writes the tokenizer, the counts, and finally index.json.

    Raises:
      InputError: the split "train" has no text.
    """
    splits = {}
    for name, shards_of_split in shards.items():
        counts, entries = np.zeros(tokenizer.vocab_size, np.int64), []
        for shard in shards_of_split:
            counts += shard.counts
            entries.append(shard.entry)
        if name == "train" and not entries:
            raise InputError("corpus: the training split holds no text that gives a single token")
        counts.astype("<i8").tofile(folder / f"{name}.counts")
        splits[name] = {key: sum(entry[key] for entry in entries) for key in TOTALS} | {"shards": entries}
    tokenizer.save(folder)
    index = {
        "format": FORMAT,
        "vocab_size": tokenizer.vocab_size,
        **tokenizer.rules.settings(),
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "token_dtype": token_dtype(tokenizer.vocab_size).str,
        "special_ids": {token: tokenizer.tokens.index(token) for token in SPECIAL_TOKENS},
        "tags": tagger.describe() if tagger else {},
        "splits": splits,
    }
    (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


# ----------------------------------------------------------------------------------------------------------------------
# Reading.


def open_store(folder) -> "Store":
    """Opens the store at `folder`, a path or a URL (gs://...).

    Raises:
      InputError: there is no store, or it is damaged or has another format.
    """
    where = str(folder)
    try:
        if is_remote(where):
            with open_bytes(f"{where}/index.json") as file:
                data = file.read()
        else:
            data = (Path(where) / "index.json").read_bytes()
        index = json.loads(data)
        if index["format"] != FORMAT:
            raise InputError(
                f"store {where}: format {index['format']}, this version reads format {FORMAT}; make the store again"
            )
        return Store(where, index, hashlib.sha256(data).hexdigest())
    except OSError as error:
        raise InputError(
            f"store {where}: no index.json in it ({error.strerror}); make one with scripts/prepare_data.py"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError, KeyError) as error:
        raise InputError(
            f"store {where}: its index.json is damaged; make the store again with scripts/prepare_data.py"
        ) from error


class Store:
    """A tokenised corpus.

    Attributes:
      where: the path or URL.
      folder: on this machine; of a remote store, the folder that its files are copied to.
      index: the content of index.json.
      fingerprint: sha256 (hex) of index.json, which changes with any token or tag.
      vocab_size: V.
      tokenizer_fingerprint: see Tokenizer.fingerprint.
    """

    def __init__(self, where: str, index: dict, fingerprint: str):
        self.where = where
        self.folder = cache_folder(fingerprint) if is_remote(where) else Path(where)
        self.index = index
        self.fingerprint = fingerprint
        self.vocab_size = index["vocab_size"]
        self.tokenizer_fingerprint = index["tokenizer_fingerprint"]

    def file(self, name: str, size: int | None = None) -> Path:
        """Returns the path of a file of the store on this machine.

        Raises:
          InputError: it is missing or has not `size` bytes.
        """
        path = self.folder / name
        if is_remote(self.where):
            copy_to_cache(f"{self.where}/{name}", path)
        actual_size = path.stat().st_size if path.is_file() else None
        if actual_size is None or (size is not None and actual_size != size):
            problem = "is missing" if actual_size is None else f"has {actual_size} bytes instead of {size}"
            if is_remote(self.where):
                path.unlink(missing_ok=True)
            raise InputError(f"store {self.where}: {name} {problem}; make the store again with scripts/prepare_data.py")
        return path

    def open(self, name: str, size: int) -> int:
        """Returns a descriptor of a file of the store. Raises what `file` does, and OSError."""
        return os.open(self.file(name, size), os.O_RDONLY)

    def tokenizer(self) -> Tokenizer:
        """Returns the tokenizer that the store was made with.

        Raises:
          InputError: vocab.txt in the folder is not its vocabulary.
        """
        tokenizer = restored_tokenizer(self.file("vocab.txt"), self.tokenizer_fingerprint)
        if tokenizer is None:
            raise InputError(f"store {self.where}: vocab.txt is not the vocabulary that it was made with; put it back")
        return tokenizer

    @property
    def rules(self) -> WordRules:
        """The rules for words that the store was made with."""
        return WordRules(
            self.index["lowercase"], self.index.get("strip_accents"), self.index.get("split_chinese", True)
        )

    def require(self, tokenizer: Tokenizer) -> None:
        """Checks that the store was made with this tokenizer.

        Raises:
          InputError: it was not; names both vocabularies.
        """
        if tokenizer.fingerprint == self.tokenizer_fingerprint:
            return
        own = describe_vocabulary(self.vocab_size, self.rules, self.tokenizer_fingerprint)
        other = describe_vocabulary(tokenizer.vocab_size, tokenizer.rules, tokenizer.fingerprint)
        raise InputError(
            f"store {self.where}: made with another vocabulary ({own}) than the one asked for ({other});"
            " give data.vocab = store, which takes the store's whatever data.lowercase is, or make the store again"
        )

    def split(self, name: str) -> "Split":
        """Returns the split "train" or "valid".

        Raises:
          InputError: the store has no split of that name, or its files are missing or incomplete.
        """
        if name not in self.index["splits"]:
            raise InputError(f"store {self.where}: no split {name!r}, it has {', '.join(self.index['splits'])}")
        return Split(self, name)


def describe_vocabulary(vocab_size: int, rules: WordRules, fingerprint: str) -> str:
    """Returns a short description for messages."""
    return f"{vocab_size} tokens, {rules}, sha256 {fingerprint[:12]}"


class Split:
    """A split of a store: safe in threads, and neither resident memory nor the number of open files grows with it.

    The files of a local store are checked when the split is opened, those of a remote one when they are first used.

    Attributes:
      store, name: the store, and which of its splits this is.
      tag_kinds: kinds of tags in the store.
      num_tokens, num_sentences, num_documents: sizes.
    """

    def __init__(self, store: Store, name: str):
        entry = store.index["splits"][name]
        self.store = store
        self.name = name
        self.tag_kinds = tuple(store.index["tags"])
        self.num_tokens, self.num_sentences, self.num_documents = (entry[key] for key in TOTALS)
        self._dtype = np.dtype(store.index["token_dtype"])
        self._shards = entry["shards"]
        self._starts = np.cumsum([0] + [shard["num_tokens"] for shard in self._shards])  # [shards + 1] addresses
        self._sizes = {f"{name}.counts": store.vocab_size * 8}
        for shard in self._shards:
            self._sizes |= shard_files(shard, self._dtype.itemsize, self.tag_kinds)
        if not is_remote(store.where):
            for file, size in self._sizes.items():
                store.file(file, size)
        self._files = {
            file: RandomAccessFile(functools.partial(store.open, file, size)) for file, size in self._sizes.items()
        }

    def sentence_offsets(self) -> np.ndarray:
        """Returns the address of each sentence's first token, and the number of tokens: int64 [sentences + 1]."""
        return self._offsets("sentences")

    def document_offsets(self) -> np.ndarray:
        """Returns the number of each document's first sentence, and the number of sentences: int64 [documents + 1]."""
        return self._offsets("documents")

    @property
    def token_counts(self) -> np.ndarray:
        """How often each token occurs in the split: int64 [V]."""
        return np.fromfile(self._file(f"{self.name}.counts"), "<i8").astype(np.int64)

    def read(self, start: int, count: int) -> np.ndarray:
        """Returns the ids of `count` tokens from address `start` on: uint16 or uint32 [count].

        Raises:
          IndexError: there are no such tokens.
        """
        width = self._dtype.itemsize
        data = b"".join(
            self._files[f"{shard}.tokens"].read(width * first, width * size)
            for shard, first, size in self._shard_intervals(start, count)
        )
        return np.frombuffer(data, self._dtype)

    def tags(self, kind: str, start: int, count: int) -> np.ndarray:
        """Returns whether each of `count` tokens from address `start` on has the tag: bool [count].

        Raises:
          IndexError: there are no such tokens.
          KeyError: `kind` is not among `tag_kinds`.
        """
        bits = [np.zeros(0, np.uint8)]
        for shard, first, size in self._shard_intervals(start, count):
            first_byte, end_byte = first // 8, (first + size + 7) // 8
            data = self._files[f"{shard}.{kind}"].read(first_byte, end_byte - first_byte)
            unpacked = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
            bits.append(unpacked[first - 8 * first_byte :][:size])
        return np.concatenate(bits).astype(np.bool_)

    def _file(self, name: str) -> Path:
        return self.store.file(name, self._sizes[name])

    def _offsets(self, kind: str) -> np.ndarray:
        counts = [np.fromfile(self._file(f"{shard['name']}.{kind}"), "<u4") for shard in self._shards]
        return np.cumsum(np.concatenate([np.zeros(1, np.int64), *counts]), dtype=np.int64)

    def _shard_intervals(self, start: int, count: int) -> Iterator[tuple[str, int, int]]:
        """Yields (name of the shard, first token in it, number of tokens) for each shard that has some of the
        tokens.
        """
        if not 0 <= start <= start + count <= self.num_tokens:
            raise IndexError(f"tokens {start}..{start + count} of split {self.name!r}, which has {self.num_tokens}")
        shard = int(np.searchsorted(self._starts, start, "right")) - 1
        while count > 0:
            size = min(count, int(self._starts[shard + 1]) - start)
            yield self._shards[shard]["name"], start - int(self._starts[shard]), size
            start, count, shard = start + size, count - size, shard + 1


# ----------------------------------------------------------------------------------------------------------------------
# Copies of remote stores.


def cache_folder(fingerprint: str) -> Path:
    """Returns the folder for the files of the remote store with this fingerprint; makes it if needed.

    Raises:
      InputError: it cannot be made.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = root / "spanbert_jax" / "stores" / fingerprint[:32]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot make this folder for a remote store ({error.strerror});"
            " set XDG_CACHE_HOME to another folder"
        ) from error
    return folder


def copy_to_cache(url: str, path: Path) -> None:
    """Copies a file to `path`, unless it exists.

    Raises:
      InputError: it cannot be read or written.
    """
    if path.is_file():
        return
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open_bytes(url) as source, open(temporary, "wb") as target:
            shutil.copyfileobj(source, target, COPY_BUFFER)
        publish_file(temporary, path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot write it ({error.strerror or error});"
            " free some space, or set XDG_CACHE_HOME to another folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)

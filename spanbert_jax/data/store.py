"""The tokenised store: a corpus as files of token ids and tags, read a few rows at a time.

    index.json                    format, vocabulary, casing, special ids, kinds of tags, and what each split and shard holds
    vocab.txt  tokenizer.json     the tokenizer
    report.json                   what went into it, for a person (see preparation/report.py); only of prepared stores
    train.counts                  int64 [V]: how often each token occurs in the split
    train-00000.tokens ...        the shards; see shard.py

Shards follow one another, in the order of the index, so a token has one address in its split: the number of tokens before it. Nothing is
kept open for writing: a store is complete or it is not there.
"""

import functools
import hashlib
import itertools
import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from spanbert_jax.data import staging
from spanbert_jax.data.shard import Shard, ShardWriter, shard_files, token_dtype
from spanbert_jax.data.sources.paths import is_remote, open_bytes
from spanbert_jax.data.tokenizer import SPECIAL_TOKENS, Tokenizer, load_tokenizer
from spanbert_jax.errors import InputError
from spanbert_jax.folders import new_folder

FORMAT = 2
SPLITS = ("train", "valid")


def write_store(
    folder, tokenizer: Tokenizer, documents: dict[str, Iterable[list[str]]], tagger=None, shard_documents: int = 1 << 20
):
    """Tokenise documents (lists of sentences) that are at hand, by split, into a new store at `folder`; files go through preparation/.

    A shard is begun after each `shard_documents`. Sentences without a single token are left out, and documents without a sentence. The
    store appears complete or not at all. Raises InputError when `folder` exists and is not an empty folder, cannot be written, or the
    split "train" has no text.
    """
    with new_folder(Path(folder)) as temporary:
        shards = {
            split: list(write_shards(temporary, split, tokenizer, texts, tagger, shard_documents))
            for split, texts in documents.items()
        }
        write_index(temporary, tokenizer, tagger, shards)


def write_shards(
    folder: Path, split: str, tokenizer: Tokenizer, documents: Iterable[list[str]], tagger, shard_documents: int
):
    """Write the shards of a split, and yield each when it is finished."""
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


def write_index(folder: Path, tokenizer: Tokenizer, tagger, shards: dict[str, Iterable[Shard]]) -> None:
    """Write what makes a store of finished shards: the tokenizer, the counts, and at last index.json.

    Raises:
      InputError: the split "train" has no text.
    """
    splits = {}
    for name, those in shards.items():
        counts, entries = np.zeros(tokenizer.vocab_size, np.int64), []
        for shard in those:
            counts += shard.counts
            entries.append(shard.entry)
        if name == "train" and not entries:
            raise InputError(
                "corpus: the training split holds no text that gives a single token;"
                " look at data.source and data.valid_fraction"
            )
        counts.astype("<i8").tofile(folder / f"{name}.counts")
        splits[name] = {
            key: sum(entry[key] for entry in entries) for key in ("num_tokens", "num_sentences", "num_documents")
        }
        splits[name]["shards"] = entries
    tokenizer.save(folder)
    index = {
        "format": FORMAT,
        "vocab_size": tokenizer.vocab_size,
        "lowercase": tokenizer.lowercase,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "token_dtype": token_dtype(tokenizer.vocab_size).str,
        "special_ids": {token: tokenizer.tokens.index(token) for token in SPECIAL_TOKENS},
        "tags": tagger.describe() if tagger else {},
        "splits": splits,
    }
    (folder / "index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def open_store(folder) -> "Store":
    """Open the store at `folder`, a path or a URL (gs://...: its files come to this machine as they are used; see staging.py).

    Raises InputError when there is none, or it is damaged or of another format.
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
    """A tokenised corpus. `index` is the content of index.json, `fingerprint` (sha256 hex) changes with any token or tag of it.

    `folder` is on this machine: for a remote store, where its files are kept once they have come.
    """

    def __init__(self, where: str, index: dict, fingerprint: str):
        self.where = where
        self.folder = staging.cache_folder(fingerprint) if is_remote(where) else Path(where)
        self.index = index
        self.fingerprint = fingerprint
        self.vocab_size = index["vocab_size"]
        self.tokenizer_fingerprint = index["tokenizer_fingerprint"]

    def file(self, name: str, size: int | None = None) -> Path:
        """A file of the store, on this machine. Raises InputError when it is missing or has not `size` bytes."""
        path = self.folder / name
        if is_remote(self.where):
            staging.fetch(f"{self.where}/{name}", path)
        found = path.stat().st_size if path.is_file() else None
        if found is None or (size is not None and found != size):
            state = "is missing" if found is None else f"has {found} bytes instead of {size}"
            if is_remote(self.where):
                path.unlink(missing_ok=True)
            raise InputError(f"store {self.where}: {name} {state}; make the store again with scripts/prepare_data.py")
        return path

    def tokenizer(self) -> Tokenizer:
        """The tokenizer the store was made with. Raises InputError when the folder's vocab.txt is not it."""
        tokenizer = load_tokenizer(str(self.file("vocab.txt")), "yes" if self.index["lowercase"] else "no")
        self.require(tokenizer)
        return tokenizer

    def require(self, tokenizer: Tokenizer) -> None:
        """Raise InputError, naming both vocabularies, unless the store was made with this tokenizer."""
        if tokenizer.fingerprint == self.tokenizer_fingerprint:
            return
        mine = describe(self.vocab_size, self.index["lowercase"], self.tokenizer_fingerprint)
        other = describe(tokenizer.vocab_size, tokenizer.lowercase, tokenizer.fingerprint)
        raise InputError(
            f"store {self.where}: made with another vocabulary ({mine}) than the one asked for ({other});"
            " set data.vocab and data.lowercase to the store's, or make the store again"
        )

    def split(self, name: str) -> "Split":
        """One split ("train", "valid"). Raises InputError when the store has none of that name, or its files are missing or cut."""
        if name not in self.index["splits"]:
            raise InputError(f"store {self.where}: no split {name!r}, it has {', '.join(self.index['splits'])}")
        return Split(self, name)


def describe(vocab_size: int, lowercase: bool, fingerprint: str) -> str:
    """A vocabulary in a few words, for messages."""
    return f"{vocab_size} tokens, {'uncased' if lowercase else 'cased'}, sha256 {fingerprint[:12]}"


class Split:
    """One split of a store, read with `pread`: safe in threads, and resident memory does not grow with the corpus.

    Of a local store all files are looked at here; those of a remote one come, and are looked at, when they are first used.
    """

    def __init__(self, store: Store, name: str):
        entry = store.index["splits"][name]
        self.store = store
        self.name = name
        self.tag_kinds = tuple(store.index["tags"])
        self.num_tokens, self.num_sentences, self.num_documents = (
            entry[key] for key in ("num_tokens", "num_sentences", "num_documents")
        )
        self._dtype = np.dtype(store.index["token_dtype"])
        self._shards = entry["shards"]
        self._starts = np.cumsum([0] + [shard["num_tokens"] for shard in self._shards])  # [shards + 1] token addresses
        self._sizes = {f"{name}.counts": store.vocab_size * 8}
        for shard in self._shards:
            self._sizes |= shard_files(shard, self._dtype.itemsize, self.tag_kinds)
        if not is_remote(store.where):
            for file, size in self._sizes.items():
                store.file(file, size)
        self._open = functools.cache(lambda file: open(self._file(file), "rb", buffering=0))

    def _file(self, name: str) -> Path:
        return self.store.file(name, self._sizes[name])

    def _offsets(self, kind: str) -> np.ndarray:
        counts = [np.fromfile(self._file(f"{shard['name']}.{kind}"), "<u4") for shard in self._shards]
        return np.cumsum(np.concatenate([np.zeros(1, np.int64), *counts]), dtype=np.int64)

    def sentence_offsets(self) -> np.ndarray:
        """int64 [sentences + 1]: address of each sentence's first token, and at the end the number of tokens."""
        return self._offsets("sentences")

    def document_offsets(self) -> np.ndarray:
        """int64 [documents + 1]: index of each document's first sentence, and at the end the number of sentences."""
        return self._offsets("documents")

    @property
    def token_counts(self) -> np.ndarray:
        """int64 [V]: how often each token occurs in the split."""
        return np.fromfile(self._file(f"{self.name}.counts"), "<i8").astype(np.int64)

    def read(self, start: int, count: int) -> np.ndarray:
        """Ids of `count` tokens from address `start` on, uint16 or uint32 [count]. Raises IndexError outside the split."""
        width = self._dtype.itemsize
        parts = [
            os.pread(self._open(f"{name}.tokens").fileno(), width * here, width * at)
            for name, at, here in self._parts(start, count)
        ]
        return np.frombuffer(b"".join(parts), self._dtype)

    def tags(self, kind: str, start: int, count: int) -> np.ndarray:
        """Whether each of `count` tokens from address `start` on has the tag, bool [count].

        Raises IndexError outside the split, KeyError for a kind that is not among `tag_kinds`.
        """
        bits = [np.zeros(0, np.uint8)]
        for name, at, here in self._parts(start, count):
            first = at // 8
            data = os.pread(self._open(f"{name}.{kind}").fileno(), (at + here + 7) // 8 - first, first)
            bits.append(np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[at - 8 * first :][:here])
        return np.concatenate(bits).astype(np.bool_)

    def _parts(self, start: int, count: int):
        """(shard, first token in it, tokens) for each shard that a run of tokens lies in."""
        if not 0 <= start <= start + count <= self.num_tokens:
            raise IndexError(f"tokens {start}..{start + count} of split {self.name!r}, which has {self.num_tokens}")
        shard = int(np.searchsorted(self._starts, start, "right")) - 1
        while count > 0:
            here = min(count, int(self._starts[shard + 1]) - start)
            yield self._shards[shard]["name"], start - int(self._starts[shard]), here
            start, count, shard = start + here, count - here, shard + 1

"""The tokenised store: a corpus as files of token ids, read a few rows at a time.

    index.json                    format, vocabulary, casing, special ids, and what each split and shard holds
    vocab.txt  tokenizer.json     the tokenizer
    train.counts                  int64 [V]: how often each piece occurs in the split
    train-00000.tokens            uint16 (V <= 65536) or uint32: ids of all sentences, one after another
    train-00000.sentences         uint32: pieces in each sentence
    train-00000.documents         uint32: sentences in each document

All numbers are little-endian. A document lies whole in one shard; shards follow one another, so a piece has one address in its split: the
number of pieces before it. Nothing is kept open for writing: a store is complete or it is not there.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from spanbert_jax.data.tokenizer import SPECIAL_PIECES, Tokenizer, load_tokenizer
from spanbert_jax.errors import InputError
from spanbert_jax.folders import new_folder

FORMAT = 1
SHARD_TOKENS = 1 << 28  # pieces after which a new shard begins, at the end of a document
CHUNK_CHARACTERS = 1 << 20  # of text tokenised at a time: what bounds the memory of preparation


def write_store(folder, tokenizer: Tokenizer, documents: dict[str, Iterable[list[str]]]) -> None:
    """Tokenise the documents (lists of sentences) of each split into a new store at `folder`.

    Sentences without a single piece are left out, and documents without a sentence. The store is written beside `folder` and renamed at the
    end, so that it appears complete or not at all. Raises InputError when `folder` exists and is not an empty folder, cannot be written,
    or the split "train" has no text.
    """
    with new_folder(Path(folder)) as temporary:
        splits = {name: write_split(temporary, name, tokenizer, texts) for name, texts in documents.items()}
        tokenizer.save(temporary)
        (temporary / "index.json").write_text(json.dumps(make_index(tokenizer, splits), indent=1) + "\n", encoding="utf-8")


def make_index(tokenizer: Tokenizer, splits: dict) -> dict:
    """The content of index.json."""
    return {
        "format": FORMAT,
        "vocab_size": tokenizer.vocab_size,
        "lowercase": tokenizer.lowercase,
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "token_dtype": token_dtype(tokenizer.vocab_size).str,
        "special_ids": {piece: tokenizer.pieces.index(piece) for piece in SPECIAL_PIECES},
        "splits": splits,
    }


def token_dtype(vocab_size: int) -> np.dtype:
    """The narrowest little-endian type that holds every id."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def write_split(folder: Path, name: str, tokenizer: Tokenizer, documents: Iterable[list[str]]) -> dict:
    """Write the files of one split and return its entry in the index. Raises InputError when a training split has no text."""
    counts = np.zeros(tokenizer.vocab_size, np.int64)  # [V]
    shards = []
    writer = None
    for sentences in encoded_documents(tokenizer, documents):
        if writer is None:
            writer = ShardWriter(folder, f"{name}-{len(shards):05d}")
        counts += np.bincount(writer.add(sentences), minlength=tokenizer.vocab_size)
        if writer.entry["num_tokens"] >= SHARD_TOKENS:
            shards.append(writer.close())
            writer = None
    if writer is not None:
        shards.append(writer.close())
    if name == "train" and not shards:
        raise InputError("corpus: the training split holds no text that gives a single piece; look at data.source and data.valid_fraction")
    counts.astype("<i8").tofile(folder / f"{name}.counts")
    totals = {key: sum(shard[key] for shard in shards) for key in ("num_tokens", "num_sentences", "num_documents")}
    return totals | {"shards": shards}


def encoded_documents(tokenizer: Tokenizer, documents: Iterable[list[str]]) -> Iterator[list[np.ndarray]]:
    """Documents as lists of non-empty sentences of ids; many are tokenised in one call, on all cores, and a huge one in several."""
    dtype = token_dtype(tokenizer.vocab_size)
    for group in chunked(documents, lambda document: sum(map(len, document))):
        lines = (line for document in group for line in document)
        encoded = iter([np.array(ids, dtype) for chunk in chunked(lines, len) for ids in tokenizer.encode(chunk)])
        for document in group:
            sentences = [ids for ids in (next(encoded) for _ in document) if ids.size]
            if sentences:
                yield sentences


def chunked(items: Iterable, characters: Callable[[object], int]) -> Iterator[list]:
    """Runs of items that together have CHUNK_CHARACTERS, or just pass them; the last may have fewer."""
    chunk, size = [], 0
    for item in items:
        chunk.append(item)
        size += characters(item)
        if size >= CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


class ShardWriter:
    """The three files of a shard that is being written."""

    def __init__(self, folder: Path, name: str):
        self.entry = {"name": name, "num_tokens": 0, "num_sentences": 0, "num_documents": 0}
        self._hash = hashlib.sha256()
        self._tokens, self._sentences, self._documents = (
            open(folder / f"{name}.{kind}", "wb") for kind in ("tokens", "sentences", "documents")
        )

    def add(self, sentences: list[np.ndarray]) -> np.ndarray:
        """Append one document, and return the ids of all its pieces."""
        lengths = np.fromiter(map(len, sentences), "<u4", len(sentences))
        tokens = np.concatenate(sentences)
        for file, array in ((self._tokens, tokens), (self._sentences, lengths), (self._documents, np.array([len(sentences)], "<u4"))):
            data = array.tobytes()
            self._hash.update(data)
            file.write(data)
        for key, amount in (("num_tokens", tokens.size), ("num_sentences", len(sentences)), ("num_documents", 1)):
            self.entry[key] += amount
        return tokens

    def close(self) -> dict:
        """Close the files and return the shard's entry in the index."""
        for file in (self._tokens, self._sentences, self._documents):
            file.close()
        return self.entry | {"sha256": self._hash.hexdigest()}


def open_store(folder) -> "Store":
    """Open the store at `folder`. Raises InputError when there is none, or it is damaged or of another format."""
    folder = Path(folder)
    try:
        text = (folder / "index.json").read_text(encoding="utf-8")
        index = json.loads(text)
        if index["format"] != FORMAT:
            raise InputError(f"store {folder}: format {index['format']}, this version reads format {FORMAT}; make the store again")
        return Store(folder, index, hashlib.sha256(text.encode("utf-8")).hexdigest())
    except OSError as error:
        raise InputError(f"store {folder}: no index.json in it ({error.strerror}); make one with scripts/prepare_data.py") from error
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError, KeyError) as error:
        raise InputError(f"store {folder}: its index.json is damaged; make the store again with scripts/prepare_data.py") from error


class Store:
    """A tokenised corpus on disk. `index` is the content of index.json, `fingerprint` (sha256 hex) changes with any token of it."""

    def __init__(self, folder: Path, index: dict, fingerprint: str):
        self.folder = folder
        self.index = index
        self.fingerprint = fingerprint
        self.vocab_size = index["vocab_size"]
        self.tokenizer_fingerprint = index["tokenizer_fingerprint"]

    def tokenizer(self) -> Tokenizer:
        """The tokenizer the store was made with. Raises InputError when the folder's vocab.txt is not it."""
        tokenizer = load_tokenizer(str(self.folder / "vocab.txt"), "yes" if self.index["lowercase"] else "no")
        self.require(tokenizer)
        return tokenizer

    def require(self, tokenizer: Tokenizer) -> None:
        """Raise InputError, naming both vocabularies, unless the store was made with this tokenizer."""
        if tokenizer.fingerprint == self.tokenizer_fingerprint:
            return
        mine = describe(self.vocab_size, self.index["lowercase"], self.tokenizer_fingerprint)
        other = describe(tokenizer.vocab_size, tokenizer.lowercase, tokenizer.fingerprint)
        raise InputError(
            f"store {self.folder}: made with another vocabulary ({mine}) than the one asked for ({other});"
            " set data.vocab and data.lowercase to the store's, or make the store again"
        )

    def split(self, name: str) -> "Split":
        """One split ("train", "valid"). Raises InputError when the store has none of that name, or its files are missing or cut."""
        if name not in self.index["splits"]:
            raise InputError(f"store {self.folder}: no split {name!r}, it has {', '.join(self.index['splits'])}")
        return Split(self, name)


def describe(vocab_size: int, lowercase: bool, fingerprint: str) -> str:
    """A vocabulary in a few words, for messages."""
    return f"{vocab_size} pieces, {'uncased' if lowercase else 'cased'}, sha256 {fingerprint[:12]}"


class Split:
    """One split of a store, read with `pread`: safe in threads, and resident memory does not grow with the corpus."""

    def __init__(self, store: Store, name: str):
        entry = store.index["splits"][name]
        self.store = store
        self.name = name
        self.num_tokens, self.num_sentences, self.num_documents = (entry[key] for key in ("num_tokens", "num_sentences", "num_documents"))
        self._dtype = np.dtype(store.index["token_dtype"])
        self._shards = entry["shards"]
        self._starts = np.cumsum([0] + [shard["num_tokens"] for shard in self._shards])  # [shards + 1] piece addresses
        sizes = (("tokens", "num_tokens", self._dtype.itemsize), ("sentences", "num_sentences", 4), ("documents", "num_documents", 4))
        for kind, key, width in sizes:
            for shard in self._shards:
                self._check(f"{shard['name']}.{kind}", shard[key] * width)
        self._check(f"{name}.counts", store.vocab_size * 8)
        self._files = [open(store.folder / f"{shard['name']}.tokens", "rb", buffering=0) for shard in self._shards]

    def _check(self, name: str, size: int) -> None:
        path = self.store.folder / name
        found = path.stat().st_size if path.is_file() else None
        if found != size:
            state = "is missing" if found is None else f"has {found} bytes instead of {size}"
            raise InputError(f"store {self.store.folder}: {name} {state}; make the store again with scripts/prepare_data.py")

    def _offsets(self, kind: str) -> np.ndarray:
        counts = [np.fromfile(self.store.folder / f"{shard['name']}.{kind}", "<u4") for shard in self._shards]
        return np.cumsum(np.concatenate([np.zeros(1, np.int64), *counts]), dtype=np.int64)

    def sentence_offsets(self) -> np.ndarray:
        """int64 [sentences + 1]: address of each sentence's first piece, and at the end the number of pieces."""
        return self._offsets("sentences")

    def document_offsets(self) -> np.ndarray:
        """int64 [documents + 1]: index of each document's first sentence, and at the end the number of sentences."""
        return self._offsets("documents")

    @property
    def piece_counts(self) -> np.ndarray:
        """int64 [V]: how often each piece occurs in the split."""
        return np.fromfile(self.store.folder / f"{self.name}.counts", "<i8").astype(np.int64)

    def read(self, start: int, count: int) -> np.ndarray:
        """Ids of `count` pieces from address `start` on, uint16 or uint32 [count]. Raises IndexError outside the split."""
        if not 0 <= start <= start + count <= self.num_tokens:
            raise IndexError(f"pieces {start}..{start + count} of split {self.name!r}, which has {self.num_tokens}")
        parts = []
        shard = int(np.searchsorted(self._starts, start, "right")) - 1
        while count > 0:
            here = min(count, int(self._starts[shard + 1]) - start)
            offset = (start - int(self._starts[shard])) * self._dtype.itemsize
            parts.append(os.pread(self._files[shard].fileno(), here * self._dtype.itemsize, offset))
            start, count, shard = start + here, count - here, shard + 1
        return np.frombuffer(b"".join(parts), self._dtype)

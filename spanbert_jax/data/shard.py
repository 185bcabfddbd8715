"""A shard: the files of one part of a store, and what is counted while they are written.

    train-00000.tokens            uint16 (V <= 65536) or uint32: ids of all sentences, one after another
    train-00000.sentences         uint32: tokens in each sentence
    train-00000.documents         uint32: sentences in each document
    train-00000.<kind>            a bit a token for each kind of tag, packed from the lowest bit of a byte up

All numbers are little-endian. A document lies whole in one shard.
"""

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from spanbert_jax.data.tokenizer import Tokenizer

CHUNK_CHARACTERS = 1 << 18  # of text tokenised at a time: what bounds the memory of a writer
LENGTH_BINS = 40  # of a histogram of lengths: bin k counts lengths from 2^(k-1) to 2^k - 1


def token_dtype(vocab_size: int) -> np.dtype:
    """The narrowest little-endian type that holds every id."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


@dataclasses.dataclass(frozen=True)
class Shard:
    """A finished shard.

    `entry` stands in the index: name, num_tokens, num_sentences, num_documents, sha256. `counts` int64 [V]: how often each token occurs.
    `sentence_lengths`, `document_lengths` int64 [LENGTH_BINS]: how many have so many tokens.
    """

    entry: dict
    counts: np.ndarray
    sentence_lengths: np.ndarray
    document_lengths: np.ndarray


def shard_files(entry: dict, token_bytes: int, kinds: Iterable[str]) -> dict[str, int]:
    """Name -> bytes of each file of a shard with this entry in the index."""
    sizes = {
        "tokens": entry["num_tokens"] * token_bytes,
        "sentences": 4 * entry["num_sentences"],
        "documents": 4 * entry["num_documents"],
    }
    sizes |= dict.fromkeys(kinds, (entry["num_tokens"] + 7) // 8)
    return {f"{entry['name']}.{kind}": size for kind, size in sizes.items()}


class ShardWriter:
    """Writes one shard. Sentences without a single token are left out, and documents without a sentence; without one there is no file.

    `tagger` (see spanbert_jax/data/tagging.py) or None: no tags. Its files are open until `close`.
    """

    def __init__(self, folder: Path, name: str, tokenizer: Tokenizer, tagger):
        self._folder, self._tokenizer, self._tagger = folder, tokenizer, tagger
        self._files = {}
        self._hashes = {}
        self._waiting, self._waiting_characters = [], 0  # documents not yet tokenised
        self._loose_bits = {
            kind: np.zeros(0, np.bool_) for kind in (tagger.kinds if tagger else ())
        }  # fewer than 8, of the last byte
        self._entry = {"name": name, "num_tokens": 0, "num_sentences": 0, "num_documents": 0}
        self._counts = np.zeros(tokenizer.vocab_size, np.int64)
        self._histograms = {
            "sentence_lengths": np.zeros(LENGTH_BINS, np.int64),
            "document_lengths": np.zeros(LENGTH_BINS, np.int64),
        }

    def add(self, document: list[str]) -> None:
        """Append a document, a list of sentences."""
        self._waiting.append(document)
        self._waiting_characters += sum(map(len, document))
        if self._waiting_characters >= CHUNK_CHARACTERS:
            self._flush()

    def close(self) -> Shard | None:
        """Finish the files. None when there was no token to write."""
        self._flush()
        for kind, bits in self._loose_bits.items():
            if bits.size:
                self._write(kind, np.packbits(bits, bitorder="little"))
        for file in self._files.values():
            file.close()
        if not self._files:
            return None
        whole = hashlib.sha256("".join(self._hashes[kind].hexdigest() for kind in sorted(self._hashes)).encode("ascii"))
        return Shard(self._entry | {"sha256": whole.hexdigest()}, self._counts, **self._histograms)

    def abandon(self) -> None:
        """Close the files without finishing them."""
        for file in self._files.values():
            file.close()

    def _flush(self) -> None:
        documents, self._waiting, self._waiting_characters = self._waiting, [], 0
        lines = itertools.chain.from_iterable(documents)
        parts = [self._encode(chunk) for chunk in chunked(lines, len)]  # several where a document is huge
        if not parts:
            return
        tokens, lengths = (np.concatenate([part[i] for part in parts]) for i in range(2))
        if not tokens.size:
            return
        document_of_line = np.repeat(np.arange(len(documents)), [len(document) for document in documents])
        sizes = np.bincount(document_of_line[lengths > 0])
        sizes, sentences = sizes[sizes > 0], lengths[lengths > 0]
        self._count(tokens, sentences, sizes)
        self._write("tokens", tokens)
        self._write("sentences", sentences)
        self._write("documents", sizes.astype("<u4"))
        for kind, rest in self._loose_bits.items():
            bits = np.concatenate([rest, *(part[2][kind] for part in parts)])
            whole = bits.size // 8 * 8
            self._write(kind, np.packbits(bits[:whole], bitorder="little"))
            self._loose_bits[kind] = bits[whole:]

    def _encode(self, lines: list[str]) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Ids of all lines one after another, tokens of each line, and the tags of all tokens by kind."""
        tags = {}
        if self._tagger and self._tagger.kinds:
            ids, offsets = self._tokenizer.encode_with_offsets(lines)
            marks = self._tagger.tags(lines, offsets)
            tags = {kind: np.concatenate([np.zeros(0, np.bool_), *marks[kind]]) for kind in self._tagger.kinds}
        else:
            ids = self._tokenizer.encode(lines)
        lengths = np.fromiter(map(len, ids), "<u4", len(ids))
        tokens = np.fromiter(
            itertools.chain.from_iterable(ids),
            token_dtype(self._tokenizer.vocab_size),
            int(lengths.sum(dtype=np.int64)),
        )
        return tokens, lengths, tags

    def _count(self, tokens: np.ndarray, sentences: np.ndarray, documents: np.ndarray) -> None:
        for key, amount in (
            ("num_tokens", tokens.size),
            ("num_sentences", sentences.size),
            ("num_documents", documents.size),
        ):
            self._entry[key] += int(amount)
        self._counts += np.bincount(tokens, minlength=self._counts.size)
        document_lengths = np.add.reduceat(sentences.astype(np.int64), np.cumsum(documents) - documents)  # [documents]
        for name, lengths in (("sentence_lengths", sentences), ("document_lengths", document_lengths)):
            bins = np.frexp(lengths.astype(np.float64))[1]  # bit lengths
            self._histograms[name] += np.bincount(bins, minlength=LENGTH_BINS)

    def _write(self, kind: str, array: np.ndarray) -> None:
        if kind not in self._files:
            self._files[kind] = open(self._folder / f"{self._entry['name']}.{kind}", "wb")
            self._hashes[kind] = hashlib.sha256()
        data = array.tobytes()
        self._hashes[kind].update(data)
        self._files[kind].write(data)


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

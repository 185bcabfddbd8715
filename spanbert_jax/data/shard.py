"""Shards: the files that a split of a store consists of, and the counts taken while they are written.

    train-00000.tokens      uint16 (V <= 65536) or uint32: ids of all sentences, one after another
    train-00000.sentences   uint32: tokens in each sentence
    train-00000.documents   uint32: sentences in each document
    train-00000.<kind>      one bit per token for each kind of tag, packed from the lowest bit of a byte up

A kind of tag comes with a second one, <kind>-begins: the first tokens of the tagged spans, so that those that touch can
be distinguished. Stores of releases before 0.2 lack it.

All numbers are little-endian. A document is stored in a single shard.
"""

import dataclasses
import hashlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from spanbert_jax.data.tokenizer import Tokenizer

BEGINS = "-begins"  # suffix of the kind that marks where spans of a kind begin
CHUNK_CHARACTERS = 1 << 18  # of text tokenised at a time, which bounds the memory of a writer
LENGTH_BINS = 40  # of a histogram of lengths: bin k counts lengths from 2^(k-1) to 2^k - 1


def token_dtype(vocab_size: int) -> np.dtype:
    """Returns the narrowest little-endian type for all ids."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


@dataclasses.dataclass(frozen=True)
class Shard:
    """A finished shard.

    Attributes:
      entry: what the index records of it: name, num_tokens, num_sentences, num_documents, sha256.
      counts: int64 [V], how often each token occurs.
      sentence_lengths, document_lengths: int64 [LENGTH_BINS], histograms of the numbers of tokens.
    """

    entry: dict
    counts: np.ndarray
    sentence_lengths: np.ndarray
    document_lengths: np.ndarray


def shard_files(entry: dict, token_bytes: int, kinds: Iterable[str]) -> dict[str, int]:
    """Returns the files of a shard, as name -> bytes.

    Args:
      entry: of the shard in the index.
      token_bytes: bytes of an id.
      kinds: of tags.
    """
    sizes = {
        "tokens": entry["num_tokens"] * token_bytes,
        "sentences": 4 * entry["num_sentences"],
        "documents": 4 * entry["num_documents"],
    }
    sizes |= dict.fromkeys(kinds, (entry["num_tokens"] + 7) // 8)
    return {f"{entry['name']}.{kind}": size for kind, size in sizes.items()}


class ShardWriter:
    """Writes one shard, whose files are open until `close`.

    Sentences without a token and documents without a sentence are left out. A shard without a document has no files.
    """

    def __init__(self, folder: Path, name: str, tokenizer: Tokenizer, tagger):
        """Prepares a shard.

        Args:
          folder: to write into.
          name: of the shard; its files are called name.kind.
          tokenizer: of the store.
          tagger: a tagging.Tagger, or None for no tags.
        """
        self._folder, self._tokenizer, self._tagger = folder, tokenizer, tagger
        self._files: dict[str, IO[bytes]] = {}
        self._hashes: dict = {}
        self._pending: list[list[str]] = []  # documents that are not tokenised yet
        self._pending_characters = 0
        kinds = tagger.kinds if tagger else ()
        self._pending_bits = {kind: np.zeros(0, np.bool_) for kind in kinds}  # those of an unfinished byte
        self._entry: dict = {"name": name, "num_tokens": 0, "num_sentences": 0, "num_documents": 0}
        self._counts = np.zeros(tokenizer.vocab_size, np.int64)
        self._sentence_lengths = np.zeros(LENGTH_BINS, np.int64)
        self._document_lengths = np.zeros(LENGTH_BINS, np.int64)

    def add(self, document: list[str]) -> None:
        """Appends a document, a list of sentences."""
        self._pending.append(document)
        self._pending_characters += sum(map(len, document))
        if self._pending_characters >= CHUNK_CHARACTERS:
            self._flush()

    def close(self) -> Shard | None:
        """Finishes the files and returns the shard, or None if there was no token to write."""
        self._flush()
        for kind, bits in self._pending_bits.items():
            if bits.size:
                self._write(kind, np.packbits(bits, bitorder="little"))
        self.abandon()
        if not self._files:
            return None
        checksums = "".join(self._hashes[kind].hexdigest() for kind in sorted(self._hashes))
        entry = self._entry | {"sha256": hashlib.sha256(checksums.encode("ascii")).hexdigest()}
        return Shard(entry, self._counts, self._sentence_lengths, self._document_lengths)

    def abandon(self) -> None:
        """Closes the files without finishing them."""
        for file in self._files.values():
            file.close()

    def _flush(self) -> None:
        """Tokenises and writes the pending documents."""
        documents, self._pending, self._pending_characters = self._pending, [], 0
        lines = itertools.chain.from_iterable(documents)
        encoded = [self._encode(chunk) for chunk in line_chunks(lines)]  # a very long document has several chunks
        if not encoded:
            return
        tokens = np.concatenate([tokens for tokens, _, _ in encoded])
        lengths = np.concatenate([lengths for _, lengths, _ in encoded])
        if not tokens.size:
            return
        document_of_line = np.repeat(np.arange(len(documents)), [len(document) for document in documents])
        sentences = lengths[lengths > 0]  # [sentences] tokens in each
        sizes = np.bincount(document_of_line[lengths > 0])
        sizes = sizes[sizes > 0]  # [documents] sentences in each
        self._count(tokens, sentences, sizes)
        self._write("tokens", tokens)
        self._write("sentences", sentences)
        self._write("documents", sizes.astype("<u4"))
        for kind, pending in self._pending_bits.items():
            bits = np.concatenate([pending, *(tags[kind] for _, _, tags in encoded)])
            in_whole_bytes = bits.size // 8 * 8
            self._write(kind, np.packbits(bits[:in_whole_bytes], bitorder="little"))
            self._pending_bits[kind] = bits[in_whole_bytes:]

    def _encode(self, lines: list[str]) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Returns the ids of all lines one after another, the tokens in each line, and all tokens' tags of each
        kind.
        """
        tags = {}
        if self._tagger and self._tagger.kinds:
            ids, offsets = self._tokenizer.encode_with_offsets(lines)
            tags_of_lines = self._tagger.tags(lines, offsets)
            for kind in self._tagger.kinds:
                tags[kind] = np.concatenate([np.zeros(0, np.bool_), *tags_of_lines[kind]])
        else:
            ids = self._tokenizer.encode(lines)
        lengths = np.fromiter(map(len, ids), "<u4", len(ids))
        dtype = token_dtype(self._tokenizer.vocab_size)
        tokens = np.fromiter(itertools.chain.from_iterable(ids), dtype, int(lengths.sum(dtype=np.int64)))
        return tokens, lengths, tags

    def _count(self, tokens: np.ndarray, sentences: np.ndarray, documents: np.ndarray) -> None:
        """Counts new ids, tokens in each sentence, and sentences in each document."""
        self._entry["num_tokens"] += tokens.size
        self._entry["num_sentences"] += sentences.size
        self._entry["num_documents"] += documents.size
        self._counts += np.bincount(tokens, minlength=self._counts.size)
        document_lengths = np.add.reduceat(sentences.astype(np.int64), np.cumsum(documents) - documents)  # [documents]
        self._sentence_lengths += histogram(sentences)
        self._document_lengths += histogram(document_lengths)

    def _write(self, kind: str, array: np.ndarray) -> None:
        if kind not in self._files:
            path = self._folder / f"{self._entry['name']}.{kind}"
            self._files[kind] = path.open("wb")
            self._hashes[kind] = hashlib.sha256()
        data = array.tobytes()
        self._hashes[kind].update(data)
        self._files[kind].write(data)


def histogram(lengths: np.ndarray) -> np.ndarray:
    """Returns how many lengths are in each bin: int64 [LENGTH_BINS]."""
    bit_lengths = np.frexp(lengths.astype(np.float64))[1]
    return np.bincount(bit_lengths, minlength=LENGTH_BINS)


def line_chunks(lines: Iterable[str]) -> Iterator[list[str]]:
    """Yields the lines in lists that just reach CHUNK_CHARACTERS; the last may be shorter."""
    chunk: list[str] = []
    characters = 0
    for line in lines:
        chunk.append(line)
        characters += len(line)
        if characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk

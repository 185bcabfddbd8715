"""Duplicate documents: exact ones are found by a hash of their text, near-duplicates by MinHash (Broder, 1997).

First, workers sign the documents of each unit: 16 bytes per document, and 512 more for near-duplicates, all on disk.
Then one process marks the documents to drop, over all units in input order; it needs about 50 bytes of memory per
document, whatever its length. Of exact duplicates the first is kept. A document whose estimated similarity to an
earlier one reaches the threshold is dropped too, held out or not: no detected near-duplicate leaks from one split to
the other.
"""

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np

from spanbert_jax.data.sources import Document
from spanbert_jax.errors import InputError

KEPT, EXACT, NEAR = 0, 1, 2  # status of a document: kept, or dropped as an exact duplicate or near-duplicate
DIGEST_BYTES = 16
HASHES = 128  # per MinHash signature: the standard error of an estimated similarity is at most 0.044
SHINGLE = 13  # characters; a document is the set of its shingles
SEED = 1  # of the hash functions: part of the format, as all constants here are
RECALL = 0.95  # share of the pairs with a similarity at the threshold that are compared
SIGNED_CHARACTERS = 1 << 22  # of a document that its signature covers: bounds the memory
BATCH_CHARACTERS = 1 << 20  # signed at a time
PAIRS_AT_ONCE = 1 << 16  # compared at a time
GOLDEN_RATIO = np.uint64(0x9E3779B97F4A7C15)  # odd multiplier of the hashes


def sign(documents: Iterable[Document], near: bool) -> Iterator[tuple[bytes, bytes]]:
    """Yields the digests, bytes [n * 16], and MinHash signatures, bytes [n * 512], of n documents at a time.

    Raises:
      InputError: `near` is set and the library for signatures is missing. Without `near`, signatures are b"".
    """
    documents = iter(documents)
    while batch := list(take_characters(documents)):
        texts = ("\n".join(document).encode("utf-8") for document in batch)
        digests = b"".join(hashlib.blake2b(text, digest_size=DIGEST_BYTES).digest() for text in texts)
        if near:
            yield digests, signatures([" ".join(document)[:SIGNED_CHARACTERS].lower() for document in batch]).tobytes()
        else:
            yield digests, b""


def take_characters(documents: Iterator[Document]) -> Iterator[Document]:
    """Yields the next documents, until they have BATCH_CHARACTERS."""
    size = 0
    while size < BATCH_CHARACTERS and (document := next(documents, None)) is not None:
        size += sum(map(len, document))
        yield document


def signatures(texts: list[str]) -> np.ndarray:
    """Returns MinHash signatures, "<u4" [texts, HASHES], of the texts' sets of shingles; a shorter text is one shingle.

    Raises:
      InputError: the library for signatures is missing.
    """
    try:
        from rensa import RMinHash
    except ImportError as error:
        raise InputError("near-duplicates need rensa: pip install 'spanbert_jax[prepare]'") from error
    encoded = [text.ljust(SHINGLE, "\0").encode("utf-32-le") for text in texts]
    lengths = np.array([len(code) // 4 for code in encoded])  # [texts] characters
    hashes = shingle_hashes(np.frombuffer(b"".join(encoded), "<u4"))  # of all texts, one after another
    text_end = np.repeat(np.cumsum(lengths), lengths)[: len(hashes)]  # of the text in which each shingle begins
    crosses_texts = text_end - np.arange(len(hashes)) < SHINGLE
    offsets = np.concatenate([[0], np.cumsum(lengths - SHINGLE + 1)]).astype(np.uint64)  # [texts + 1] shingles
    rows = RMinHash.digest_matrix_from_flat_token_hashes(hashes[~crosses_texts], offsets, HASHES, SEED).to_rows()
    return np.array(rows, "<u4").reshape(len(texts), HASHES)


def shingle_hashes(codes: np.ndarray) -> np.ndarray:
    """Returns a 64-bit hash of each shingle of characters, given as code points [n]: uint64 [n - SHINGLE + 1]."""
    codes = codes.astype(np.uint64)
    count = len(codes) - SHINGLE + 1
    hashes = np.zeros(count, np.uint64)
    for position in range(SHINGLE):  # a polynomial modulo 2^64
        hashes = hashes * GOLDEN_RATIO + codes[position : position + count]
    for multiplier in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB):  # its bits, mixed as in splitmix64
        hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(multiplier)
    return hashes ^ (hashes >> np.uint64(31))


def mark_duplicates(digests: np.ndarray, signatures: np.ndarray | None, threshold: float) -> np.ndarray:
    """Returns the status of each document, KEPT, EXACT or NEAR: uint8 [n].

    Args:
      digests: "<u8" [n, 2], in input order; may be memory-mapped.
      signatures: "<u4" [n, HASHES], likewise; None to find exact duplicates only.
      threshold: the similarity from which a document is a near-duplicate.
    """
    status = np.zeros(len(digests), np.uint8)
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: exact duplicates stay in input order
    equals_previous = np.ones(max(len(order) - 1, 0), np.bool_)
    for half in range(2):
        values = digests[:, half][order]
        equals_previous &= values[1:] == values[:-1]
    status[order[1:][equals_previous]] = EXACT
    if signatures is not None:
        width = band_width(threshold)
        for band in range(0, HASHES - width + 1, width):
            mark_band(signatures, band, width, threshold, status)
    return status


def band_width(threshold: float) -> int:
    """Returns the largest number of hashes per band that still finds RECALL of the pairs at the threshold.

    Two documents agree in a hash with a probability equal to their similarity.
    """

    def recall(width: int) -> float:
        return 1 - (1 - threshold**width) ** (HASHES // width)

    return max((width for width in range(1, HASHES + 1) if recall(width) >= RECALL), default=1)


def mark_band(signatures: np.ndarray, band: int, width: int, threshold: float, status: np.ndarray) -> None:
    """Marks near-duplicates among documents that agree in the hashes band..band + width; writes to `status`.

    Documents that agree in the band are compared with the first of them; those below the threshold are compared with
    the first of the remaining ones, and so on. So of two documents that agree in the band and reach the threshold, at
    most one is kept.
    """
    documents = np.flatnonzero(status == KEPT)
    keys = np.empty(len(documents), np.uint64)
    for low in range(0, len(documents), PAIRS_AT_ONCE):
        chunk = slice(low, low + PAIRS_AT_ONCE)
        keys[chunk] = band_keys(signatures[documents[chunk], band : band + width])
    order = np.argsort(keys, kind="stable")
    documents, keys = documents[order], keys[order]
    while len(documents):
        is_first = np.concatenate([[True], keys[1:] != keys[:-1]])
        first_of_group = documents[is_first][np.cumsum(is_first) - 1]
        leaders, documents, keys = first_of_group[~is_first], documents[~is_first], keys[~is_first]
        near = are_similar(signatures, leaders, documents, threshold)
        status[documents[near]] = NEAR
        documents, keys = documents[~near], keys[~near]


def band_keys(hashes: np.ndarray) -> np.ndarray:
    """Returns one number for each row of hashes [n, width], equal for equal rows: uint64 [n]."""
    keys = np.zeros(len(hashes), np.uint64)
    for column in hashes.T:
        keys = (keys ^ column.astype(np.uint64)) * GOLDEN_RATIO
        keys ^= keys >> np.uint64(32)
    return keys


def are_similar(signatures: np.ndarray, first: np.ndarray, second: np.ndarray, threshold: float) -> np.ndarray:
    """Returns whether documents first[i] and second[i] agree in at least `threshold` of their hashes: bool [pairs]."""
    results = [np.zeros(0, np.bool_)]
    for low in range(0, len(first), PAIRS_AT_ONCE):
        pairs = slice(low, low + PAIRS_AT_ONCE)
        results.append((signatures[first[pairs]] == signatures[second[pairs]]).mean(axis=1) >= threshold)
    return np.concatenate(results)

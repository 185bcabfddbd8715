"""Documents that were there before: equal ones by a hash of their text, similar ones by MinHash (Broder, 1997).

First each unit's documents are signed, by any worker: 16 bytes a document, and for near-duplicates 512 more, all on disk. Then one process
marks what is to be dropped, over all units in input order; it needs about 50 bytes of memory a document, whatever its length. The first of
equal documents stays. A document that is estimated to be at least as similar as the threshold to an earlier one is dropped too, whether it
would be trained on or held out: no near-duplicate that is found leaks from one split to the other.
"""

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np

from spanbert_jax.data.sources import Document
from spanbert_jax.errors import InputError

KEPT, EXACT, NEAR = 0, 1, 2  # what becomes of a document
DIGEST_BYTES = 16
HASHES = 128  # of a MinHash signature: the standard error of an estimated similarity is at most 0.044
SHINGLE = 13  # characters of a run; a document is the set of its runs
SEED = 1  # of the hash functions: part of the format, as all figures here are
RECALL = 0.95  # share of pairs just at the threshold that are looked at
BATCH = 1 << 20  # characters signed at a time
SIGNED = 1 << 22  # characters of a document that a signature looks at: what bounds its memory
PAIRS = 1 << 16  # compared at a time


def sign(documents: Iterable[Document], near: bool) -> Iterator[tuple[bytes, bytes]]:
    """Digests and MinHash signatures (b"" unless `near`) of the documents, of many at a time: bytes [n * 16], bytes [n * 512].

    Raises InputError when near-duplicates are asked for and their library is missing.
    """
    documents = iter(documents)
    while batch := list(take_characters(documents)):
        digests = b"".join(
            hashlib.blake2b("\n".join(document).encode("utf-8"), digest_size=DIGEST_BYTES).digest()
            for document in batch
        )
        yield (
            digests,
            signatures([" ".join(document)[:SIGNED].lower() for document in batch]).tobytes() if near else b"",
        )


def take_characters(documents: Iterator[Document]) -> Iterator[Document]:
    """The next documents, until they have BATCH characters."""
    size = 0
    while size < BATCH and (document := next(documents, None)) is not None:
        size += sum(map(len, document))
        yield document


def signatures(texts: list[str]) -> np.ndarray:
    """MinHash signatures "<u4" [texts, HASHES] of the sets of runs of SHINGLE characters; a shorter text is one run."""
    try:
        from rensa import RMinHash
    except ImportError as error:
        raise InputError("near-duplicates need rensa: pip install 'spanbert_jax[prepare]'") from error
    codes = [text.ljust(SHINGLE, "\0").encode("utf-32-le") for text in texts]
    lengths = np.array([len(code) // 4 for code in codes])
    hashes = runs(np.frombuffer(b"".join(codes), "<u4"))
    ends = np.cumsum(lengths)
    starts_late = (
        np.repeat(ends, lengths)[: len(hashes)] - np.arange(len(hashes)) < SHINGLE
    )  # the run would end in the next text
    offsets = np.concatenate([[0], np.cumsum(lengths - SHINGLE + 1)]).astype(np.uint64)
    rows = RMinHash.digest_matrix_from_flat_token_hashes(hashes[~starts_late], offsets, HASHES, SEED).to_rows()
    return np.array(rows, "<u4").reshape(len(texts), HASHES)


def runs(codes: np.ndarray) -> np.ndarray:
    """A 64-bit hash of each run of SHINGLE characters, given as their numbers [n]: uint64 [n - SHINGLE + 1], in order."""
    codes = codes.astype(np.uint64)
    count = len(codes) - SHINGLE + 1
    hashes = np.zeros(count, np.uint64)
    for place in range(SHINGLE):  # a polynomial modulo 2^64 ...
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + codes[place : place + count]
    for multiplier in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB):  # ... and its bits mixed as in splitmix64
        hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(multiplier)
    return hashes ^ (hashes >> np.uint64(31))


def mark(digests: np.ndarray, signatures: np.ndarray | None, threshold: float) -> np.ndarray:
    """What becomes of each document: KEPT, EXACT or NEAR, uint8 [n].

    `digests` "<u8" [n, 2] and `signatures` "<u4" [n, HASHES] (None: only equal documents count) in input order; both may lie on disk.
    """
    fate = np.zeros(len(digests), np.uint8)
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: of equal ones the first in the input comes first
    again = np.ones(max(len(order) - 1, 0), np.bool_)
    for half in range(2):
        values = digests[:, half][order]
        again &= values[1:] == values[:-1]
    fate[order[1:][again]] = EXACT
    if signatures is not None:
        width = band_width(threshold)
        for band in range(0, HASHES - width + 1, width):
            mark_band(signatures, band, width, threshold, fate)
    return fate


def band_width(threshold: float) -> int:
    """Hashes a band: as many as still find RECALL of the pairs at the threshold, which agree in a hash with that probability."""
    return max(
        width
        for width in range(1, HASHES + 1)
        if width == 1 or 1 - (1 - threshold**width) ** (HASHES // width) >= RECALL
    )


def mark_band(signatures: np.ndarray, band: int, width: int, threshold: float, fate: np.ndarray) -> None:
    """Mark documents that agree with an earlier one in the hashes band..band + width, and in at least `threshold` of all of them.

    Those that agree in the band are compared with the first of them; what is not like it, with the first of the rest; and so on. So no two
    documents that agree in the band and are that similar both stay.
    """
    documents = np.flatnonzero(fate == KEPT)
    keys = np.empty(len(documents), np.uint64)
    for low in range(0, len(documents), PAIRS):
        keys[low : low + PAIRS] = band_keys(signatures[documents[low : low + PAIRS], band : band + width])
    order = np.argsort(keys, kind="stable")
    documents, keys = documents[order], keys[order]
    while len(documents):
        first = np.concatenate([[True], keys[1:] != keys[:-1]])
        leaders = documents[first][np.cumsum(first) - 1][~first]
        documents, keys = documents[~first], keys[~first]
        near = similar(signatures, leaders, documents, threshold)
        fate[documents[near]] = NEAR
        documents, keys = documents[~near], keys[~near]


def band_keys(hashes: np.ndarray) -> np.ndarray:
    """One number for each row of hashes [n, width]: uint64 [n], equal for equal rows."""
    keys = np.zeros(len(hashes), np.uint64)
    for column in hashes.T:
        keys = (keys ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(32)
    return keys


def similar(signatures: np.ndarray, one: np.ndarray, other: np.ndarray, threshold: float) -> np.ndarray:
    """Whether documents one[i] and other[i] agree in at least `threshold` of their hashes: bool [pairs]."""
    parts = [np.zeros(0, np.bool_)]
    for low in range(0, len(one), PAIRS):
        pairs = slice(low, low + PAIRS)
        parts.append((signatures[one[pairs]] == signatures[other[pairs]]).mean(axis=1) >= threshold)
    return np.concatenate(parts)

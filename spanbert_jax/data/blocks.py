"""Documents to blocks: which runs of tokens the model reads as one text (reference 3).

document   whole sentences of one document, in order, as many as fit
sentence   one sentence each
pair       two runs of sentences, half of the time from two documents (BERT's input for next sentence prediction); see pairs.py

No block crosses the end of a document. A sentence longer than a block is cut at word starts, so the blocks of a split tile its tokens;
`long_sentences = "lose"` drops it instead, with what the original loses beside it (quirk 14).
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from spanbert_jax.data.store import Split

BLOCK = np.dtype([("start", "<i8"), ("length", "<i4")])  # address of the block's first token, and tokens in it
KINDS = {"document": 2, "sentence": 2, "pair": 3}  # what a block may be -> special tokens it needs
LONG_SENTENCES = ("cut", "lose")
DOCUMENTS_AT_A_TIME = 1 << 16  # bounds the memory of planning


@dataclasses.dataclass(frozen=True)
class BlockSettings:
    """What decides on rows, as in config.data (configs/base.py says what each means)."""

    seq_len: int
    max_blocks_per_row: int
    blocks: str
    long_sentences: str
    short_seq_prob: float  # of "pair"
    seed: int  # of "pair"

    @property
    def capacity(self) -> int:
        """The most tokens of text in a block."""
        return self.seq_len - KINDS[self.blocks]

    @property
    def pairs(self) -> bool:
        """Whether a block has two parts."""
        return self.blocks == "pair"

    def layouts(self) -> list[tuple[int, int]]:
        """(parts that are masked on their own, tokens of text they share) of every kind of full row."""
        if self.pairs:
            return [(2, self.capacity)]
        return [
            (blocks, self.seq_len - 2 * blocks)
            for blocks in range(1, min(self.max_blocks_per_row, self.seq_len // 3) + 1)
        ]


def sentences_of(split: Split, settings: BlockSettings, starts_word: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Addresses where a split's sentences begin, int64 [S + 1], and its documents, int64 [documents + 1]; both end with its number of tokens.

    Long sentences are cut already where the settings say so. `starts_word`: bool [V], true where a token begins a word.
    """
    sentences = split.sentence_offsets()
    documents = sentences[split.document_offsets()]
    if settings.long_sentences == "cut":
        sentences = cut_long_sentences(sentences, settings.capacity, starts_word, split.read)
    return sentences, documents


def split_blocks(split: Split, settings: BlockSettings, starts_word: np.ndarray) -> np.ndarray:
    """The "document" or "sentence" blocks of a whole split, in order: BLOCK [blocks]."""
    sentences, documents = sentences_of(split, settings, starts_word)
    if settings.blocks == "sentence":
        return sentence_blocks(sentences, settings.capacity)
    parts = [np.empty(0, BLOCK)]
    for low in range(0, len(documents) - 1, DOCUMENTS_AT_A_TIME):
        edges = documents[low : low + DOCUMENTS_AT_A_TIME + 1]
        first, last = np.searchsorted(sentences, edges[[0, -1]])
        parts.append(document_blocks(sentences[first : last + 1], edges, settings.capacity))
    return np.concatenate(parts)


def sentence_blocks(sentences: np.ndarray, capacity: int) -> np.ndarray:
    """Every sentence of at most `capacity` tokens: BLOCK [blocks]. Arguments as for document_blocks."""
    blocks = between(sentences)
    return blocks[blocks["length"] <= capacity]


def document_blocks(sentences: np.ndarray, documents: np.ndarray, capacity: int) -> np.ndarray:
    """Whole sentences of one document, as many as fit into `capacity` tokens: BLOCK [blocks].

    A longer sentence is lost; and where it ends its document, so is the block before it that was waiting for more (quirk 14; with sentences
    cut to size there is none).

    sentences: int64 [S + 1], addresses where they begin, and the end.  documents: int64 [documents + 1], likewise.
    """
    long = np.flatnonzero(np.diff(sentences) > capacity)
    barriers = np.union1d(documents, sentences[np.concatenate([long, long + 1])])
    blocks = between(greedy_edges(sentences, barriers, capacity))
    fits = blocks["length"] <= capacity
    ends_document = np.isin(blocks["start"] + blocks["length"], documents)
    begins_document = np.isin(blocks["start"], documents)
    lost = ~fits & ends_document & ~begins_document  # a long sentence at the end of a document with others before it
    fits[:-1] &= ~lost[1:]
    return blocks[fits]


def between(edges: np.ndarray) -> np.ndarray:
    """The blocks between edges int64 [n + 1]: BLOCK [n]."""
    blocks = np.empty(len(edges) - 1, BLOCK)
    blocks["start"], blocks["length"] = edges[:-1], np.diff(edges)
    return blocks


def cut_long_sentences(
    offsets: np.ndarray, capacity: int, starts_word: np.ndarray, read: Callable[[int, int], np.ndarray]
) -> np.ndarray:
    """Sentence offsets int64 [S + 1] with further ones inside sentences of more than `capacity` tokens, so that none is longer.

    A cut falls on the last word start that fits; inside a word only when that word alone is longer than `capacity`. `read(start, count)`
    gives ids.
    """
    cuts = []
    for sentence in np.flatnonzero(np.diff(offsets) > capacity):
        start, end = int(offsets[sentence]), int(offsets[sentence + 1])
        words = start + np.flatnonzero(starts_word[read(start, end - start)])  # addresses where a word begins
        while end - start > capacity:
            last = int(np.searchsorted(words, start + capacity, "right")) - 1
            fits = last >= 0 and words[last] > start
            start = int(words[last]) if fits else start + capacity
            cuts.append(start)
    return np.sort(np.concatenate([offsets, np.array(cuts, np.int64)])) if cuts else offsets


def greedy_edges(sentences: np.ndarray, barriers: np.ndarray, capacity: int) -> np.ndarray:
    """Block edges: those of the sentence offsets `sentences` int64 [S + 1] where a block begins, and the end.

    Each block takes sentences until the next one would not fit or a barrier (an address) is reached; a sentence that is longer is a block by
    itself. For every sentence at once we look up where a block that begins with it would end; the blocks then are one walk.
    """
    starts = sentences[:-1]
    barrier = barriers[np.searchsorted(barriers, starts, "right")]
    follower = (
        np.searchsorted(sentences, np.minimum(starts + capacity, barrier), "right") - 1
    )  # [S] first sentence of the next block
    follower = memoryview(
        np.maximum(follower, np.arange(1, len(sentences)))
    )  # plain ints, several times faster to walk than an array
    chosen, sentence = [0], 0
    while sentence < len(follower):
        sentence = follower[sentence]
        chosen.append(sentence)
    return sentences[chosen]

"""Blocks: the intervals of tokens that the model reads as one text (docs/original.md 3).

document   as many whole sentences of one document, in order, as fit
sentence   one sentence
pair       two segments of whole sentences, half of the time of two documents, as BERT's input (see pairs.py)

No block crosses the end of a document. A sentence that is longer than a block is cut at word starts, so that the blocks
of a split cover each of its tokens once; `long_sentences = "lose"` drops it instead, with what the original loses
beside it (docs/original.md, quirk 14).

Throughout, "edges" are an increasing int64 array [n + 1] of token addresses in a split: item i is the interval from
edge i to edge i + 1.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from spanbert_jax.data.store import Split

BLOCK = np.dtype([("start", "<i8"), ("length", "<i4")])  # address of the block's first token, number of its tokens
KINDS = {"document": 2, "sentence": 2, "pair": 3}  # kind of block -> number of special tokens it needs
LONG_SENTENCES = ("cut", "lose")
DOCUMENTS_AT_A_TIME = 1 << 16  # bounds the memory of planning


@dataclasses.dataclass(frozen=True)
class BlockSettings:
    """The settings that decide the blocks and rows of a split, named as in config.data (see configs/base.py).

    Attributes:
      seq_len: L, tokens in a row.
      max_blocks_per_row: N, the most blocks in a row.
      blocks: kind of block, a key of KINDS.
      long_sentences: one of LONG_SENTENCES.
      short_seq_prob: probability that the pairs of a document are short; only for "pair".
      seed: of the pairs; only for "pair".
    """

    seq_len: int
    max_blocks_per_row: int
    blocks: str
    long_sentences: str
    short_seq_prob: float
    seed: int

    @property
    def capacity(self) -> int:
        """The most tokens of text in a block."""
        return self.seq_len - KINDS[self.blocks]

    @property
    def pairs(self) -> bool:
        """Whether a block has two segments."""
        return self.blocks == "pair"

    def layouts(self) -> list[tuple[int, int]]:
        """Returns every kind of full row: (number of segments that are masked separately, tokens of text in all of
        them).
        """
        if self.pairs:
            return [(2, self.capacity)]
        most = min(self.max_blocks_per_row, self.seq_len // 3)  # a block has at least three tokens: [CLS] token [SEP]
        return [(blocks, self.seq_len - 2 * blocks) for blocks in range(1, most + 1)]


def sentence_and_document_edges(
    split: Split, settings: BlockSettings, starts_word: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the edges of a split's sentences and of its documents.

    Long sentences are already cut, if the settings ask for it.

    Args:
      split: the text.
      settings: kind and size of the blocks.
      starts_word: bool [V], true where a token begins a word.
    """
    sentences = split.sentence_offsets()
    documents = sentences[split.document_offsets()]
    if settings.long_sentences == "cut":
        sentences = cut_long_sentences(sentences, settings.capacity, starts_word, split.read)
    return sentences, documents


def split_blocks(split: Split, settings: BlockSettings, starts_word: np.ndarray) -> np.ndarray:
    """Returns the "document" or "sentence" blocks of a split, in order: BLOCK [blocks]. `starts_word` is bool [V]."""
    sentences, documents = sentence_and_document_edges(split, settings, starts_word)
    if settings.blocks == "sentence":
        return sentence_blocks(sentences, settings.capacity)
    groups = [np.empty(0, BLOCK)]
    for low in range(0, len(documents) - 1, DOCUMENTS_AT_A_TIME):
        group = documents[low : low + DOCUMENTS_AT_A_TIME + 1]
        first, last = np.searchsorted(sentences, group[[0, -1]])
        groups.append(document_blocks(sentences[first : last + 1], group, settings.capacity))
    return np.concatenate(groups)


def sentence_blocks(sentences: np.ndarray, capacity: int) -> np.ndarray:
    """Returns the sentences of at most `capacity` tokens: BLOCK [blocks]. `sentences` are edges."""
    blocks = blocks_between(sentences)
    return blocks[blocks["length"] <= capacity]


def document_blocks(sentences: np.ndarray, documents: np.ndarray, capacity: int) -> np.ndarray:
    """Returns blocks of whole sentences of one document, as many as fit into `capacity` tokens: BLOCK [blocks].

    A longer sentence is lost. If one or more of them end a document, the unfinished block before them is lost too
    (docs/original.md, quirk 14). Neither happens with sentences that were cut to size. `sentences` and `documents` are
    edges.
    """
    long = np.flatnonzero(np.diff(sentences) > capacity)
    barriers = np.union1d(documents, sentences[np.concatenate([long, long + 1])])
    blocks = blocks_between(greedy_edges(sentences, barriers, capacity))
    blocks = blocks[blocks["length"] <= capacity]
    document = np.searchsorted(documents, blocks["start"], "right")  # [blocks] number of the edge that ends it
    is_last = np.diff(document, append=len(documents)) > 0  # [blocks]
    finished = blocks["start"] + blocks["length"] == documents[document]  # [blocks], of those that are last
    return blocks[finished | ~is_last]


def blocks_between(edges: np.ndarray) -> np.ndarray:
    """Returns the blocks between edges int64 [n + 1]: BLOCK [n]."""
    blocks = np.empty(len(edges) - 1, BLOCK)
    blocks["start"], blocks["length"] = edges[:-1], np.diff(edges)
    return blocks


def cut_long_sentences(
    sentences: np.ndarray, capacity: int, starts_word: np.ndarray, read: Callable[[int, int], np.ndarray]
) -> np.ndarray:
    """Returns the edges `sentences` with further ones, so that no sentence has more than `capacity` tokens.

    A sentence is cut at the last word start that fits; inside a word only if that word alone is longer than `capacity`.

    Args:
      sentences: edges.
      capacity: the most tokens between two edges.
      starts_word: bool [V], true where a token begins a word.
      read: returns the ids of the tokens (start, count).
    """
    cuts = []
    for sentence in np.flatnonzero(np.diff(sentences) > capacity):
        start, end = int(sentences[sentence]), int(sentences[sentence + 1])
        word_starts = start + np.flatnonzero(starts_word[read(start, end - start)])
        while end - start > capacity:
            last = int(np.searchsorted(word_starts, start + capacity, "right")) - 1
            fits = last >= 0 and word_starts[last] > start
            start = int(word_starts[last]) if fits else start + capacity
            cuts.append(start)
    return np.sort(np.concatenate([sentences, np.array(cuts, np.int64)])) if cuts else sentences


def greedy_edges(sentences: np.ndarray, barriers: np.ndarray, capacity: int) -> np.ndarray:
    """Returns those of the edges `sentences` where a block begins, and the last one.

    Each block takes sentences until the next one would not fit or a barrier (an address) is reached; a sentence that is
    longer is a block by itself. Where a block that begins with a sentence would end is looked up for all sentences at
    once; one walk then selects the blocks.
    """
    starts = sentences[:-1]
    next_barrier = barriers[np.searchsorted(barriers, starts, "right")]
    block_end = np.minimum(starts + capacity, next_barrier)
    following = np.searchsorted(sentences, block_end, "right") - 1  # [sentences] first sentence of the next block
    following = np.maximum(following, np.arange(1, len(sentences)))
    jumps = following.data  # a memoryview yields plain ints: several times faster to walk along than an array
    chosen, sentence = [0], 0
    while sentence < len(jumps):
        sentence = jumps[sentence]
        chosen.append(sentence)
    return sentences[chosen]

"""BERT's pairs of segments: A, and B, which is what follows A or, half of the time, text of another document
(docs/original.md 3, "2-seq").

A document is read in chunks of sentences that just reach the target length of a pair. A chunk is divided at a random
sentence into A and B; or only its first half is taken, B is a sequence of sentences of a random document, and the
second half is read again in the next chunk. A pair that is then too long loses single tokens at either end of its
longer segment. The pairs are drawn once for a run, not in each epoch, as in the original; the order of the draws is the
original's too, so that a seed gives the same pairs, but for those of a few documents whose ten draws of another one
all fail (see below).
"""

import itertools
from array import array

import numpy as np

TRIES = 10  # draws of another document
SHORTEST = 2  # tokens of the shortest target length

Segment = tuple[int, int]  # addresses of the first token and of the one after the last


def draw_pairs(
    sentences: np.ndarray, documents: np.ndarray, capacity: int, short_seq_prob: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns all pairs of a corpus.

    Args:
      sentences: int64 [sentences + 1], addresses where they begin, and the end of the last.
      documents: int64 [documents + 1], likewise; not a single one.
      capacity: the most tokens of a pair, without [CLS] and [SEP].
      short_seq_prob: probability that the target length of a document's pairs is uniform in SHORTEST..capacity - 1
        instead of `capacity`.
      seed: of all draws, below 2^32.

    Returns:
      int64 [pairs, 2, 2], start and end address of A and of B; and int8 [pairs], 1 where B is of another document.
    """
    draw = np.random.RandomState(seed)  # numpy guarantees the stream of this generator
    first_sentence = np.searchsorted(sentences, documents).tolist()  # [documents + 1]
    starts = np.ascontiguousarray(sentences).data  # a memoryview yields plain ints
    pairs, labels = array("q"), array("b")
    for document, (sentence, end) in enumerate(itertools.pairwise(first_sentence)):
        target = draw.randint(SHORTEST, capacity) if draw.random_sample() < short_seq_prob else capacity
        while sentence < end:
            chunk_end = sentence + 1
            while chunk_end < end and starts[chunk_end] - starts[sentence] < target:
                chunk_end += 1
            size = chunk_end - sentence
            middle = sentence + (draw.randint(1, size - 1) if size > 2 else 1)
            a = starts[sentence], starts[middle]
            random_b = draw.random_sample() > 0.5 or size == 1
            if random_b:
                b = _text_of_another_document(draw, starts, first_sentence, document, target - (a[1] - a[0]))
                sentence = middle
            else:
                b = starts[middle], starts[chunk_end]
                sentence = chunk_end
            for segment in _truncated(draw, a, b, capacity):
                pairs.extend(segment)
            labels.append(random_b)
    return np.frombuffer(pairs, np.int64).reshape(-1, 2, 2), np.frombuffer(labels, np.int8)


def _text_of_another_document(
    draw: np.random.RandomState, starts: memoryview, first_sentence: list[int], document: int, min_tokens: int
) -> Segment:
    """Returns whole sentences of any document but `document`: at least `min_tokens` tokens, or up to its end.

    As in the original, the last document is never drawn. After TRIES draws of `document` itself the next one is taken,
    where the original takes `document`: with two documents, always for the first of them.
    """
    for _ in range(TRIES):
        other = draw.randint(0, max(len(first_sentence) - 2, 1))
        if other != document:
            break
    else:
        other = document + 1
    start = first_sentence[other] + draw.randint(0, first_sentence[other + 1] - first_sentence[other])
    end = start + 1
    while end < first_sentence[other + 1] and starts[end] - starts[start] < min_tokens:
        end += 1
    return starts[start], starts[end]


def _truncated(draw: np.random.RandomState, a: Segment, b: Segment, capacity: int) -> tuple[Segment, Segment]:
    """Drops tokens at random ends of the longer segment until both together have at most `capacity`."""
    (a_start, a_end), (b_start, b_end) = a, b
    while (a_end - a_start) + (b_end - b_start) > capacity:
        at_start = draw.random_sample() < 0.5
        if a_end - a_start > b_end - b_start:
            a_start, a_end = a_start + at_start, a_end - (not at_start)
        else:
            b_start, b_end = b_start + at_start, b_end - (not at_start)
    return (a_start, a_end), (b_start, b_end)

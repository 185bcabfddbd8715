"""BERT's pairs of segments: A, and what follows it or, half of the time, text of another document (reference 3, "2-seq").

A document is read in chunks of sentences that just fill the budget of a pair. A chunk is parted in two at a random sentence; or only its
first part is taken, followed by a run of sentences of a random document, and the others are read again in the next chunk. What is over the
budget then is dropped token by token from either end of the longer segment. The pairs of a run are drawn once, not each epoch, as in the
original; the order of draws is the original's too, so that its pairs come out for its seed.
"""

from array import array

import numpy as np

TRIES = 10  # to find another document
SHORTEST = 2  # tokens, of a pair that is made short


def draw_pairs(
    sentences: np.ndarray, documents: np.ndarray, capacity: int, short_seq_prob: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of a corpus.

    Args:
      sentences: int64 [S + 1], addresses where they begin, and the end.
      documents: int64 [documents + 1], addresses where they begin, and the end.
      capacity: tokens of a pair, without [CLS] and [SEP].
      short_seq_prob: share of the documents whose pairs have a smaller budget, uniform in SHORTEST..capacity - 1.
      seed: of all draws, below 2^32.

    Returns:
      int64 [pairs, 2, 2]: start and end address of A and of B; and int8 [pairs]: 1 where B is from elsewhere, else 0.
    """
    draw = np.random.RandomState(seed)  # the generator whose stream numpy keeps for ever
    first = np.searchsorted(sentences, documents).tolist()  # [documents + 1] sentence that each begins with
    at = memoryview(np.ascontiguousarray(sentences))  # plain ints
    pairs, labels = array("q"), array("b")
    for document, (sentence, end) in enumerate(zip(first[:-1], first[1:])):
        target = draw.randint(SHORTEST, capacity) if draw.random_sample() < short_seq_prob else capacity
        while sentence < end:
            chunk_end = sentence + 1
            while chunk_end < end and at[chunk_end] - at[sentence] < target:
                chunk_end += 1
            size = chunk_end - sentence
            parting = sentence + (draw.randint(1, size - 1) if size > 2 else 1)
            a = at[sentence], at[parting]
            elsewhere = draw.random_sample() > 0.5 or size == 1
            if elsewhere:
                b = _text_of_another_document(draw, at, first, document, target - (a[1] - a[0]))
                sentence = parting
            else:
                b = at[parting], at[chunk_end]
                sentence = chunk_end
            for segment in _truncated(draw, a, b, capacity):
                pairs.extend(segment)
            labels.append(elsewhere)
    return np.frombuffer(pairs, np.int64).reshape(-1, 2, 2), np.frombuffer(labels, np.int8)


def _text_of_another_document(draw, at, first: list[int], document: int, wanted: int) -> tuple[int, int]:
    """A run of whole sentences with at least `wanted` tokens, or up to its document's end. The original never draws the last document."""
    for _ in range(TRIES):
        other = draw.randint(0, max(len(first) - 2, 1))
        if other != document:
            break
    start = first[other] + draw.randint(0, first[other + 1] - first[other])
    end = start + 1
    while end < first[other + 1] and at[end] - at[start] < wanted:
        end += 1
    return at[start], at[end]


def _truncated(draw, a: tuple[int, int], b: tuple[int, int], capacity: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The segments without tokens from the ends of the longer one, so that they fit."""
    (a_start, a_end), (b_start, b_end) = a, b
    while (a_end - a_start) + (b_end - b_start) > capacity:
        front = draw.random_sample() < 0.5
        if a_end - a_start > b_end - b_start:
            a_start, a_end = a_start + front, a_end - (not front)
        else:
            b_start, b_end = b_start + front, b_end - (not front)
    return (a_start, a_end), (b_start, b_end)

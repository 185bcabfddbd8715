"""Spans of a document: which of them can be mentions, which are kept, and to which clusters they belong.

Letters: S segments of L positions, A = S * L positions, W widths of spans, U spans kept.
"""

import jax
import jax.numpy as jnp
import numpy as np

from spanbert_jax.model.encoder import NEVER


def candidates(words, sentences, widths: int):
    """Returns bool [B, A, W], whether a span from a position, w + 1 tokens wide, is whole words of one sentence.

    Args:
      words: int [B, S, L], the number of each token's word in its document; 0 for tokens that are not of the text.
      sentences: int [B, S, L], the number of its sentence.
      widths: W.
    """
    rows, segments, length = words.shape
    padded = jnp.pad(words, ((0, 0), (0, 0), (1, 1)))
    first, last = ((words > 0) & (words != beside) for beside in (padded[:, :, :-2], padded[:, :, 2:]))
    ends = np.arange(length)[:, None] + np.arange(widths)  # [L, W]
    last, of_end = (jnp.pad(array, ((0, 0), (0, 0), (0, widths)))[:, :, ends] for array in (last, sentences))
    return (first[..., None] & last & (of_end == sentences[..., None])).reshape(rows, segments * length, widths)


def select_spans(scores, limit, slots: int):
    """Returns the best spans of a document of which no two cross: of two that do, the one with the higher score.

    Spans cross if they have some tokens in common and each has some alone. Of equal scores the first span counts, and
    of equal starts the narrower one.

    Args:
      scores: float32 [A, W], of spans by first position and width - 1; NEVER for what is no candidate.
      limit: int, at most so many spans.
      slots: U, not less.

    Returns:
      int32 [U]: start * W + width - 1, ascending, then A * W.
    """
    (length, widths), nothing = scores.shape, scores.size
    order = jnp.argsort(-scores.reshape(-1), stable=True)
    total = jnp.sum(scores > NEVER / 2)
    steps = jnp.arange(widths)

    def more(state):
        count, rank, *_ = state
        return (count < limit) & (rank < total)

    def step(state):
        count, rank, chosen, latest_end, earliest_start = state  # of the chosen spans that begin or end at a position
        start, width = order[rank] // widths, order[rank] % widths
        end = start + width
        begins_inside = (steps > 0) & (steps <= width) & (latest_end[start + steps] > end)
        ends_inside = (steps < width) & (earliest_start[start + steps] < start)
        crosses = jnp.any(begins_inside | ends_inside)
        chosen = chosen.at[jnp.where(crosses, slots, count)].set(order[rank], mode="drop")
        latest_end = latest_end.at[start].max(jnp.where(crosses, -1, end))
        earliest_start = earliest_start.at[end].min(jnp.where(crosses, length, start))
        return count + ~crosses, rank + 1, chosen, latest_end, earliest_start

    nobody = jnp.full(length + widths, -1), jnp.full(length + widths, length)
    start = (jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), jnp.full(slots, nothing, order.dtype), *nobody)
    return jnp.sort(jax.lax.while_loop(more, step, start)[2])


def span_clusters(starts, ends, mentions):
    """Returns the cluster of each span, int32 [B, U]; 0 for spans that are no mention.

    Args:
      starts, ends: int [B, U], first and last position.
      mentions: int [B, S, L, 3], first and last position in the segment and the cluster's number, 0 for none.
    """
    rows, segments, length, _ = mentions.shape
    offset = jnp.arange(segments)[:, None] * length  # [S, 1]
    first, last = ((mentions[..., end] + offset).reshape(rows, 1, -1) for end in (0, 1))  # [B, 1, A]
    same = (starts[..., None] == first) & (ends[..., None] == last)  # [B, U, A]
    return jnp.max(jnp.where(same, mentions[..., 2].reshape(rows, 1, -1), 0), axis=-1)

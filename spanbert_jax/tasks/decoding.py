"""Greedy and beam search over a model that predicts the next token, jitted: fixed shapes, a loop that ends early.

Both are functions of the model's step alone, (tokens [N], position, cache) -> (log-probabilities [N, V], cache), where
the tokens are those chosen last and the cache is a tree of arrays [layers, N, ...].
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from spanbert_jax.model.encoder import NEVER

Step = Callable[[jax.Array, jax.Array, Any], tuple[jax.Array, Any]]


def penalty(length: jax.Array, alpha: float) -> jax.Array:
    """Returns what the log-probability of a text of `length` tokens is divided by: ((5 + length) / 6)^alpha.

    Source: Wu et al. 2016, section 7.
    """
    return ((5.0 + length) / 6.0) ** alpha


def greedy(step: Step, first: jax.Array, cache: Any, size: int, end: int, alpha: float) -> tuple[jax.Array, jax.Array]:
    """Takes the most probable token at each position.

    Args:
      step: of the model.
      first: float32 [B, V], log-probabilities of the first token.
      cache: after the first step, with N = B.
      size: tokens of the longest text.
      end: the token that ends a text.
      alpha: of `penalty`.

    Returns:
      int32 [B, size]: texts, of which what follows `end` does not count; float32 [B]: their scores.
    """
    rows = len(first)

    def chosen(index, logp, texts, scores, done):
        tokens = jnp.argmax(logp, axis=-1).astype(jnp.int32)
        scores = scores + jnp.where(done, 0.0, jnp.max(logp, axis=-1))
        return texts.at[:, index].set(jnp.where(done, end, tokens)), scores, done | (tokens == end)

    def more(carry):
        index, (_, _, done), _ = carry
        return (index < size) & ~jnp.all(done)

    def advance(carry):
        index, state, cache = carry
        logp, cache = step(state[0][:, index - 1], index, cache)
        return index + 1, chosen(index, logp, *state), cache

    start = (jnp.full((rows, size), end, jnp.int32), jnp.zeros(rows), jnp.zeros(rows, bool))
    carry = (jnp.int32(1), chosen(0, first, *start), cache)
    _, (texts, scores, _), _ = jax.lax.while_loop(more, advance, carry)
    return texts, scores / penalty(lengths(texts, end), alpha)


def lengths(texts: jax.Array, end: int) -> jax.Array:
    """Returns the number of tokens of each text [..., size] up to and with the first `end`; size if there is none."""
    before = jnp.cumsum(texts == end, axis=-1) - (texts == end)
    return jnp.sum(before == 0, axis=-1)


class Beams(NamedTuple):
    """The hypotheses of a search with W of them for each row."""

    texts: jax.Array  # int32 [B, W, size] of those that go on
    logp: jax.Array  # float32 [B, W], descending; about NEVER where there is none
    ended: jax.Array  # int32 [B, W, size]: the best that have ended
    scores: jax.Array  # float32 [B, W], descending; NEVER where there is none
    number: jax.Array  # int32 [B], how many have ended

    @property
    def done(self) -> jax.Array:
        """Whether a row's search is over, bool [B]: W hypotheses have ended."""
        return self.number >= self.logp.shape[1]


def beam_search(
    step: Step, first: jax.Array, cache: Any, size: int, end: int, alpha: float, beams: int
) -> tuple[jax.Array, jax.Array]:
    """Returns the best text by log-probability / penalty that a search with several hypotheses finds.

    Of the continuations of a row's W hypotheses, those among the W best that end are ended hypotheses, and the W best
    of the others go on. A row's search is over when W have ended, whatever other rows do. If none has when `size` is
    reached, the best one is cut there. With W = 1 this is `greedy`; with W at least V^size it is the exact maximum.

    Args:
      step, first, cache, size, end, alpha: as for greedy; the steps get N = B * W rows, those of a row together.
      beams: W.
    """
    rows, vocabulary = first.shape
    texts = jnp.full((rows, beams, size), end, jnp.int32)
    logp = jnp.full((rows, beams), NEVER).at[:, 0].set(0.0)  # all begin as one
    nothing = jnp.full((rows, beams), NEVER)
    state = Beams(texts, logp, texts, nothing, jnp.zeros(rows, jnp.int32))

    def chosen(index, logp, state: Beams) -> tuple[Beams, jax.Array]:
        """Returns the state with one more token, from logp [B, W, V], and which hypothesis each one continues."""
        every = (state.logp[:, :, None] + logp).reshape(rows, beams * vocabulary)
        best, flat = jax.lax.top_k(every, min(2 * beams, beams * vocabulary))
        parents, tokens = flat // vocabulary, (flat % vocabulary).astype(jnp.int32)
        texts = jnp.take_along_axis(state.texts, parents[:, :, None], axis=1).at[:, :, index].set(tokens)
        ends = (tokens == end) & (best > NEVER / 2) & (jnp.arange(best.shape[1]) < beams)
        scores = jnp.concatenate(
            [state.scores, jnp.where(ends, best / penalty(index + 1, alpha), NEVER)], axis=1
        )  # those that ended before come first, so they win ties
        scores, order = jax.lax.top_k(scores, beams)
        ended = jnp.take_along_axis(jnp.concatenate([state.ended, texts], axis=1), order[:, :, None], axis=1)
        goes_on, order = jax.lax.top_k(jnp.where(tokens == end, NEVER, best), beams)
        texts = jnp.take_along_axis(texts, order[:, :, None], axis=1)
        after = Beams(texts, goes_on, ended, scores, state.number + jnp.sum(ends, axis=1))
        kept = [jnp.where(state.done.reshape(-1, *[1] * (new.ndim - 1)), old, new) for old, new in zip(state, after)]
        return Beams(*kept), jnp.take_along_axis(parents, order, axis=1)

    def more(carry):
        index, state, _, _ = carry
        return (index < size) & ~jnp.all(state.done)

    def advance(carry):
        index, state, parents, cache = carry
        flat = (parents + jnp.arange(rows)[:, None] * beams).reshape(-1)
        cache = jax.tree.map(lambda array: array[:, flat], cache)
        logp, cache = step(state.texts[:, :, index - 1].reshape(-1), index, cache)
        state, parents = chosen(index, logp.reshape(rows, beams, vocabulary), state)
        return index + 1, state, parents, cache

    state, _ = chosen(0, jnp.broadcast_to(first[:, None], (rows, beams, vocabulary)), state)
    cache = jax.tree.map(lambda array: jnp.repeat(array, beams, axis=1), cache)
    same = jnp.broadcast_to(jnp.arange(beams), (rows, beams))
    _, state, _, _ = jax.lax.while_loop(more, advance, (jnp.int32(1), state, same, cache))
    whole = state.number > 0
    cut = state.logp[:, 0] / penalty(jnp.float32(size), alpha)
    return (jnp.where(whole[:, None], state.ended[:, 0], state.texts[:, 0]), jnp.where(whole, state.scores[:, 0], cut))

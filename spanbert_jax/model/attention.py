"""Multi-head attention within segments, and within windows of them: one signature, several implementations.

xla            softmax(q k^T / sqrt(K)) v as XLA compiles it; for any platform, and the only one with dropout on
               probabilities
cudnn, splash  flash attention; see flash.py
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from spanbert_jax.model import flash
from spanbert_jax.model.dropout import dropout, fold_in
from spanbert_jax.model.layout import Layout
from spanbert_jax.model.spec import ModelSpec

# Below every score of a model but finite, so that a position that may read nothing (padding) stays finite.
_MASKED = np.float32(-1e30)

HEADS, SEGMENTS = ("batch", "length", "heads", "head_width"), ("batch", "length")  # axes of q, k, v, and of segments


def attend(
    spec: ModelSpec,
    layout: Layout,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segments: jax.Array,
    allowed: jax.Array | None,
    window: int | None,
    seeds: jax.Array | None,
) -> jax.Array:
    """Computes attention of each position to the positions of its own segment, as spec.attention chooses.

    Args:
      spec, layout: of the model.
      q, k, v: [B, L, H, K], any float type; scores and softmax are float32.
      segments: int [B, L]; positions with equal numbers read each other, also those of padding (0).
      allowed: bool [B, 1, L, L] of an attention pattern, for xla only; None: all positions of the segment.
      window: a position reads those at most window / 2 away; None: at any distance.
      seeds: uint32 [B] of dropout on the probabilities, or None outside training.

    Returns:
      [B, L, H, K] in q's type.

    Raises:
      ValueError: the kernel does not support dropout or patterns; flash.obstacles reports this earlier.
    """
    if spec.attention == "xla":
        dense = functools.partial(xla, dropout_rate=spec.attention_dropout)
        return within(dense, window, q, k, v, segments, allowed, seeds)
    if (spec.attention_dropout and seeds is not None) or allowed is not None:
        raise ValueError(f"attention {spec.attention!r} supports no dropout and no pattern: see flash.obstacles")
    kernels = {
        "cudnn": functools.partial(within, flash.cudnn, window),
        "splash": functools.partial(flash.splash, window=window, interpret=layout.interpret),
    }
    kernel = kernels[spec.attention]
    return layout.shard_map(kernel, (HEADS, HEADS, HEADS, SEGMENTS), HEADS)(q, k, v, segments)


def within(dense: Callable, window: int | None, q, k, v, segments, allowed=None, seeds=None) -> jax.Array:
    """Computes `attend` by a function such as xla, in blocks if there is a window and rows are long."""
    if window is not None and allowed is None and in_blocks(window, q.shape[1]):
        return attend_in_blocks(dense, q, k, v, segments, window, seeds)
    return dense(q, k, v, visible(segments, window, allowed), seeds)


def visible(segments: jax.Array, window: int | None, allowed: jax.Array | None) -> jax.Array:
    """Returns which position reads which, bool [B, 1, L, L]; see attend."""
    mask = segments[:, None, :, None] == segments[:, None, None, :]
    if window is not None:
        index = jnp.arange(segments.shape[1])
        mask &= jnp.abs(index[:, None] - index) <= window // 2
    return mask if allowed is None else mask & allowed


def in_blocks(window: int, length) -> bool:
    """Returns whether attention with a window is computed in blocks: if rows have more than the three that it reads.

    A symbolic length, of an exported program, is not known to.
    """
    return isinstance(length, int) and length > 3 * (window // 2)


def attend_in_blocks(
    dense: Callable, q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array, window: int, seeds: jax.Array | None
) -> jax.Array:
    """Computes `attend` with a window, in time linear in L: a block of window / 2 positions reads itself and the two
    blocks beside it.

    Args:
      dense: (q [G, b, H, K], k and v [G, 3b, H, K], mask bool [G, 1, b, 3b], seeds uint32 [G] or None) -> [G, b, H, K].
      q, k, v: [B, L, H, K].
      segments: int [B, L].
      window: see attend.
      seeds: uint32 [B] or None.
    """
    rows, length = segments.shape
    size = window // 2
    number = -(-length // size)  # of blocks; the last one is padded

    def blocks(x, margin, fill=0):  # [B, number + 2 margin, size, ...]
        pad = ((0, 0), (margin * size, (number + margin) * size - length), *[(0, 0)] * (x.ndim - 2))
        return jnp.pad(x, pad, constant_values=fill).reshape(rows, number + 2 * margin, size, *x.shape[2:])

    def around(x, fill=0):  # [B * number, 3 size, ...]: each block with the one before and the one behind
        x = blocks(x, 1, fill)
        x = jnp.concatenate([x[:, :-2], x[:, 1:-1], x[:, 2:]], axis=2)
        return x.reshape(rows * number, *x.shape[2:])

    def own(x, fill=0):  # [B * number, size, ...]
        return blocks(x, 0, fill).reshape(rows * number, size, *x.shape[2:])

    near = jnp.abs(jnp.arange(size, 2 * size)[:, None] - jnp.arange(3 * size)) <= size
    mask = near & (own(segments, -1)[:, None, :, None] == around(segments, -1)[:, None, None, :])
    if seeds is not None:
        seeds = fold_in(jnp.repeat(seeds, number), jnp.tile(jnp.arange(number), rows))
    mixed = dense(own(q), around(k), around(v), mask, seeds)
    return mixed.reshape(rows, number * size, *q.shape[2:])[:, :length]


def xla(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, seeds: jax.Array | None, dropout_rate: float = 0.0
) -> jax.Array:
    """Computes attention in plain JAX.

    Args:
      q: [B, L, H, K].
      k, v: [B, R, H, K].
      mask: bool [B, 1, L, R], True where a position L reads a position R.
      seeds: uint32 [B] of dropout, or None.
      dropout_rate: of the probabilities.
    """
    scale = np.float32(1.0 / np.sqrt(q.shape[-1]))
    # In the equations, L is the reading position (query) and R the position that is read (key).
    scores = jnp.einsum("BLHK,BRHK->BHLR", q * scale.astype(q.dtype), k, preferred_element_type=jnp.float32)
    probabilities = jax.nn.softmax(jnp.where(mask, scores, _MASKED), axis=-1).astype(v.dtype)
    probabilities = dropout(probabilities, dropout_rate, seeds)
    return jnp.einsum("BHLR,BRHK->BLHK", probabilities, v)

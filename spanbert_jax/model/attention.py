"""Multi-head attention within segments: one signature, several implementations.

xla            softmax(q k^T / sqrt(K)) v as XLA compiles it; for any platform, and the only one with dropout on
               probabilities
cudnn, splash  flash attention; see flash.py
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from spanbert_jax.model import flash
from spanbert_jax.model.dropout import dropout
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
    seeds: jax.Array | None,
) -> jax.Array:
    """Computes attention of each position to the positions of its own segment, as spec.attention chooses.

    Args:
      spec, layout: of the model.
      q, k, v: [B, L, H, K], any float type; scores and softmax are float32.
      segments: int [B, L]; positions with equal numbers read each other, also those of padding (0).
      allowed: bool [B, 1, L, L] of an attention pattern, for xla only; None: all positions of the segment.
      seeds: uint32 [B] of dropout on the probabilities, or None outside training.

    Returns:
      [B, L, H, K] in q's type.

    Raises:
      ValueError: the kernel does not support dropout or patterns; flash.obstacles reports this earlier.
    """
    if spec.attention == "xla":
        return xla(q, k, v, segments, allowed, spec.attention_dropout, seeds)
    if (spec.attention_dropout and seeds is not None) or allowed is not None:
        raise ValueError(f"attention {spec.attention!r} supports no dropout and no pattern: see flash.obstacles")
    kernel = flash.cudnn if spec.attention == "cudnn" else functools.partial(flash.splash, interpret=layout.interpret)
    return layout.shard_map(kernel, (HEADS, HEADS, HEADS, SEGMENTS), HEADS)(q, k, v, segments)


def xla(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segments: jax.Array,
    allowed: jax.Array | None,
    dropout_rate: float,
    seeds: jax.Array | None,
) -> jax.Array:
    """Computes `attend` in plain JAX; dropout_rate is that of the probabilities."""
    scale = np.float32(1.0 / np.sqrt(q.shape[-1]))
    # In the equations, L is the reading position (query) and R the position that is read (key).
    scores = jnp.einsum("BLHK,BRHK->BHLR", q * scale.astype(q.dtype), k, preferred_element_type=jnp.float32)
    visible = segments[:, None, :, None] == segments[:, None, None, :]  # [B, 1, L, R]
    if allowed is not None:
        visible &= allowed
    probabilities = jax.nn.softmax(jnp.where(visible, scores, _MASKED), axis=-1).astype(v.dtype)
    probabilities = dropout(probabilities, dropout_rate, seeds)
    return jnp.einsum("BHLR,BRHK->BLHK", probabilities, v)

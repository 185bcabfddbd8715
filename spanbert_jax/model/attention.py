"""Multi-head attention within segments: one signature, several implementations.

xla            softmax(q k^T / sqrt(K)) v as XLA compiles it; any platform, the only one with dropout on the probabilities
cudnn, splash  flash attention; see flash.py
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from spanbert_jax.model import flash
from spanbert_jax.model.dropout import dropout
from spanbert_jax.model.spec import ModelSpec

# Below every score a model makes, above float32's overflow: a row whose every key is masked stays finite (it is padding, nobody reads it).
_MASKED = np.float32(-1e30)


def attend(
    spec: ModelSpec, q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array, seeds: jax.Array | None
) -> jax.Array:
    """Each position reads the positions of its own segment, by spec.attention.

    Args:
      q, k, v: [B, L, H, K], any float type; scores and softmax are float32.
      segments: int [B, L]; positions with equal numbers see each other (0, padding, sees padding).
      seeds: uint32 [B] of dropout on the probabilities, or None outside training.

    Returns:
      [B, L, H, K] in q's type.

    Raises:
      ValueError: dropout on probabilities that a kernel keeps to itself.
    """
    if spec.attention == "xla":
        return xla(q, k, v, segments, spec.attention_dropout, seeds)
    if spec.attention_dropout and seeds is not None:
        raise ValueError(f"attention {spec.attention!r} has no dropout: see flash.obstacles")
    kernel = flash.cudnn if spec.attention == "cudnn" else functools.partial(flash.splash, interpret=spec.interpret)
    return spec.shard_map(kernel, ("BLHK", "BLHK", "BLHK", "BL"), "BLHK")(
        q, k, v, segments
    )  # the partitioner cannot see into kernels


def xla(
    q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array, dropout_rate: float, seeds: jax.Array | None
) -> jax.Array:
    """attend in plain JAX; dropout_rate is of the probabilities."""
    scale = np.float32(1.0 / np.sqrt(q.shape[-1]))
    scores = jnp.einsum("BLHK,BMHK->BHLM", q * scale.astype(q.dtype), k, preferred_element_type=jnp.float32)
    same = segments[:, None, :, None] == segments[:, None, None, :]  # [B, 1, L, L]
    probabilities = jax.nn.softmax(jnp.where(same, scores, _MASKED), axis=-1).astype(v.dtype)
    probabilities = dropout(probabilities, dropout_rate, seeds)
    return jnp.einsum("BHLM,BMHK->BLHK", probabilities, v)

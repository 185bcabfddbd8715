"""Multi-head attention within segments: one signature, several implementations.

xla   softmax(q k^T / sqrt(K)) v as XLA compiles it; any platform, the only one with dropout on the probabilities.
"""

import jax
import jax.numpy as jnp
import numpy as np

from spanbert_jax.model.dropout import dropout

IMPLEMENTATIONS = ("xla",)

# Below every score a model makes, above float32's overflow: a row whose every key is masked stays finite (it is padding, nobody reads it).
_MASKED = np.float32(-1e30)


def attend(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array, dropout_rate: float, seeds: jax.Array | None) -> jax.Array:
    """Each position reads the positions of its own segment.

    Args:
      q, k, v: [B, L, H, K], any float type; scores and softmax are float32.
      segments: int [B, L]; positions with equal numbers see each other (0, padding, sees padding).
      dropout_rate: of the probabilities.
      seeds: uint32 [B], or None outside training.

    Returns:
      [B, L, H, K] in q's type.
    """
    scale = np.float32(1.0 / np.sqrt(q.shape[-1]))
    scores = jnp.einsum("BLHK,BMHK->BHLM", q * scale.astype(q.dtype), k, preferred_element_type=jnp.float32)
    same = segments[:, None, :, None] == segments[:, None, None, :]  # [B, 1, L, L]
    probabilities = jax.nn.softmax(jnp.where(same, scores, _MASKED), axis=-1).astype(v.dtype)
    probabilities = dropout(probabilities, dropout_rate, seeds)
    return jnp.einsum("BHLM,BMHK->BLHK", probabilities, v)

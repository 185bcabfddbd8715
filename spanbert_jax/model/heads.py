"""The pretraining heads: hidden states -> features that the tied vocabulary projection turns into logits (reference 2.2, 2.3); and NSP.

Parameters: mlm/transform/{kernel [D, D], bias}, mlm/norm, mlm/bias [V];
sbo/positions [T, P], sbo/linear1/{kernel [2D + P, D], bias}, sbo/norm1, sbo/linear2/{kernel [D, D], bias}, sbo/norm2, sbo/bias [V];
nsp/pooler/{kernel [D, D], bias}, nsp/output/{kernel [D, 2], bias}.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from spanbert_jax.model.encoder import gelu, layer_norm
from spanbert_jax.model.linear import Linear
from spanbert_jax.model.spec import ModelSpec


def gather_positions(hidden: jax.Array, positions: jax.Array) -> jax.Array:
    """hidden [B, L, D] at positions [B, M] -> [B, M, D]."""
    return jnp.take_along_axis(hidden, positions[:, :, None], axis=1)


class MaskedLanguageHead(nn.Module):
    """BERT's masked language model: what was at a position, from its own hidden state."""

    spec: ModelSpec

    @nn.compact
    def __call__(self, hidden, positions):
        """hidden [B, L, D], positions int [B, M] -> (features [B, M, D], bias [V])."""
        spec = self.spec
        x = gather_positions(hidden, positions)  # [B, M, D]
        x = gelu(Linear(spec, "BMD,DE->BME", (spec.width, spec.width), name="transform")(x))
        bias = self.param("bias", nn.initializers.zeros, (spec.vocab_size,))
        return layer_norm(spec, "norm")(x), bias


class SpanBoundaryHead(nn.Module):
    """The span boundary objective (paper 3.2): what was at place k of a span, from the states at its two boundaries and p_k alone.

    The position embeddings are 200 wide in the original whatever its flag says (quirk 9); here `sbo_position_width` sets it.
    """

    spec: ModelSpec

    @nn.compact
    def __call__(self, hidden, left, right, offset):
        """hidden [B, L, D]; left, right, offset int [B, S] -> (features [B, S, D], bias [V])."""
        spec = self.spec
        table = self.param(
            "positions", nn.initializers.normal(spec.init_std), (spec.max_targets, spec.sbo_position_width)
        )
        x = jnp.concatenate(
            [gather_positions(hidden, left), gather_positions(hidden, right), table[offset].astype(spec.dtype)], axis=-1
        )
        for number in (1, 2):  # [B, S, 2D + P] -> [B, S, D] -> [B, S, D]
            linear = Linear(spec, "BSI,ID->BSD", (x.shape[-1], spec.width), name=f"linear{number}")
            x = layer_norm(spec, f"norm{number}")(gelu(linear(x)))
        bias = self.param("bias", nn.initializers.zeros, (spec.vocab_size,))
        return x, bias


class NextSentenceHead(nn.Module):
    """BERT's next sentence prediction: whether the second segment of a row is from elsewhere, from the state of its first [CLS]."""

    spec: ModelSpec

    @nn.compact
    def __call__(self, hidden):
        """hidden [B, L, D] -> logits float32 [B, 1, 2]."""
        width = self.spec.width
        pooled = jnp.tanh(Linear(self.spec, "BMD,DE->BME", (width, width), name="pooler")(hidden[:, :1]))  # [B, 1, D]
        return Linear(self.spec, "BMD,DE->BME", (width, 2), name="output")(pooled).astype(jnp.float32)

"""Dynamic attention heads: a gate for each head and token, computed from what the attention reads.

o_h <- 2 sigmoid(x W)_h o_h, where o_h is the output of head h for a token and x the token's state. W = 0 at the start,
where every gate is 1. Parameter of a layer's attention: kernel [D, H]. This is the project's own design; Qiu et al.
(2025, arXiv:2505.06708) study such gates.
"""

import jax

from spanbert_jax.model.extensions.extension import Extension
from spanbert_jax.model.layout import Layout
from spanbert_jax.model.linear import Linear
from spanbert_jax.model.spec import ModelSpec

NAME = "dynamic_heads"


def heads(spec: ModelSpec, layout: Layout, x: jax.Array, mixed: jax.Array) -> jax.Array:
    """Returns the outputs of heads [B, L, H, K], each times its gate; x is [B, L, D]."""
    logits = Linear(spec, "BLD,DH->BLH", (spec.width, spec.heads), bias=False, std=0.0, name=NAME)(x)
    gates = 2 * jax.nn.sigmoid(layout.constrain(logits, ("batch", "length", "heads")))
    return mixed * gates[..., None].astype(mixed.dtype)


DYNAMIC_HEADS = Extension(
    name=NAME,
    title="dynamic attention heads",
    heads=heads,
    flops=lambda spec, length: spec.layers * 2 * length * spec.width * spec.heads,
    layouts=((rf"layers/attention/{NAME}/kernel", ("layers", "embed", "heads")),),
)

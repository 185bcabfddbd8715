"""Span boundary objective: predicts a token of a masked span from the boundaries of the span.

Parameters (T = masking.max_targets, P = model.sbo_position_width): positions [T, P], linear1/{kernel [2D + P, D],
bias [D]}, norm1, linear2/{kernel [D, D], bias [D]}, norm2, bias [V].
Source: Joshi et al. 2020, section 3.2; docs/original.md 2.3.
"""

import flax.linen as nn
import jax.numpy as jnp

from spanbert_jax.model.layout import Layout
from spanbert_jax.model.linear import Linear
from spanbert_jax.model.parts import gelu, norm
from spanbert_jax.model.spec import ModelSpec
from spanbert_jax.objectives.objective import (
    EncoderStates,
    Objective,
    TokenFeatures,
    gather_positions,
    slot_count,
    slot_fields,
    slot_loss,
    slot_squares,
)


class SpanBoundaryHead(nn.Module):
    """Combines the states at the two boundaries of a span with the embedding of the position k of a token in it.

    The position embeddings of the original are always 200 wide, whatever its flag (docs/original.md, quirk 9); here
    model.sbo_position_width sets their width.
    """

    spec: ModelSpec
    layout: Layout

    @nn.compact
    def __call__(self, states: EncoderStates, batch) -> TokenFeatures:
        """Reads sbo_left, sbo_right (positions of the boundaries) and sbo_offset (k), int [B, M]."""
        spec, hidden = self.spec, states.last
        table = self.param(
            "positions", nn.initializers.normal(spec.init_std), (spec.max_targets, spec.sbo_position_width)
        )
        left, right = (gather_positions(hidden, batch[name]) for name in ("sbo_left", "sbo_right"))
        x = jnp.concatenate([left, right, table[batch["sbo_offset"]].astype(spec.dtype)], axis=-1)
        for number in (1, 2):  # [B, M, 2D + P] -> [B, M, D] -> [B, M, D]
            linear = Linear(spec, "BMI,ID->BMD", (x.shape[-1], spec.width), name=f"linear{number}")
            x = norm(spec, f"norm{number}")(gelu(linear(x)))
        return TokenFeatures(x, self.param("bias", nn.initializers.zeros, (spec.vocab_size,)))


def flops(spec: ModelSpec, length: int, slots: int) -> int:
    """Returns the FLOPs of the two linear maps and the vocabulary projection."""
    d = spec.width
    return 2 * slots * ((2 * d + spec.sbo_position_width) * d + d * d + d * spec.vocab_size)


USAGE = """
`sbo_head.safetensors` is the span boundary head, which transformers has no class for. With the hidden states x, y of
the tokens {boundaries} a span and the embedding p of position k in it (`position_embeddings`, from 0):
`linear1(concat(x, y, p))`, GeLU, `layer_norm1`, `linear2`, GeLU, `layer_norm2`, then the product with the word
embeddings plus `bias` scores the token at position k.
"""
BOUNDARIES = {"external": "just before and just after", "internal": "that are first and last of"}  # masking.boundaries

NAMES = "cls.pair_target_predictions"
SBO = Objective(
    name="sbo",
    title="span boundary objective",
    fields=slot_fields("sbo", "left", "right", "offset"),
    head=SpanBoundaryHead,
    loss=slot_loss("sbo"),
    squares=slot_squares("sbo"),
    count=slot_count("sbo"),
    flops=flops,
    layouts=((r"linear[12]/kernel", (None, "embed")), (r"linear[12]/bias", ()), (r"positions", ()), (r"bias", ())),
    exported={
        "linear1": f"{NAMES}.mlp_layer_norm.linear1",
        "linear2": f"{NAMES}.mlp_layer_norm.linear2",
        "norm1": f"{NAMES}.mlp_layer_norm.layer_norm1",
        "norm2": f"{NAMES}.mlp_layer_norm.layer_norm2",
        "bias": f"{NAMES}.bias",
        "positions": f"{NAMES}.position_embeddings.weight",
    },
    usage=lambda config: USAGE.format(boundaries=BOUNDARIES[config.masking.boundaries]),
    settings={"sbo_boundaries": "masking.boundaries"},
    sizes_of={"masking.max_targets": ("positions", 0), "model.sbo_position_width": ("positions", 1)},
    count_offset_key="sbo_count_offset",
)

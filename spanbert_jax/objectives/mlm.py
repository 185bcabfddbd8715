"""Masked language model: predicts a masked token from its own hidden state.

Parameters: transform/{kernel [D, D], bias [D]}, norm, bias [V]. Source: Devlin et al. 2019; docs/original.md 2.2.
"""

import flax.linen as nn

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


class MaskedLanguageHead(nn.Module):
    """Transforms the hidden states at the masked positions; the vocabulary projection follows."""

    spec: ModelSpec
    layout: Layout

    @nn.compact
    def __call__(self, states: EncoderStates, batch) -> TokenFeatures:
        """Reads mlm_positions int [B, M]."""
        spec = self.spec
        hidden = gather_positions(states.last, batch["mlm_positions"])  # [B, M, D]
        x = gelu(Linear(spec, "BMD,DE->BME", (spec.width, spec.width), name="transform")(hidden))
        bias = self.param("bias", nn.initializers.zeros, (spec.vocab_size,))
        return TokenFeatures(norm(spec, "norm")(x), bias)


MLM = Objective(
    name="mlm",
    title="masked language model",
    fields=slot_fields("mlm", "positions"),
    head=MaskedLanguageHead,
    loss=slot_loss("mlm"),
    squares=slot_squares("mlm"),
    count=slot_count("mlm"),
    flops=lambda spec, length, slots: 2 * slots * (spec.width**2 + spec.width * spec.vocab_size),
    layouts=((r"transform/kernel", (None, "embed")), (r"transform/bias", ()), (r"bias", ())),
    exported={
        "transform": "cls.predictions.transform.dense",
        "norm": "cls.predictions.transform.LayerNorm",
        "bias": "cls.predictions.bias",
    },
    transformers_class="BertForMaskedLM",
    permanent=True,
)

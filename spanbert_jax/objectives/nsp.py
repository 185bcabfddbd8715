"""Next sentence prediction: predicts whether the second segment of a row is from another document.

Parameters: pooler/{kernel [D, D], bias [D]}, output/{kernel [D, 2], bias [2]}. Source: Devlin et al. 2019.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from spanbert_jax.model.layout import Layout
from spanbert_jax.model.linear import Linear
from spanbert_jax.model.spec import ModelSpec
from spanbert_jax.objectives.objective import EncoderStates, Objective, slot_count, slot_fields, slot_loss


class NextSentenceHead(nn.Module):
    """Classifies the state of a row's first [CLS]."""

    spec: ModelSpec
    layout: Layout

    @nn.compact
    def __call__(self, states: EncoderStates, batch) -> jax.Array:
        """Returns logits float32 [B, 1, 2]."""
        width = self.spec.width
        first = states.last[:, :1]  # [B, 1, D]
        pooled = jnp.tanh(Linear(self.spec, "BMD,DE->BME", (width, width), name="pooler")(first))
        return Linear(self.spec, "BMD,DE->BME", (width, 2), dtype=jnp.float32, name="output")(pooled)


def problems(config) -> list[str]:
    """Returns what a config lacks for the objective, one line each."""
    if config.data.blocks == "pair":
        return []
    return ["objectives.nsp_weight needs data.blocks = pair: next sentence prediction is about two segments"]


NSP = Objective(
    name="nsp",
    title="next sentence prediction",
    fields=slot_fields("nsp", slots="1"),
    head=NextSentenceHead,
    loss=slot_loss("nsp"),
    count=slot_count("nsp"),
    flops=lambda spec, length, slots: 2 * (spec.width**2 + 2 * spec.width),
    layouts=((r"pooler/kernel", (None, "embed")), (r"pooler/bias", ()), (r"output/(kernel|bias)", ())),
    exported={"pooler": "bert.pooler.dense", "output": "cls.seq_relationship"},
    transformers_class="BertForPreTraining",
    problems=problems,
)

"""SpanBERT for pretraining: the encoder and its heads, as one pure pair of init and apply."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from spanbert_jax.model.encoder import Encoder
from spanbert_jax.model.heads import MaskedLanguageHead, NextSentenceHead, SpanBoundaryHead
from spanbert_jax.model.spec import ModelSpec

MLM_FIELDS = ("mlm_positions",)
SBO_FIELDS = ("sbo_left", "sbo_right", "sbo_offset")
ENCODER_FIELDS = ("tokens", "segments", "positions", "token_types")


class SpanBert(nn.Module):
    """Only the slots (masked positions) reach the vocabulary projection: the same loss as over all positions for a fraction of the work."""

    spec: ModelSpec

    @nn.compact
    def __call__(self, batch: dict[str, jax.Array], seeds: jax.Array | None = None) -> dict[str, jax.Array]:
        """Logits of the slots of a batch.

        Args:
          batch: tokens, segments, positions, token_types int [B, L]; mlm_positions int [B, M]; with an SBO head also
            sbo_left, sbo_right, sbo_offset int [B, S]. Other entries are not read.
          seeds: uint32 [B] of dropout, None outside training.

        Returns:
          {"mlm": float32 [B, M, V]; with these heads "sbo": [B, S, V], "nsp": [B, 1, 2]}. V as Encoder.logits has it.
        """
        encoder = Encoder(self.spec, name="encoder")
        hidden = encoder(*(batch[name] for name in ENCODER_FIELDS), seeds)  # [B, L, D]
        features = {"mlm": MaskedLanguageHead(self.spec, name="mlm")(hidden, *(batch[name] for name in MLM_FIELDS))}
        if self.spec.sbo:
            features["sbo"] = SpanBoundaryHead(self.spec, name="sbo")(hidden, *(batch[name] for name in SBO_FIELDS))
        # One product with the vocabulary for all heads: on a CPU, and in the gradient of its table, two cost more.
        slots = [of_head.shape[1] for of_head, _ in features.values()]
        logits = encoder.logits(jnp.concatenate([of_head for of_head, _ in features.values()], axis=1))  # [B, M + S, V]
        parts = jnp.split(logits, np.cumsum(slots)[:-1], axis=1)
        beyond = parts[0].shape[-1] - self.spec.vocab_size
        logits = {name: part + jnp.pad(bias, (0, beyond)) for (name, (_, bias)), part in zip(features.items(), parts)}
        return logits | ({"nsp": NextSentenceHead(self.spec, name="nsp")(hidden)} if self.spec.nsp else {})


def init_params(spec: ModelSpec, key: jax.Array) -> dict:
    """Fresh parameters, float32. Shapes depend on the spec alone, so a batch of one short row will do."""
    spec = dataclasses.replace(spec, attention="xla")  # the one that takes a row so short
    row = jnp.zeros((1, 2), jnp.int32)
    fields = dict.fromkeys(ENCODER_FIELDS + MLM_FIELDS + SBO_FIELDS, row)
    return SpanBert(spec).init(key, fields)["params"]


def apply(
    spec: ModelSpec, params: dict, batch: dict[str, jax.Array], seeds: jax.Array | None = None
) -> dict[str, jax.Array]:
    """SpanBert's logits, as a pure function of its parameters."""
    return SpanBert(spec).apply({"params": params}, batch, seeds)

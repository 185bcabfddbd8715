"""The model of tagging: an encoder with a head that classifies tokens, or spans of words.

Parameters of the heads, for C classes: output/{kernel [D, C], bias [C]}; for spans also begin/ and end/{kernel [2D, D],
bias [D]}, widths [W, D], and norm.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from spanbert_jax.finetuning.task import encoder_states
from spanbert_jax.model.dropout import dropout, fold_in
from spanbert_jax.model.layout import Layout
from spanbert_jax.model.linear import Linear
from spanbert_jax.model.parts import gelu, norm
from spanbert_jax.model.spec import ModelSpec
from spanbert_jax.objectives.objective import gather_positions


class Tagger(nn.Module):
    """An encoder with a head for C classes: of tokens, or of spans of up to `width` words."""

    spec: ModelSpec
    layout: Layout
    head: str  # name of its module
    classes: int
    width: int  # 0: tokens are classified
    share: float = 0.5  # of candidate spans that are of a type

    @nn.compact
    def __call__(self, batch, seeds):
        """Returns float32 [B, L, C] for the tokens, or [B, L, W, C] for spans (first word, number of further words)."""
        states = encoder_states(self.spec, self.layout, batch, seeds)
        if self.width:
            return SpanHead(self.spec, self.classes, self.width, self.share, name=self.head)(
                states, batch["first"], batch["last"], seeds
            )
        return TokenHead(self.spec, self.classes, name=self.head)(states, seeds)


class TokenHead(nn.Module):
    """Classifies each token by its state."""

    spec: ModelSpec
    classes: int

    @nn.compact
    def __call__(self, states, seeds):
        """Returns float32 [B, L, C] from states [B, L, D]."""
        spec = self.spec
        states = dropout(states, spec.dropout, None if seeds is None else fold_in(seeds, 100))
        return Linear(spec, "BLD,DC->BLC", (spec.width, self.classes), dtype=jnp.float32, name="output")(states)


class SpanHead(nn.Module):
    """Classifies each span of up to W words by the states at its ends, inside and outside, and its width.

    Few spans are of a type. So that the first steps need not teach that, the head starts with the share that they have
    in the training examples (as the classifier of Lin et al., ICCV 2017, section 4.1).
    """

    spec: ModelSpec
    classes: int  # the first one is that of no type
    width: int
    share: float  # of candidate spans that are of a type

    @nn.compact
    def __call__(self, states, first, last, seeds):
        """Returns float32 [B, L, W, C] from states [B, L, D] and the first and last token of each word, int [B, L]."""
        spec, width = self.spec, self.spec.width

        def projected(inner, outer, name):  # [B, L] positions twice -> [B, L, D]
            ends = [gather_positions(states, positions) for positions in (inner, outer)]
            return Linear(spec, "BLI,ID->BLD", (2 * width, width), name=name)(jnp.concatenate(ends, axis=-1))

        begins = projected(first, jnp.maximum(first - 1, 0), "begin")
        ends = projected(last, jnp.minimum(last + 1, states.shape[1] - 1), "end")
        table = self.param("widths", nn.initializers.normal(spec.init_std), (self.width, width))
        x = begins[:, :, None] + shifted(ends, self.width) + table.astype(spec.dtype)  # [B, L, W, D]
        x = norm(spec, "norm")(gelu(x))
        x = dropout(x, spec.dropout, None if seeds is None else fold_in(seeds, 100))
        shares = jnp.array([1 - self.share] + (self.classes - 1) * [self.share / (self.classes - 1)])
        output = Linear(
            spec,
            "BLWD,DC->BLWC",
            (width, self.classes),
            dtype=jnp.float32,
            bias_init=lambda key, shape: jnp.log(shares),
            name="output",
        )
        return output(x)


def shifted(x: jax.Array, width: int) -> jax.Array:
    """Returns [B, L, W, ...] whose [:, i, w] is x[:, i + w], and 0 beyond the end, for x [B, L, ...]."""
    length = x.shape[1]
    padded = jnp.pad(x, ((0, 0), (0, width - 1)) + ((0, 0),) * (x.ndim - 2))
    return jnp.stack([padded[:, more : more + length] for more in range(width)], axis=2)

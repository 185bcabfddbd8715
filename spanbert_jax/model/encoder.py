"""The BERT encoder (Devlin et al. 2019; reference 2.1): post-norm Transformer, exact GeLU, learned positions.

Parameters (float32; layers stacked on a leading axis by the scan over layers):
  embeddings/{word [V, D], position [P, D], token_type [2, D]}, embeddings/norm
  layers/attention/{query, key, value}/{kernel [D, H, K], bias [H, K]}, layers/attention/output/{kernel [H, K, D], bias [D]}, layers/attention/norm
  layers/mlp/hidden/{kernel [D, F], bias [F]}, layers/mlp/output/{kernel [F, D], bias [D]}, layers/mlp/norm
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from spanbert_jax.model.attention import attend
from spanbert_jax.model.dropout import dropout, fold_in
from spanbert_jax.model.linear import PRODUCT, Linear, add_bias, product
from spanbert_jax.model.spec import ModelSpec

NEVER = -1e30  # a logit that no softmax gives a share to

TOKEN_TYPES = 2  # segment A and B of a pair; single-segment training uses the first alone


def gelu(x: jax.Array) -> jax.Array:
    """The exact (erf) GeLU of BERT."""
    return nn.gelu(x, approximate=False)


def layer_norm(spec: ModelSpec, name: str) -> nn.LayerNorm:
    """LayerNorm over the last axis, statistics in float32 by the two-pass formula (eps is 1e-12: the one-pass one would lose it)."""
    return nn.LayerNorm(epsilon=spec.norm_eps, dtype=spec.dtype, use_fast_variance=False, name=name)


class Embeddings(nn.Module):
    """Sum of word, position and token-type embeddings, normalised. `attend` is the tied vocabulary projection."""

    spec: ModelSpec

    def setup(self):
        spec = self.spec
        table = nn.initializers.normal(spec.init_std)
        self.word = self.param("word", table, (spec.vocab_size, spec.width))
        self.position = self.param("position", table, (spec.max_positions, spec.width))
        self.token_type = self.param("token_type", table, (TOKEN_TYPES, spec.width))
        self.norm = layer_norm(spec, "norm")

    def __call__(self, tokens, positions, token_types, seeds):
        spec = self.spec
        x = self.word[tokens] + self.position[positions] + self.token_type[token_types]  # [B, L, D] float32
        # First as the tables lie, split over D: each device looks up its part of D, for more rows than it will keep, and in the backward
        # pass adds up its part of the tables' gradients alone.
        x = spec.constrain(spec.constrain(x, "bLt"), "BLD")
        return dropout(self.norm(x), spec.dropout, seeds)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """float32 [B, M, V] = hidden [B, M, D] . word embeddings, V rounded up to a multiple of spec.vocab_multiple.

        So that every vocabulary can be split over the mesh; what is beyond it scores as good as never.
        """
        spec = self.spec
        beyond = -spec.vocab_size % spec.vocab_multiple
        table = spec.constrain(jnp.pad(self.word, ((0, beyond), (0, 0))), "Vd")
        logits = spec.constrain(product("BMD,VD->BMV", hidden, table, jnp.float32), "BMV")
        if not beyond:
            return logits
        return jnp.where(jax.lax.broadcasted_iota(jnp.int32, logits.shape, 2) < spec.vocab_size, logits, NEVER)


class Attention(nn.Module):
    """Self-attention with its residual and norm."""

    spec: ModelSpec

    @nn.compact
    def __call__(self, x, segments, seeds):
        spec = self.spec
        q, k, v = (spec.constrain(y, "BLHK") for y in self.projections(x))
        mixed = attend(spec, q, k, v, segments, None if seeds is None else fold_in(seeds, 0))
        y = Linear(spec, "BLHK,HKD->BLD", (spec.heads, spec.head_width, spec.width), name="output")(mixed)
        y = dropout(spec.constrain(y, "BLD"), spec.dropout, None if seeds is None else fold_in(seeds, 1))
        return layer_norm(spec, "norm")(x + y)

    def projections(self, x):
        """Queries, keys and values of x [B, L, D], each [B, L, H, K]: one wide product costs less than three."""
        kernels, biases = zip(*(Projection(self.spec, name=name)() for name in ("query", "key", "value")))
        together = product("BLD,DTHK->BLTHK", x, jnp.stack(kernels, axis=1), self.spec.dtype)  # [B, L, 3, H, K]
        together = add_bias(together, jnp.stack(biases))
        return (together[:, :, number] for number in range(3))


class Projection(nn.Module):
    """The kernel [D, H, K] and bias [H, K] of a query, key or value, for a product that takes all three at once."""

    spec: ModelSpec

    @nn.compact
    def __call__(self):
        shape = (self.spec.heads, self.spec.head_width)
        kernel = self.param("kernel", nn.initializers.normal(self.spec.init_std), (self.spec.width, *shape))
        return kernel, self.param("bias", nn.initializers.zeros, shape)


class FeedForward(nn.Module):
    """Two-layer perceptron with its residual and norm."""

    spec: ModelSpec

    @nn.compact
    def __call__(self, x, seeds):
        spec = self.spec
        y = Linear(spec, "BLD,DF->BLF", (spec.width, spec.mlp_width), name="hidden")(x)
        y = Linear(spec, "BLF,FD->BLD", (spec.mlp_width, spec.width), name="output")(gelu(spec.constrain(y, "BLF")))
        y = dropout(spec.constrain(y, "BLD"), spec.dropout, None if seeds is None else fold_in(seeds, 2))
        return layer_norm(spec, "norm")(x + y)


class Layer(nn.Module):
    """One encoder layer, in the form nn.scan wants: (carry, layer number) -> (carry, output for the stack)."""

    spec: ModelSpec
    keep: bool  # whether to return the output, for those who want every layer's

    @nn.compact
    def __call__(self, x, number, segments, seeds):
        if seeds is not None:
            seeds = fold_in(seeds, number + 1)
        x = Attention(self.spec, name="attention")(x, segments, seeds)
        x = FeedForward(self.spec, name="mlp")(x, seeds)
        return x, (x if self.keep else None)


def rematerialised(layer: type[nn.Module], policy: str) -> type[nn.Module]:
    """The layer, with what its backward pass computes anew: "none", "dots" (all but products with kernels), "full"."""
    if policy == "none":
        return layer
    saved = {
        "dots": jax.checkpoint_policies.save_only_these_names(PRODUCT),
        "full": jax.checkpoint_policies.nothing_saveable,
    }[policy]
    return nn.remat(layer, policy=saved, prevent_cse=False)  # inside a scan, CSE cannot undo it


class Encoder(nn.Module):
    """tokens -> hidden states."""

    spec: ModelSpec

    def setup(self):
        self.embeddings = Embeddings(self.spec)

    @nn.compact
    def __call__(self, tokens, segments, positions, token_types, seeds=None, every_layer=False):
        """Hidden states of a batch of rows.

        Args:
          tokens, segments, positions, token_types: int [B, L]; `segments` numbers the blocks of a row from 1, 0 is padding.
          seeds: uint32 [B] of dropout, None outside training.
          every_layer: also return each layer's output.

        Returns:
          [B, L, D]; with every_layer also [layers, B, L, D].
        """
        spec = self.spec
        x = self.embeddings(tokens, positions, token_types, None if seeds is None else fold_in(seeds, 0))
        stack = nn.scan(
            rematerialised(Layer, spec.remat),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast, nn.broadcast),
            length=spec.layers,
            unroll=min(spec.scan_unroll, spec.layers),
        )
        x, outputs = stack(spec, every_layer, name="layers")(x, jnp.arange(spec.layers), segments, seeds)
        return (x, outputs) if every_layer else x

    def logits(self, hidden):
        """The vocabulary projection, tied to the word embeddings: see Embeddings.logits."""
        return self.embeddings.logits(hidden)

"""A Transformer decoder with cross-attention on the encoder (Vaswani et al. 2017), made of the encoder's parts.

It has the encoder's embeddings, for input and output, so the vocabulary of targets is that of the tokenizer. Targets
have token type 1. Parameters beside the encoder's (those of layers are stacked on a leading axis):
  seq2seq/layers/{attention, cross}/...  as encoder/layers/attention; the second reads the encoder's output
  seq2seq/layers/mlp/...                 as encoder/layers/mlp
  seq2seq/norm                           after the last layer, for pre-norm
  seq2seq/bias [V]                       of the logits
Dimension O: positions of a target. N: rows of a decoding step, those of the batch or several for each of them.
"""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from spanbert_jax.model.attention import HEADS, xla
from spanbert_jax.model.dropout import dropout, fold_in
from spanbert_jax.model.encoder import ATTENTION_LAYOUTS, FIELDS, Encoder, FeedForward, Projection, rematerialised
from spanbert_jax.model.layout import Layout
from spanbert_jax.model.linear import Linear, add_bias, product
from spanbert_jax.model.parts import FEED_FORWARDS, PLACEMENTS, POSITIONS, Layouts, norm
from spanbert_jax.model.spec import ModelSpec

DROPOUT = 200  # number of the decoder's seeds among those of a row, beyond those of encoder layers and other heads
Pair = tuple[jax.Array, jax.Array]  # keys and values


class Memory(NamedTuple):
    """What every decoding step reads of the sources."""

    cross: Pair  # [layers, B, L, H, K] each
    readable: jax.Array  # bool [B, L], which positions are no padding


class Context(NamedTuple):
    """What all layers read."""

    positions: jax.Array  # int [N, O]
    visible: jax.Array  # bool [1, 1, O, R], which positions of the target read which
    states: jax.Array | None  # [B, L, D] of the encoder; None: each layer has its keys and values of them
    readable: jax.Array  # bool [B, L]
    write: jax.Array | int  # int [], where a step writes into the cache, if there is one
    seeds: jax.Array | None  # uint32 [B] of dropout


def decoder_layouts(feed_forward: str) -> Layouts:
    """Returns the layouts of the decoder's parameters, by path within it; norms have theirs."""
    by_module = {"layers/(attention|cross)": ATTENTION_LAYOUTS, "layers/mlp": FEED_FORWARDS[feed_forward].layouts}
    return (
        (r"bias", ()),
        *((f"{module}/({pattern})", axes) for module, layouts in by_module.items() for pattern, axes in layouts),
    )


def projected(spec: ModelSpec, layout: Layout, x: jax.Array, name: str) -> jax.Array:
    """Returns the queries, keys or values of x [B, L, D]: [B, L, H, K]; makes the submodule of that name."""
    kernel, bias = Projection(spec, name=name)()
    y = product("BLD,DHK->BLHK", x, kernel, spec.dtype)
    return layout.constrain(y if bias is None else add_bias(y, bias), HEADS)


def mixed(spec: ModelSpec, layout: Layout, q: jax.Array, pair: Pair, mask: jax.Array, seeds) -> jax.Array:
    """Returns the output [B, O, D] of attention by queries [B, O, H, K]; makes the submodule "output".

    Args:
      spec, layout: of the model.
      q: the queries.
      pair: [B, R, H, K] each.
      mask: bool [B, 1, O, R].
      seeds: uint32 [B] of dropout, or None.
    """
    y = xla(q, *pair, mask, None if seeds is None else fold_in(seeds, 0), spec.attention_dropout)
    shape = (spec.heads, spec.head_width, spec.width)
    y = Linear(spec, "BLHK,HKD->BLD", shape, spec.bias, std=spec.output_std, name="output")(y)
    y = layout.constrain(y, ("batch", "length", "width"))
    return dropout(y, spec.dropout, None if seeds is None else fold_in(seeds, 1))


class SelfAttention(nn.Module):
    """The sublayer in which a position of the target reads those before it and itself."""

    spec: ModelSpec
    layout: Layout

    @nn.compact
    def __call__(self, x, context: Context, past: Pair | None, seeds):
        """Returns [N, O, D], and keys and values: of x, or with `past` [N, R, H, K] those, with x written into them."""
        spec, layout, kept = self.spec, self.layout, []
        rotate = POSITIONS[spec.positions].rotate

        def branch(x):
            q, k, v = (projected(spec, layout, x, name) for name in ("query", "key", "value"))
            if spec.qk_norm:
                q, k = norm(spec, "norm_query")(q), norm(spec, "norm_key")(k)
            if rotate is not None:
                q, k = (rotate(spec, y, context.positions, None) for y in (q, k))
            pair = (k, v)
            if past is not None:
                write = partial(jax.lax.dynamic_update_slice_in_dim, start_index=context.write, axis=1)
                pair = (write(past[0], k), write(past[1], v))
            kept.append(pair)
            return mixed(spec, layout, q, pair, context.visible, seeds)

        x = PLACEMENTS[spec.norm_placement].sublayer(spec, x, branch, False)
        return x, kept[0]


class CrossAttention(nn.Module):
    """The sublayer in which a position of the target reads all of the source."""

    spec: ModelSpec
    layout: Layout

    @nn.compact
    def __call__(self, x, context: Context, read: Pair | None, seeds):
        """Returns [N, O, D], and keys and values [B, L, H, K] of the source: `read`, or computed.

        The N / B rows of x for a row of the source are queries of one product, so that nothing is copied for them.
        """
        spec, layout, kept = self.spec, self.layout, []

        def branch(x):
            q = projected(spec, layout, x.reshape(len(context.readable), -1, x.shape[-1]), "query")
            if spec.qk_norm:
                q = norm(spec, "norm_query")(q)
            pair = self.pair_of(context.states) if read is None else read
            kept.append(pair)
            return mixed(spec, layout, q, pair, context.readable[:, None, None, :], seeds).reshape(x.shape)

        x = PLACEMENTS[spec.norm_placement].sublayer(spec, x, branch, False)
        return x, kept[0]

    def pair_of(self, states) -> Pair:
        """Returns keys and values of the encoder's output."""
        k, v = (projected(self.spec, self.layout, states, name) for name in ("key", "value"))
        return (norm(self.spec, "norm_key")(k) if self.spec.qk_norm else k), v


class DecoderLayer(nn.Module):
    """One layer in the form that nn.scan requires: (carry, what is of this layer) -> (carry, outputs to stack)."""

    spec: ModelSpec
    layout: Layout
    keep: bool  # whether to stack keys and values, for decoding

    @nn.compact
    def __call__(self, x, of_layer, context: Context):
        number, past, read = of_layer
        own, cross, mlp = (
            None if context.seeds is None else fold_in(context.seeds, 3 * number + site) for site in (1, 2, 3)
        )
        x, own_pair = SelfAttention(self.spec, self.layout, name="attention")(x, context, past, own)
        x, cross_pair = CrossAttention(self.spec, self.layout, name="cross")(x, context, read, cross)
        x = FeedForward(self.spec, self.layout, name="mlp")(x, mlp)
        return x, ((own_pair, cross_pair) if self.keep else None)


class Decoder(nn.Module):
    """The layers of the decoder."""

    spec: ModelSpec
    layout: Layout
    layers: int

    def setup(self):
        self.bias = self.param("bias", nn.initializers.zeros, (self.spec.vocab_size,))

    @nn.compact
    def __call__(self, x, context: Context, past: Pair | None = None, read: Pair | None = None, keep: bool = False):
        """Computes the output of the last layer, [N, O, D] from the embeddings x [N, O, D].

        Args:
          x: of the target.
          context: see there.
          past: keys and values of the target so far, [layers, N, R, H, K] each; None: x is all of it.
          read: keys and values of the source, [layers, B, L, H, K] each; None: they are computed.
          keep: whether to return both too.

        Returns:
          [N, O, D], and (past, read) or None.
        """
        spec = self.spec
        stack = nn.scan(
            rematerialised(DecoderLayer, spec.remat),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast),
            length=self.layers,
            unroll=min(spec.scan_unroll, self.layers),
        )(spec, self.layout, keep, name="layers")
        x, kept = stack(x, (jnp.arange(self.layers), past, read), context)
        if PLACEMENTS[spec.norm_placement].final_norm:
            x = norm(spec, "norm")(x)
        return x, kept


class EncoderDecoder(nn.Module):
    """Encoder and decoder, trained with the whole target as input and used token by token."""

    spec: ModelSpec
    layout: Layout
    layers: int  # of the decoder
    first: int  # the token that is read before the first one of a target

    def setup(self):
        self.encoder = Encoder(self.spec, self.layout)
        self.seq2seq = Decoder(self.spec, self.layout, self.layers)

    def __call__(self, batch, seeds):
        """Returns the logits of each token of "targets", float32 [B, O, V], from those before it: teacher forcing.

        V is rounded up as in Encoder.logits.
        """
        targets = batch["targets"]
        rows, length = targets.shape
        inputs = jnp.concatenate([jnp.full((rows, 1), self.first, targets.dtype), targets[:, :-1]], axis=1)
        positions = jnp.broadcast_to(jnp.arange(length), (rows, length))
        own = None if seeds is None else fold_in(seeds, DROPOUT)
        context = Context(
            positions=positions,
            visible=jnp.tril(jnp.ones((length, length), bool))[None, None],
            states=self._states(batch, seeds),
            readable=batch["segments"] > 0,
            write=0,
            seeds=own,
        )
        x, _ = self.seq2seq(self._embedded(inputs, positions, own), context)
        return self._logits(x)

    def begin(self, batch, size: int):
        """Reads the sources and computes the first step.

        Args:
          batch: without targets.
          size: positions of the longest target.

        Returns:
          Logits float32 [B, V] of the first token, the Memory, and the cache of keys and values, a tree of
          [layers, B, size, H, K].
        """
        readable = batch["segments"] > 0
        positions = jnp.zeros((len(readable), 1), jnp.int32)
        visible = jnp.ones((1, 1, 1, 1), bool)
        context = Context(positions, visible, self._states(batch, None), readable, 0, None)
        tokens = jnp.full_like(positions, self.first)
        x, (own, cross) = self.seq2seq(self._embedded(tokens, positions, None), context, keep=True)
        pad = ((0, 0), (0, 0), (0, size - 1), (0, 0), (0, 0))
        return self._logits(x)[:, 0], Memory(cross, readable), tuple(jnp.pad(array, pad) for array in own)

    def step(self, tokens, index, memory: Memory, cache: Pair):
        """Computes one more step.

        Args:
          tokens: int [N], the last token so far of each row; N is a multiple of B.
          index: int [], its position in the input, at least 1.
          memory, cache: as `begin` returns them; the cache has N rows.

        Returns:
          Logits float32 [N, V] of the next token, and the cache with the step in it.
        """
        visible = (jnp.arange(cache[0].shape[2]) <= index)[None, None, None]
        positions = jnp.full((len(tokens), 1), index, jnp.int32)
        context = Context(positions, visible, None, memory.readable, index, None)
        x = self._embedded(tokens[:, None], positions, None)
        x, (own, _) = self.seq2seq(x, context, cache, memory.cross, keep=True)
        return self._logits(x)[:, 0], own

    def _states(self, batch, seeds):
        return self.encoder(**{name: batch[name] for name in FIELDS}, seeds=seeds)

    def _embedded(self, tokens, positions, seeds):
        return self.encoder.embeddings(tokens, positions, jnp.ones_like(tokens), seeds)

    def _logits(self, x):
        logits = self.encoder.logits(x)
        return logits + jnp.pad(self.seq2seq.bias, (0, logits.shape[-1] - self.spec.vocab_size))

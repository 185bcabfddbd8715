"""The encoder: BERT's by default (Devlin et al. 2019; docs/original.md 2.1), with other parts by config (parts.py).

Parameters of BERT's encoder (float32; those of layers are stacked on a leading axis by the scan over layers):
  embeddings/{word [V, D], position [max_positions, D], token_type [2, D]}, embeddings/norm
  layers/attention/{query, key, value}/{kernel [D, H, K], bias [H, K]}
  layers/attention/output/{kernel [H, K, D], bias [D]}, layers/attention/norm
  layers/mlp/hidden/{kernel [D, F], bias [F]}, layers/mlp/output/{kernel [F, D], bias [D]}, layers/mlp/norm
Others, by config: embeddings/output/table [V, D], norm, layers/attention/{norm_query, norm_key}, those of parts, and
those of extensions (extensions/).
"""

import operator
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from spanbert_jax.model import flash
from spanbert_jax.model.attention import HEADS, attend
from spanbert_jax.model.dropout import dropout, fold_in
from spanbert_jax.model.extensions import extension_problems, extensions_of
from spanbert_jax.model.layout import Layout
from spanbert_jax.model.linear import PRODUCT, Linear, add_bias, product
from spanbert_jax.model.parts import (
    FEED_FORWARDS,
    NORMS,
    PATTERNS,
    PLACEMENTS,
    POSITIONS,
    REGISTRIES,
    Layouts,
    layer_windows,
    norm,
)
from spanbert_jax.model.spec import IMPLEMENTATIONS, ModelSpec

NEVER = -1e30  # a logit whose softmax probability is 0

TOKEN_TYPES = 2  # segments A and B of a pair; single-segment training uses only the first
FIELDS = ("tokens", "segments", "positions", "token_types")  # batch arrays that the encoder reads, int [B, L]

ATTENTION_LAYOUTS: Layouts = (
    (r"(query|key|value)/kernel", ("layers", "embed", "heads", "head_width")),
    (r"(query|key|value)/bias", ("layers", "heads", "head_width")),
    (r"output/kernel", ("layers", "heads", "head_width", "embed")),
    (r"output/bias", ()),
)


def parameter_layouts(spec: ModelSpec) -> Layouts:
    """Returns the layouts of the parameters of encoders (a head may have one too) and norms, by whole path."""
    by_module = {
        r"(.+/)?encoder/embeddings": (
            (r"word|token_type|output/table", (None, "table")),
            *POSITIONS[spec.positions].layouts,
        ),
        r"(.+/)?encoder/layers/attention": ATTENTION_LAYOUTS,
        r"(.+/)?encoder/layers/mlp": FEED_FORWARDS[spec.feed_forward].layouts,
        r"(.+/)?encoder": tuple(layout for each in extensions_of(spec) for layout in each.layouts),
        r"(.+/)?norm\w*": NORMS[spec.norm].layouts,
    }
    return tuple((f"{module}/({pattern})", axes) for module, layouts in by_module.items() for pattern, axes in layouts)


def model_problems(config, platform: str | None = None) -> list[str]:
    """Returns what prevents building config.model, one line each.

    Given a platform (see flash.platform_of), what prevents running on it is included.
    """
    model, problems = config.model, []
    for key, registry in REGISTRIES.items():
        if model[key] not in registry:
            problems.append(f"model.{key} must be one of {', '.join(registry)}, not {model[key]!r}")
    if model.attention not in (known := ("auto", *IMPLEMENTATIONS)):
        problems.append(f"model.attention must be one of {', '.join(known)}, not {model.attention!r}")
    elif model.attention in flash.PLATFORMS:
        problems += flash.obstacles(model.attention, config, platform)
    if POSITIONS.get(model.positions) is POSITIONS["rotary"] and model.width // max(model.heads, 1) % 2:
        problems.append(
            f"model.positions 'rotary' rotates pairs of elements, and heads of model.width / model.heads = "
            f"{model.width // model.heads} elements have none left over: give an even number"
        )
    if not model.first_norm and model.norm_placement != "pre":
        problems.append("model.first_norm=False leaves out a norm before a sublayer: give model.norm_placement 'pre'")
    return problems + extension_problems(config)


class Table(nn.Module):
    """A table of output embeddings, made when it is first used: encoders without vocabulary projection have none."""

    spec: ModelSpec

    @nn.compact
    def __call__(self) -> jax.Array:
        """Returns float32 [V, D]."""
        spec = self.spec
        return self.param("table", nn.initializers.normal(spec.init_std), (spec.vocab_size, spec.width))


class Embeddings(nn.Module):
    """Sum of word, position and token-type embeddings, normalised. `logits` is the vocabulary projection."""

    spec: ModelSpec
    layout: Layout

    def setup(self):
        spec = self.spec
        table = nn.initializers.normal(spec.init_std)
        embedding = POSITIONS[spec.positions].embedding
        self.word = self.param("word", table, (spec.vocab_size, spec.width))
        self.position_embedding = embedding and embedding(self.param, spec)
        self.token_type = self.param("token_type", table, (TOKEN_TYPES, spec.width)) if spec.token_types else None
        self.norm = norm(spec, "norm") if spec.embedding_norm else None
        self.output = None if spec.tied_output else Table(spec)

    def __call__(self, tokens, positions, token_types, seeds):
        x = self.word[tokens]  # [B, L, D] float32
        if self.position_embedding is not None:
            x += self.position_embedding(positions)
        if self.token_type is not None:
            x += self.token_type[token_types]
        # The first layout is that of the tables, whose width is sharded: each device looks up its shard of the width
        # for more rows than it will keep, and in the backward pass sums the gradients of its shard of the tables alone.
        x = self.layout.constrain(x, ("lookup_batch", "length", "table"))
        x = self.layout.constrain(x, ("batch", "length", "width"))
        x = x.astype(self.spec.dtype) if self.norm is None else self.norm(x)
        return dropout(x, self.spec.dropout, seeds)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Returns float32 [B, M, V], the product of hidden [B, M, D] with the word or output embeddings.

        V is rounded up to layout.vocab_multiple, so that every vocabulary can be sharded; logits beyond the vocabulary
        are NEVER.
        """
        spec, layout = self.spec, self.layout
        padding = -spec.vocab_size % layout.vocab_multiple
        table = self.word if self.output is None else self.output()
        table = layout.constrain(jnp.pad(table, ((0, padding), (0, 0))), ("vocab", "embed"))
        logits = layout.constrain(product("BMD,VD->BMV", hidden, table, jnp.float32), ("batch", "slots", "vocab"))
        if not padding:
            return logits
        return jnp.where(jax.lax.broadcasted_iota(jnp.int32, logits.shape, 2) < spec.vocab_size, logits, NEVER)


class Attention(nn.Module):
    """The self-attention sublayer."""

    spec: ModelSpec
    layout: Layout
    window: int | None

    @nn.compact
    def __call__(self, x, segments, positions, number, seeds):
        """Returns [B, L, D].

        Args:
          x: [B, L, D].
          segments, positions: int [B, L].
          number: of the layer.
          seeds: uint32 [B] of dropout, or None.
        """
        spec, layout = self.spec, self.layout
        pattern, rotate = PATTERNS[spec.attention_pattern], POSITIONS[spec.positions].rotate
        segments = pattern.segments(spec, segments, positions, self.window)

        def branch(x):
            q, k, v = (layout.constrain(y, HEADS) for y in self.projections(x))
            if spec.qk_norm:
                q, k = norm(spec, "norm_query")(q), norm(spec, "norm_key")(k)
            if rotate is not None:
                q, k = (rotate(spec, y, positions, self.window) for y in (q, k))
            allowed = None if pattern.allowed is None else pattern.allowed(spec, positions, number)
            seeds_of_probabilities = None if seeds is None else fold_in(seeds, 0)
            mixed = attend(spec, layout, q, k, v, segments, allowed, self.window, seeds_of_probabilities)
            for extension in extensions_of(spec):
                mixed = extension.heads(spec, layout, x, mixed)
            shape = (spec.heads, spec.head_width, spec.width)
            y = Linear(spec, "BLHK,HKD->BLD", shape, spec.bias, std=spec.output_std, name="output")(mixed)
            y = layout.constrain(y, ("batch", "length", "width"))
            return dropout(y, spec.dropout, None if seeds is None else fold_in(seeds, 1))

        return PLACEMENTS[spec.norm_placement].sublayer(spec, x, branch, not spec.first_norm and number == 0)

    def projections(self, x):
        """Yields queries, keys and values of x [B, L, D], each [B, L, H, K]. One wide product costs less than three."""
        kernels, biases = zip(*(Projection(self.spec, name=name)() for name in ("query", "key", "value")))
        joined = product("BLD,DTHK->BLTHK", x, jnp.stack(kernels, axis=1), self.spec.dtype)  # [B, L, 3, H, K]
        if self.spec.bias:
            joined = add_bias(joined, jnp.stack(biases))
        return (joined[:, :, index] for index in range(3))


class Projection(nn.Module):
    """The kernel [D, H, K] and bias [H, K] of the query, key or value, for a product that computes all three."""

    spec: ModelSpec

    @nn.compact
    def __call__(self):
        spec = self.spec
        shape = (spec.heads, spec.head_width)
        kernel = self.param("kernel", nn.initializers.normal(spec.init_std), (spec.width, *shape))
        return kernel, self.param("bias", nn.initializers.zeros, shape) if spec.bias else None


class FeedForward(nn.Module):
    """The feed-forward sublayer."""

    spec: ModelSpec
    layout: Layout

    @nn.compact
    def __call__(self, x, seeds):
        """Returns [B, L, D] from x [B, L, D] and seeds uint32 [B] or None."""
        spec, layout = self.spec, self.layout

        def branch(x):
            y = FEED_FORWARDS[spec.feed_forward].apply(spec, layout, x)
            y = layout.constrain(y, ("batch", "length", "width"))
            return dropout(y, spec.dropout, None if seeds is None else fold_in(seeds, 2))

        return PLACEMENTS[spec.norm_placement].sublayer(spec, x, branch, False)


class Layer(nn.Module):
    """One encoder layer in the form that nn.scan requires: (carry, number of the layer) -> (carry, output to stack)."""

    spec: ModelSpec
    layout: Layout
    keep_output: bool  # whether to stack the output, for heads that read every layer
    window: int | None = None  # of the attention

    @nn.compact
    def __call__(self, x, number, segments, positions, seeds):
        if seeds is not None:
            seeds = fold_in(seeds, number + 1)
        x = Attention(self.spec, self.layout, self.window, name="attention")(x, segments, positions, number, seeds)
        x = FeedForward(self.spec, self.layout, name="mlp")(x, seeds)
        return x, (x if self.keep_output else None)


def rematerialised(layer: type[nn.Module], policy: str) -> type[nn.Module]:
    """Returns the layer class with a policy of what its backward pass recomputes.

    Policies are "none" (nothing), "dots" (all but products with kernels) and "full" (everything).
    """
    if policy == "none":
        return layer
    policies = jax.checkpoint_policies
    saved = {"dots": policies.save_only_these_names(PRODUCT), "full": policies.nothing_saveable}[policy]
    return nn.remat(layer, policy=saved, prevent_cse=False)  # inside a scan, CSE cannot undo it


class Encoder(nn.Module):
    """Computes hidden states from tokens."""

    spec: ModelSpec
    layout: Layout

    def setup(self):
        self.embeddings = Embeddings(self.spec, self.layout)

    @nn.compact
    def __call__(self, tokens, segments, positions, token_types, seeds=None, every_layer=False):
        """Computes the hidden states of a batch of rows.

        Args:
          tokens, segments, positions, token_types: int [B, L]; `segments` numbers the blocks of a row from 1, 0 is
            padding.
          seeds: uint32 [B] of dropout, None outside training.
          every_layer: whether to also return the outputs of all layers.

        Returns:
          [B, L, D]; with every_layer also [layers, B, L, D].
        """
        spec = self.spec
        x = self.embeddings(tokens, positions, token_types, None if seeds is None else fold_in(seeds, 0))
        rows = dict(zip(FIELDS, (tokens, segments, positions, token_types)))
        for extension in (extensions := extensions_of(spec)):
            x = extension.embedded(spec, self.layout, rows, x)
        keep_layers = every_layer or any(extension.reads_layers for extension in extensions)
        if len(layer_windows(spec)) > 1 and not self.is_initializing():
            x, outputs = self.groups_of_layers(x, segments, positions, seeds, keep_layers)
        else:
            stack = nn.scan(
                rematerialised(Layer, spec.remat),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
                length=spec.layers,
                unroll=min(spec.scan_unroll, spec.layers),
            )(spec, self.layout, keep_layers, layer_windows(spec)[0], name="layers")
            x, outputs = stack(x, jnp.arange(spec.layers), segments, positions, seeds)
        for extension in extensions:
            x = extension.encoded(spec, self.layout, rows, x, outputs)
        if PLACEMENTS[spec.norm_placement].final_norm:
            x = norm(spec, "norm")(x)
        return (x, outputs) if every_layer else x

    def groups_of_layers(self, x, segments, positions, seeds, every_layer):
        """Applies layers whose windows differ: a scan over groups of layers, each with the windows of the pattern.

        Within a group the window of each layer is known to the compiler. The layers that fill no group come last.

        Returns:
          The output [B, L, D] of the last layer, and those of all layers [layers, B, L, D] or None.
        """
        spec, windows = self.spec, layer_windows(self.spec)
        groups = spec.layers // len(windows)
        whole = groups * len(windows)
        params = self.variables["params"]["layers"]  # stacked
        layer = rematerialised(Layer, spec.remat)

        def group(x, inputs):
            params, first = inputs
            outputs = []
            for index in range(len(jax.tree.leaves(params)[0])):
                module = layer(spec, self.layout, every_layer, windows[index], parent=None)
                variables = {"params": jax.tree.map(operator.itemgetter(index), params)}
                x, output = cast(tuple, module.apply(variables, x, first + index, segments, positions, seeds))
                outputs.append(output)
            return x, jnp.stack(outputs) if every_layer and outputs else None

        in_groups = jax.tree.map(lambda leaf: leaf[:whole].reshape(groups, len(windows), *leaf.shape[1:]), params)
        unroll = max(1, min(spec.scan_unroll, spec.layers) // len(windows))
        x, outputs = jax.lax.scan(group, x, (in_groups, jnp.arange(groups) * len(windows)), unroll=unroll)
        x, last = group(x, (jax.tree.map(lambda leaf: leaf[whole:], params), whole))
        if every_layer:
            outputs = outputs.reshape(whole, *outputs.shape[2:])
            outputs = outputs if last is None else jnp.concatenate([outputs, last])
        return x, outputs

    def logits(self, hidden):
        """Computes the vocabulary projection; see Embeddings.logits."""
        return self.embeddings.logits(hidden)

"""Parts of the encoder that a config chooses, one registry per kind; a new part is a function and a registry entry.

A part runs inside the module that uses it, so the submodules and parameters that it makes belong to that module. A part
with parameters gives their layouts: (regular expression of the path, logical axes), see layout.py.
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from spanbert_jax.model.layout import Axes, Layout
from spanbert_jax.model.linear import Linear
from spanbert_jax.model.spec import ModelSpec

Layouts = tuple[tuple[str, Axes], ...]


def gelu(x: jax.Array) -> jax.Array:
    """Returns the exact (erf) GeLU of BERT."""
    return nn.gelu(x, approximate=False)


@dataclasses.dataclass(frozen=True)
class Norm:
    """Normalisation over the last axis."""

    make: Callable[[ModelSpec, str], nn.Module]  # (spec, name of the module) -> module
    layouts: Layouts  # of its parameters, by their names


def layer_norm(spec: ModelSpec, name: str) -> nn.LayerNorm:
    """Returns LayerNorm with float32 statistics by the two-pass formula; the one-pass one would lose eps = 1e-12."""
    return nn.LayerNorm(
        epsilon=spec.norm_eps, dtype=spec.dtype, use_bias=spec.norm_bias, use_fast_variance=False, name=name
    )


def rms_norm(spec: ModelSpec, name: str) -> nn.RMSNorm:
    """Returns RMSNorm (Zhang and Sennrich 2019) with float32 statistics."""
    return nn.RMSNorm(epsilon=spec.norm_eps, dtype=spec.dtype, name=name)


NORMS = {"layer": Norm(layer_norm, ((r"scale|bias", ()),)), "rms": Norm(rms_norm, ((r"scale", ()),))}


def norm(spec: ModelSpec, name: str) -> nn.Module:
    """Returns the normalisation of a model; its name must begin with "norm"."""
    return NORMS[spec.norm].make(spec, name)


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where a sublayer (attention, feed-forward) is normalised."""

    # (spec, x [B, L, D], branch of x, whether x enters the branch without a norm before it: bool []) -> [B, L, D]
    sublayer: Callable[[ModelSpec, jax.Array, Callable, jax.Array | bool], jax.Array]
    final_norm: bool  # whether the output of the last layer is normalised


def post_norm(spec: ModelSpec, x: jax.Array, branch: Callable, bare: jax.Array | bool) -> jax.Array:
    """Normalises the sum of residual and branch (Vaswani et al. 2017, BERT)."""
    del bare
    return norm(spec, "norm")(x + branch(x))


def pre_norm(spec: ModelSpec, x: jax.Array, branch: Callable, bare: jax.Array | bool) -> jax.Array:
    """Normalises the input of the branch (Xiong et al. 2020).

    A norm that is left out has parameters all the same, since those of all layers are stacked; they stay at 1 and 0.
    """
    normed = norm(spec, "norm")(x)
    return x + branch(normed if bare is False else jnp.where(bare, x, normed))


PLACEMENTS = {"post": Placement(post_norm, final_norm=False), "pre": Placement(pre_norm, final_norm=True)}


@dataclasses.dataclass(frozen=True)
class Positions:
    """How a model knows the position of a token; either function may be None."""

    # (function that makes a parameter of the embeddings, spec) -> function: positions [B, L] -> [B, L, D], which is
    # added to the embedding of the token.
    embedding: Callable[[Callable, ModelSpec], Callable[[jax.Array], jax.Array]] | None
    # (spec, queries or keys [B, L, H, K], positions [B, L], window of the layer) -> the same with positions encoded.
    rotate: Callable[[ModelSpec, jax.Array, jax.Array, int | None], jax.Array] | None
    layouts: Layouts  # of its parameters, by their names


def learned_positions(parameter: Callable, spec: ModelSpec) -> Callable[[jax.Array], jax.Array]:
    """Makes BERT's table of position embeddings, "position" [max_positions, D]."""
    table = parameter("position", nn.initializers.normal(spec.init_std), (spec.max_positions, spec.width))
    return lambda positions: table[positions]


def rotary(spec: ModelSpec, x: jax.Array, positions: jax.Array, window: int | None) -> jax.Array:
    """Rotates element i and i + K/2 of each head by the angle position / base^(2i/K) (Su et al. 2021)."""
    base = spec.rope_base if window is None else spec.local_rope_base
    half = spec.head_width // 2
    angles = positions[:, :, None, None] * jnp.float32(base) ** (-jnp.arange(half, dtype=jnp.float32) / half)
    cos, sin = jnp.cos(angles), jnp.sin(angles)  # [B, L, 1, K/2] float32
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


POSITIONS = {
    "learned": Positions(learned_positions, None, ((r"position", (None, "table")),)),
    "rotary": Positions(None, rotary, ()),
}


@dataclasses.dataclass(frozen=True)
class FeedForward:
    """The position-wise feed-forward sublayer."""

    apply: Callable[[ModelSpec, Layout, jax.Array], jax.Array]  # (spec, layout, x [B, L, D]) -> [B, L, D]
    layouts: Layouts  # of its parameters, by path
    products: int  # number of its matrices [D, F] or [F, D], for FLOPs


def gelu_feed_forward(spec: ModelSpec, layout: Layout, x: jax.Array) -> jax.Array:
    """Applies BERT's two-layer perceptron.

    Parameters: hidden/{kernel [D, F], bias [F]}, output/{kernel [F, D], bias [D]}.
    """
    y = Linear(spec, "BLD,DF->BLF", (spec.width, spec.mlp_width), spec.bias, name="hidden")(x)
    y = gelu(layout.constrain(y, ("batch", "length", "mlp")))
    return _output(spec, y)


def _output(spec: ModelSpec, y: jax.Array) -> jax.Array:
    """Maps the inner features [B, L, F] of a feed-forward sublayer to [B, L, D]."""
    shape = (spec.mlp_width, spec.width)
    return Linear(spec, "BLF,FD->BLD", shape, spec.bias, std=spec.output_std, name="output")(y)


def gated(activation: Callable[[jax.Array], jax.Array]) -> Callable[[ModelSpec, Layout, jax.Array], jax.Array]:
    """Returns the gated feed-forward sublayer activation(x hidden) * (x gate) of Shazeer (2020).

    Parameters: {hidden, gate}/{kernel [D, F], bias [F]}, output/{kernel [F, D], bias [D]}.
    """

    def apply(spec: ModelSpec, layout: Layout, x: jax.Array) -> jax.Array:
        hidden, gate = (
            layout.constrain(
                Linear(spec, "BLD,DF->BLF", (spec.width, spec.mlp_width), spec.bias, name=name)(x),
                ("batch", "length", "mlp"),
            )
            for name in ("hidden", "gate")
        )
        return _output(spec, activation(hidden) * gate)

    return apply


FEED_FORWARD_LAYOUTS: Layouts = (
    (r"(hidden|gate)/kernel", ("layers", "embed", "mlp")),
    (r"(hidden|gate)/bias", ("layers", "mlp")),
    (r"output/kernel", ("layers", "mlp", "embed")),
    (r"output/bias", ()),
)
FEED_FORWARDS = {
    "gelu": FeedForward(gelu_feed_forward, FEED_FORWARD_LAYOUTS, products=2),
    "geglu": FeedForward(gated(gelu), FEED_FORWARD_LAYOUTS, products=3),
    "swiglu": FeedForward(gated(nn.silu), FEED_FORWARD_LAYOUTS, products=3),
}


@dataclasses.dataclass(frozen=True)
class Pattern:
    """Which positions of its own segment a position reads."""

    # spec -> windows of the layers, repeated from the first layer on: a position reads those at most window / 2 away,
    # all if the window is None.
    windows: Callable[[ModelSpec], tuple[int | None, ...]] = lambda spec: (None,)
    # (spec, segments and positions [B, L], window of the layer) -> [B, L]: a position reads those with its own number.
    segments: Callable[[ModelSpec, jax.Array, jax.Array, int | None], jax.Array] = lambda spec, segments, *_: segments
    # (spec, window) -> the most positions that one reads in a layer with a window, for FLOPs.
    reads: Callable[[ModelSpec, int], int] = lambda spec, window: window + 1
    # (spec, positions [B, L], number of the layer) -> bool [B, 1, L, L], True where the first position may read the
    # second. For the attention "xla" alone.
    allowed: Callable[[ModelSpec, jax.Array, jax.Array], jax.Array] | None = None


def spans_of_segments(spec: ModelSpec, segments: jax.Array, positions: jax.Array, window: int | None) -> jax.Array:
    """Divides each segment into spans of spec.span_length positions, counted from its start, in layers with a window.

    A span lies within a window of twice its length, so attention in blocks costs time linear in L.
    """
    return segments if window is None else segments * spec.max_positions + positions // spec.span_length


def spans(windows: Callable[[ModelSpec], tuple[int | None, ...]]) -> Pattern:
    """Returns the pattern of attention within spans, of layers with these windows."""
    return Pattern(windows, spans_of_segments, reads=lambda spec, window: spec.span_length)


PATTERNS = {
    "global": Pattern(),
    "local": Pattern(windows=lambda spec: (None, *[spec.window] * (spec.global_every - 1))),
    "spans": spans(lambda spec: (2 * spec.span_length,)),
    "spans_and_global": spans(lambda spec: (None, *[2 * spec.span_length] * (spec.global_every - 1))),
}


def layer_windows(spec: ModelSpec) -> tuple[int | None, ...]:
    """Returns the windows of the layers that a model's pattern repeats."""
    return PATTERNS[spec.attention_pattern].windows(spec)


# Keys of config.model that name an entry of a registry.
REGISTRIES: dict[str, dict] = {
    "norm": NORMS,
    "norm_placement": PLACEMENTS,
    "positions": POSITIONS,
    "feed_forward": FEED_FORWARDS,
    "attention_pattern": PATTERNS,
}

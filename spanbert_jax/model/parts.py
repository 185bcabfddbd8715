"""Parts of the encoder that a config chooses, one registry per kind; a new part is a function and a registry entry.

A part runs inside the module that uses it, so the submodules and parameters that it makes belong to that module. A part
with parameters gives their layouts: (regular expression of the path, logical axes), see layout.py.
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax

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
    return nn.LayerNorm(epsilon=spec.norm_eps, dtype=spec.dtype, use_fast_variance=False, name=name)


NORMS = {"layer": Norm(layer_norm, ((r"scale|bias", ()),))}


def norm(spec: ModelSpec, name: str) -> nn.Module:
    """Returns the normalisation of a model; its name must begin with "norm"."""
    return NORMS[spec.norm].make(spec, name)


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where a sublayer (attention, feed-forward) is normalised."""

    sublayer: Callable[[ModelSpec, jax.Array, Callable], jax.Array]  # (spec, x [B, L, D], branch of x) -> [B, L, D]
    final_norm: bool  # whether the output of the last layer is normalised


def post_norm(spec: ModelSpec, x: jax.Array, branch: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Normalises the sum of residual and branch (Vaswani et al. 2017, BERT)."""
    return norm(spec, "norm")(x + branch(x))


PLACEMENTS = {"post": Placement(post_norm, final_norm=False)}


@dataclasses.dataclass(frozen=True)
class Positions:
    """How a model knows the position of a token; either function may be None."""

    # (function that makes a parameter of the embeddings, spec) -> function: positions [B, L] -> [B, L, D], which is
    # added to the embedding of the token.
    embedding: Callable[[Callable, ModelSpec], Callable[[jax.Array], jax.Array]] | None
    # (spec, queries or keys [B, L, H, K], positions [B, L], number of the layer) -> the same with positions encoded.
    rotate: Callable[[ModelSpec, jax.Array, jax.Array, jax.Array], jax.Array] | None
    layouts: Layouts  # of its parameters, by their names


def learned_positions(parameter: Callable, spec: ModelSpec) -> Callable[[jax.Array], jax.Array]:
    """Makes BERT's table of position embeddings, "position" [max_positions, D]."""
    table = parameter("position", nn.initializers.normal(spec.init_std), (spec.max_positions, spec.width))
    return lambda positions: table[positions]


POSITIONS = {"learned": Positions(learned_positions, None, ((r"position", (None, "table")),))}


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
    return Linear(spec, "BLF,FD->BLD", (spec.mlp_width, spec.width), spec.bias, name="output")(y)


FEED_FORWARDS = {
    "gelu": FeedForward(
        gelu_feed_forward,
        (
            (r"hidden/kernel", ("layers", "embed", "mlp")),
            (r"hidden/bias", ("layers", "mlp")),
            (r"output/kernel", ("layers", "mlp", "embed")),
            (r"output/bias", ()),
        ),
        products=2,
    )
}

# Which positions of its own segment a position may read: None for all, or a function (spec, positions [B, L], number of
# the layer) -> bool [B, 1, L, L], True where the first position may read the second.
Pattern = Callable[[ModelSpec, jax.Array, jax.Array], jax.Array] | None

PATTERNS: dict[str, Pattern] = {"global": None}

# Keys of config.model that name an entry of a registry.
REGISTRIES: dict[str, dict] = {
    "norm": NORMS,
    "norm_placement": PLACEMENTS,
    "positions": POSITIONS,
    "feed_forward": FEED_FORWARDS,
    "attention_pattern": PATTERNS,
}

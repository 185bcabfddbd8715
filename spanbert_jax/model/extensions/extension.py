"""The definition of an encoder extension: something that BERT's encoder lacks, added to any encoder by config.

An extension leaves the encoder's output unchanged at the start: what it adds goes through a gate or a map that is 0
then. So it can be added to a pretrained encoder, and learns how much of it is of use. Its hooks run inside the module
that calls them, so what they make belongs to that module; each makes a single one, under the extension's name.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

from spanbert_jax.model.layout import Axes, Layout
from spanbert_jax.model.spec import ModelSpec

Rows = Mapping[str, jax.Array]  # the encoder's batch arrays: FIELDS of encoder.py, and those of extensions

# Called after the embeddings: (spec, layout, rows, embeddings [B, L, D]) -> [B, L, D].
Embedded = Callable[[ModelSpec, Layout, Rows, jax.Array], jax.Array]
# Called in each layer's attention: (spec, layout, what attention reads [B, L, D], outputs of its heads [B, L, H, K])
# -> [B, L, H, K].
Heads = Callable[[ModelSpec, Layout, jax.Array, jax.Array], jax.Array]
# Called after the last layer: (spec, layout, rows, its output [B, L, D], those of all layers [layers, B, L, D], or None
# unless an extension has `reads_layers`) -> [B, L, D].
Encoded = Callable[[ModelSpec, Layout, Rows, jax.Array, jax.Array | None], jax.Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Extension:
    """An extension, switched on by its name in config.model.extensions."""

    name: str
    title: str  # for people, such as "dynamic attention heads"
    flops: Callable[[ModelSpec, int], int]  # (spec, L) -> FLOPs of its forward pass over one row
    layouts: tuple[tuple[str, Axes], ...]  # of its parameters, by path within the encoder
    embedded: Embedded = lambda spec, layout, rows, x: x
    heads: Heads = lambda spec, layout, x, mixed: mixed
    encoded: Encoded = lambda spec, layout, rows, x, layers: x
    reads_layers: bool = False  # whether `encoded` reads the outputs of all layers
    knobs: tuple[str, ...] = ()  # keys of config.model on which its function depends
    # config with this extension on -> what prevents it, one line each.
    problems: Callable[[Any], list[str]] = lambda config: []

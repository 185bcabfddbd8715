"""The layout of activations on a mesh: all that a model knows about devices."""

import dataclasses
from collections.abc import Callable

import jax

Axes = tuple[str | None, ...]  # a logical name for each dimension, such as "batch" or "heads"; see training/sharding.py

Constrain = Callable[[jax.Array, Axes], jax.Array]
ShardMap = Callable[[Callable, tuple[Axes, ...], Axes], Callable]
WholeMatrices = Callable[[Callable[[jax.Array], jax.Array], jax.Array], jax.Array]


def unconstrained(x: jax.Array, axes: Axes) -> jax.Array:
    """Returns x unchanged: the Constrain of one device."""
    del axes
    return x


def unmapped(function: Callable, inputs: tuple[Axes, ...], output: Axes) -> Callable:
    """Returns the function unchanged: the ShardMap of one device."""
    del inputs, output
    return function


def all_matrices(function: Callable[[jax.Array], jax.Array], matrices: jax.Array) -> jax.Array:
    """Returns function(matrices): the WholeMatrices of one device."""
    return function(matrices)


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a model runs on a mesh; the default is for one device."""

    constrain: Constrain = unconstrained  # lays out an activation over the mesh, by the names of its dimensions
    shard_map: ShardMap = unmapped  # runs a function on each device's shards, by the names of its inputs and output
    # Applies a function to matrices [n, D, other], laid out as kernels are, each device to some of them, whole.
    whole_matrices: WholeMatrices = all_matrices
    vocab_multiple: int = 1  # V is padded to a multiple of this in the vocabulary projection
    interpret: bool = False  # whether Pallas kernels are interpreted, which a CPU requires


ONE_DEVICE = Layout()


def param_path(path) -> str:
    """Returns a pytree path as "a/b/c"."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)

"""The device mesh, and what lies where on it. The only file that names mesh axes.

Parameters are laid out by rules from a regular expression over their path to a PartitionSpec; each parameter must match exactly one rule.
Activations are constrained by their dimension letters. Everything else is left to the compiler's propagation (Auto axes).
"""

import math
import re
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P

from spanbert_jax.errors import InputError

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")

# Path of a parameter (whole) -> its layout. Leading None of layers/...: the stack of layers.
RULES = (
    (r"encoder/embeddings/word", P("tensor", "fsdp")),                            # [V, D]
    (r"encoder/embeddings/(position|token_type)", P(None, "fsdp")),               # [P, D]
    (r"encoder/layers/attention/(query|key|value)/kernel", P(None, "fsdp", "tensor", None)),  # [layers, D, H, K]
    (r"encoder/layers/attention/(query|key|value)/bias", P(None, "tensor", None)),            # [layers, H, K]
    (r"encoder/layers/attention/output/kernel", P(None, "tensor", None, "fsdp")),             # [layers, H, K, D]
    (r"encoder/layers/mlp/hidden/kernel", P(None, "fsdp", "tensor")),             # [layers, D, F]
    (r"encoder/layers/mlp/hidden/bias", P(None, "tensor")),                       # [layers, F]
    (r"encoder/layers/mlp/output/kernel", P(None, "tensor", "fsdp")),             # [layers, F, D]
    (r"encoder/layers/(attention|mlp)/output/bias", P()),                         # [layers, D]
    (r"(encoder/embeddings/norm|encoder/layers/(attention|mlp)/norm|mlm/norm|sbo/norm[12])/(scale|bias)", P()),
    (r"(mlm/transform|sbo/linear[12]|nsp/pooler)/kernel", P(None, "fsdp")),       # [D or 2D + P, D]
    (r"(mlm/transform|sbo/linear[12]|nsp/pooler)/bias", P()),                     # [D]
    (r"sbo/positions", P()),                                                      # [T, P]
    (r"nsp/output/kernel|nsp/output/bias", P()),                                  # [D, 2], [2]
    (r"(mlm|sbo)/bias", P("tensor")),                                             # [V]
)

LETTERS = {"B": BATCH_AXES, "H": "tensor", "F": "tensor", "V": "tensor"}  # other letters: not sharded


def mesh_shape(mesh_config, devices: int) -> tuple[int, ...]:
    """Sizes of AXES for so many devices; one of them may be -1, all that is left.

    Raises:
      InputError: sizes that do not multiply to the number of devices.
    """
    shape = [mesh_config[axis] for axis in AXES]
    said = " x ".join(f"{axis}={size}" for axis, size in zip(AXES, shape))
    if any(size == 0 or size < -1 for size in shape) or shape.count(-1) > 1:
        raise InputError(f"mesh {said}: sizes must be positive, and one at most -1")
    if -1 in shape:
        shape[shape.index(-1)] = max(1, devices // -math.prod(shape))
    if math.prod(shape) != devices:
        raise InputError(f"mesh {said} is for {math.prod(shape)} devices, but there are {devices}: "
                         "make their product the number of devices, or one of them -1")
    return tuple(shape)


def make_mesh(mesh_config, devices) -> Mesh:
    """The mesh over these devices, its axes Auto: the compiler propagates layouts from those given."""
    shape = mesh_shape(mesh_config, len(devices))
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def validate(config, mesh: Mesh, vocab_size: int) -> list[str]:
    """What of a config does not divide by the mesh, one line each."""
    size = dict(mesh.shape)
    rows = math.prod(size[axis] for axis in BATCH_AXES)
    micro = config.batch_size // config.accumulation
    demands = (
        (micro, rows, f"batch_size / accumulation = {config.batch_size} / {config.accumulation} = {micro} rows", "data x fsdp"),
        (config.eval.batch_size, rows, f"eval.batch_size {config.eval.batch_size}", "data x fsdp"),
        (config.model.width, size["fsdp"], f"model.width {config.model.width}", "fsdp"),
        (config.model.heads, size["tensor"], f"model.heads {config.model.heads}", "tensor"),
        (config.model.mlp_width, size["tensor"], f"model.mlp_width {config.model.mlp_width}", "tensor"),
        (vocab_size, size["tensor"], f"the vocabulary of {vocab_size} pieces", "tensor"),
    )
    return [f"{what} must be a multiple of mesh {axes} = {by}" for number, by, what, axes in demands if number % by]


def param_path(path) -> str:
    """A pytree path as "a/b/c"."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def spec_of(path: str) -> P:
    """The layout of the parameter at a path.

    Raises:
      ValueError: no rule or more than one matches; a new parameter needs its rule.
    """
    matches = [spec for pattern, spec in RULES if re.fullmatch(pattern, path)]
    if len(matches) != 1:
        raise ValueError(f"parameter {path} matches {len(matches)} sharding rules, must be 1: see RULES in training/sharding.py")
    return matches[0]


def state_shardings(mesh: Mesh, state) -> "jax.typing.ArrayLike":
    """NamedSharding of every leaf of a train state (or its shapes).

    Parameters follow RULES; optimiser moments, which repeat the parameters' tree, follow their parameter; scalars are replicated.
    """
    paths = {param_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(state.params)}

    def sharding(path, leaf):
        parts = param_path(path).split("/")
        tails = ("/".join(parts[start:]) for start in range(len(parts)))
        parameter = next((tail for tail in tails if tail in paths), None)
        if parameter is None and np.ndim(leaf) > 0:
            raise ValueError(f"state leaf {'/'.join(parts)} of shape {leaf.shape} is no parameter's: it has no layout")
        return NamedSharding(mesh, P() if parameter is None else spec_of(parameter))

    return jax.tree_util.tree_map_with_path(sharding, state)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Of every batch array: rows over data and fsdp."""
    return NamedSharding(mesh, P(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, P())


def put_batch(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """This process's rows [B / processes, ...] -> global arrays [B, ...]."""
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def constrain_on(mesh: Mesh) -> Callable[[jax.Array, str], jax.Array]:
    """The model's Constrain for a mesh: lays x out by its dimension letters, e.g. "BLHK"."""
    def constrain(x: jax.Array, letters: str) -> jax.Array:
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P(*(LETTERS.get(letter) for letter in letters))))
    return constrain

"""The device mesh, and what lies where on it. The only file that names mesh axes.

Parameters are laid out by rules from a regular expression over their path to a PartitionSpec; each parameter must match exactly one rule.
Activations are constrained by their dimension letters. Everything else is left to the compiler's propagation (Auto axes).
"""

import functools
import math
import re
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from spanbert_jax.errors import InputError

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")
TABLE_AXES = (
    "fsdp",
    "tensor",
)  # of the width of an embedding table, so that tables of any number of rows can be sharded

# Path of a parameter (whole) -> its layout. Leading None of layers/...: the stack of layers.
RULES = (
    (r"encoder/embeddings/(word|position|token_type)", P(None, TABLE_AXES)),  # [V, D], [P, D], [2, D]
    (r"encoder/layers/attention/(query|key|value)/kernel", P(None, "fsdp", "tensor", None)),  # [layers, D, H, K]
    (r"encoder/layers/attention/(query|key|value)/bias", P(None, "tensor", None)),  # [layers, H, K]
    (r"encoder/layers/attention/output/kernel", P(None, "tensor", None, "fsdp")),  # [layers, H, K, D]
    (r"encoder/layers/mlp/hidden/kernel", P(None, "fsdp", "tensor")),  # [layers, D, F]
    (r"encoder/layers/mlp/hidden/bias", P(None, "tensor")),  # [layers, F]
    (r"encoder/layers/mlp/output/kernel", P(None, "tensor", "fsdp")),  # [layers, F, D]
    (r"encoder/layers/(attention|mlp)/output/bias", P()),  # [layers, D]
    (r"(encoder/embeddings/norm|encoder/layers/(attention|mlp)/norm|mlm/norm|sbo/norm[12])/(scale|bias)", P()),
    (r"(mlm/transform|sbo/linear[12]|nsp/pooler)/kernel", P(None, "fsdp")),  # [D or 2D + P, D]
    (r"(mlm/transform|sbo/linear[12]|nsp/pooler)/bias", P()),  # [D]
    (r"sbo/positions", P()),  # [T, P]
    (r"nsp/output/kernel|nsp/output/bias", P()),  # [D, 2], [2]
    (r"(mlm|sbo)/bias", P()),  # [V]
)

# Dimension letter -> axes; other letters: not sharded. "bLt" is an embedding as it comes out of its table, "Vd" that table laid out like a
# kernel, for the vocabulary projection.
LETTERS = {"B": BATCH_AXES, "H": "tensor", "F": "tensor", "V": "tensor", "b": "data", "t": TABLE_AXES, "d": "fsdp"}

MAX_REPLICATED = 0.02  # share of the parameters' bytes that may lie on every device of a mesh that shards them ...
NEGLIGIBLE = 1 << 20  # ... unless it is no more than so many bytes: biases weigh something in a toy model only


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
        others = -math.prod(shape)
        if devices % others:
            raise InputError(
                f"mesh {said}: {devices} devices do not divide by {others}, the product of the sizes beside -1"
            )
        shape[shape.index(-1)] = devices // others
    if math.prod(shape) != devices:
        raise InputError(
            f"mesh {said} is for {math.prod(shape)} devices, but there are {devices}: "
            "make their product the number of devices, or one of them -1"
        )
    return tuple(shape)


def make_mesh(mesh_config, devices) -> Mesh:
    """The mesh over these devices, its axes Auto: the compiler propagates layouts from those given.

    Of devices in several slices (mesh.slices) each slice is a mesh of its own, and the data axis runs through them one after the other:
    gradients alone cross the network between slices, once an update.

    Raises:
      InputError: sizes that do not fit the devices or their slices.
    """
    data, *inner = mesh_shape(mesh_config, len(devices))
    slices = slices_of(devices, mesh_config.slices)
    if data % len(slices):
        raise InputError(
            f"mesh data={data} must be a multiple of the {len(slices)} slices that the devices are in, which no other axis crosses; "
            "mesh.slices=1 takes them for one"
        )
    types = (AxisType.Auto,) * len(AXES)
    shape = (data // len(slices), *inner)
    parts = [mesh_utils.create_device_mesh(shape, part, allow_split_physical_axes=True) for part in slices]
    return Mesh(np.concatenate(parts), AXES, axis_types=types)


def slices_of(devices, number: int) -> list[list]:
    """The devices by slice: by what they say of themselves, else (or where that is another number) in equal parts in their order.

    number: of slices, mesh.slices; 0: as many as the devices say.
    """
    told = {}
    for device in devices:
        told.setdefault(getattr(device, "slice_index", 0) or 0, []).append(device)
    if number in (0, len(told)):
        return [told[index] for index in sorted(told)]
    if number < 0 or len(devices) % number:
        raise InputError(f"mesh.slices {number} does not divide the {len(devices)} devices")
    size = len(devices) // number
    return [list(devices[start : start + size]) for start in range(0, len(devices), size)]


def validate(config, size: Mapping[str, int]) -> list[str]:
    """What of a config does not divide by a mesh of these sizes (Mesh.shape), one line each."""
    rows, table = (math.prod(size[axis] for axis in axes) for axes in (BATCH_AXES, TABLE_AXES))
    micro = config.batch_size // config.accumulation
    demands = (
        (
            micro,
            rows,
            f"batch_size / accumulation = {config.batch_size} / {config.accumulation} = {micro} rows",
            "data x fsdp",
        ),
        (config.eval.batch_size, rows, f"eval.batch_size {config.eval.batch_size}", "data x fsdp"),
        (config.model.width, table, f"model.width {config.model.width}", "fsdp x tensor"),
        (config.model.heads, size["tensor"], f"model.heads {config.model.heads}", "tensor"),
        (config.model.mlp_width, size["tensor"], f"model.mlp_width {config.model.mlp_width}", "tensor"),
    )
    return [f"{what} must be a multiple of mesh {axes} = {by}" for number, by, what, axes in demands if number % by]


def check_sharded(mesh: Mesh, params) -> None:
    """Raises InputError when a mesh that is to shard the parameters leaves more than MAX_REPLICATED of their bytes on every device.

    Which is what happens when RULES lay a new, large parameter out nowhere.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    size = {param_path(path): math.prod(leaf.shape) * leaf.dtype.itemsize for path, leaf in leaves}
    whole = {path: size[path] for path in size if not any(spec_of(path))}
    share = sum(whole.values()) / sum(size.values())
    if mesh.shape["fsdp"] > 1 and share > MAX_REPLICATED and sum(whole.values()) > NEGLIGIBLE:
        raise InputError(
            f"mesh fsdp={mesh.shape['fsdp']} would leave {share:.1%} of the parameters' bytes on every device, more than "
            f"{MAX_REPLICATED:.0%}; the largest is {max(whole, key=whole.get)}: give it a layout in training/sharding.py"
        )


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
        raise ValueError(
            f"parameter {path} matches {len(matches)} sharding rules, must be 1: see RULES in training/sharding.py"
        )
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


@functools.lru_cache
def rows_here(mesh: Mesh, total: int) -> np.ndarray:
    """Which of a global batch's rows this process's devices hold, in order: int64 [n]. With a tensor axis several processes may hold a row."""
    indices = batch_sharding(mesh).addressable_devices_indices_map((total,)).values()
    return np.unique(np.concatenate([np.arange(total)[index] for index in indices]))


def put_batch(mesh: Mesh, batch: dict[str, np.ndarray], total: int | None = None) -> dict[str, jax.Array]:
    """Arrays [n, ...] of the rows that rows_here(mesh, total) names -> global arrays [total, ...]; total None: they are all rows."""
    total = len(batch["tokens"]) if total is None else total
    sharding, rows = batch_sharding(mesh), rows_here(mesh, total)
    if len(rows) == total:
        return jax.device_put(batch, sharding)
    devices, indices = zip(*sharding.addressable_devices_indices_map((total,)).items())
    places = [
        np.searchsorted(rows, np.arange(total)[index]) for (index,) in indices
    ]  # of each device's rows among those here

    def globally(array: np.ndarray) -> jax.Array:
        parts = jax.device_put([array[place] for place in places], list(devices))
        return jax.make_array_from_single_device_arrays((total, *array.shape[1:]), sharding, parts)

    return {name: globally(array) for name, array in batch.items()}


def constrain_on(mesh: Mesh) -> Callable[[jax.Array, str], jax.Array]:
    """The model's Constrain for a mesh: lays x out by its dimension letters, e.g. "BLHK"."""

    def constrain(x: jax.Array, letters: str) -> jax.Array:
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, _by_letters(letters)))

    return constrain


def constrain_like(shardings) -> Callable:
    """A function that lays a tree out as `shardings`, a tree of NamedSharding, says."""
    return lambda tree: jax.lax.with_sharding_constraint(tree, shardings)


def shard_map_on(mesh: Mesh) -> Callable:
    """The model's ShardMap for a mesh: (fn, letters of each input, letters of the output) -> fn of whole arrays, run on each device's part."""

    def mapped(fn: Callable, inputs: tuple[str, ...], output: str) -> Callable:
        return jax.shard_map(
            fn, mesh=mesh, in_specs=tuple(map(_by_letters, inputs)), out_specs=_by_letters(output), check_vma=False
        )

    return mapped


def vocab_multiple(mesh: Mesh) -> int:
    """What V must be rounded up to, to be split in the vocabulary projection."""
    return mesh.shape[LETTERS["V"]]


def _by_letters(letters: str) -> P:
    return P(*(LETTERS.get(letter) for letter in letters))


def highest_on(mesh: Mesh) -> Callable[[int], jax.Array]:
    """A function of each process's number -> the highest of all processes' numbers, on every device. It does not wait for the result."""
    everywhere = NamedSharding(mesh, P(AXES))
    highest = jax.jit(jnp.max, out_shardings=replicated(mesh))

    def of(number: int) -> jax.Array:
        return highest(
            jax.make_array_from_callback((mesh.size,), everywhere, lambda index: np.full(1, number, np.int32))
        )

    return of

"""The device mesh, and the layout of parameters, state and activations on it. The only file that names mesh axes.

A model names the dimensions of its activations, and those of its parameters by regular expressions, exactly one of
which must match the path of each parameter. One table maps these names to mesh axes. The compiler propagates the
layouts to everything else (Auto axes).
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
from spanbert_jax.model.layout import Axes, Layout, param_path
from spanbert_jax.model.parts import Layouts

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")
TABLE_AXES = ("fsdp", "tensor")  # shard the width of embedding tables, since their number of rows may not divide

# Name of a dimension -> mesh axes; dimensions of other names are not sharded.
LOGICAL_AXES: dict[str | None, str | tuple[str, ...]] = {
    "batch": BATCH_AXES,
    "lookup_batch": "data",  # batch of an embedding right after the lookup, while its width is sharded as "table"
    "table": TABLE_AXES,
    "embed": "fsdp",  # D of kernels
    "heads": "tensor",
    "mlp": "tensor",
    "vocab": "tensor",
}

MAX_REPLICATED = 0.02  # largest share of the parameters' bytes that a mesh that shards them may replicate ...
NEGLIGIBLE = 1 << 20  # ... beyond this number of bytes: in tiny models, biases alone can exceed the share


def mesh_shape(mesh_config, devices: int) -> tuple[int, ...]:
    """Returns the sizes of AXES for a number of devices; one size in the config may be -1, for all remaining devices.

    Raises:
      InputError: the product of the sizes is not the number of devices.
    """
    shape = [mesh_config[axis] for axis in AXES]
    given = " x ".join(f"{axis}={size}" for axis, size in zip(AXES, shape))
    if any(size == 0 or size < -1 for size in shape) or shape.count(-1) > 1:
        raise InputError(f"mesh {given}: sizes must be positive, and one at most -1")
    if -1 in shape:
        others = -math.prod(shape)
        if devices % others:
            raise InputError(
                f"mesh {given}: {devices} devices do not divide by {others}, the product of the sizes beside -1"
            )
        shape[shape.index(-1)] = devices // others
    if math.prod(shape) != devices:
        raise InputError(
            f"mesh {given} is for {math.prod(shape)} devices, but there are {devices}: "
            "make their product the number of devices, or one of them -1"
        )
    return tuple(shape)


def make_mesh(mesh_config, devices) -> Mesh:
    """Returns the mesh over these devices, with Auto axes: the compiler propagates layouts from those given.

    If the devices are in several slices (mesh.slices), each slice is a mesh of its own, and the data axis is their
    concatenation: only gradients cross the network between slices, once per step.

    Raises:
      InputError: the sizes do not fit the devices or their slices.
    """
    data, *inner = mesh_shape(mesh_config, len(devices))
    slices = slices_of(devices, mesh_config.slices)
    if data % len(slices):
        raise InputError(
            f"mesh data={data} must be a multiple of the {len(slices)} slices that the devices are in, "
            "which no other axis crosses; mesh.slices=1 takes them for one"
        )
    types = (AxisType.Auto,) * len(AXES)
    shape = (data // len(slices), *inner)
    parts = [mesh_utils.create_device_mesh(shape, part, allow_split_physical_axes=True) for part in slices]
    return Mesh(np.concatenate(parts), AXES, axis_types=types)


def mesh_of(config, devices, problems: list[str], slices: int = 0) -> Mesh:
    """Returns the mesh of a config over these devices, if neither has problems.

    Args:
      config: the whole config.
      devices: real ones or those of a topology.
      problems: found in the config already.
      slices: number of slices of the devices, used if mesh.slices is 0; 0: as the devices report.

    Raises:
      InputError: lists all problems, one per line.
    """
    mesh_config = config.mesh.copy_and_resolve_references()
    mesh_config.slices = mesh_config.slices or slices
    mesh = None
    try:
        mesh = make_mesh(mesh_config, devices)
    except InputError as error:
        problems = problems + str(error).splitlines()
    if mesh is not None and config.accumulation >= 1:
        problems = problems + mesh_problems(config, mesh.shape)
    if problems or mesh is None:
        raise InputError("\n".join(problems))
    return mesh


def slices_of(devices, number: int) -> list[list]:
    """Returns the devices by slice.

    Args:
      devices: real ones or those of a topology.
      number: of slices, mesh.slices; 0: as the devices report. If it differs from what they report, the devices are
        divided evenly, in their order.

    Raises:
      InputError: the number of devices is not a multiple of `number`.
    """
    by_slice: dict[int, list] = {}
    for device in devices:
        by_slice.setdefault(getattr(device, "slice_index", 0) or 0, []).append(device)
    if number in (0, len(by_slice)):
        return [by_slice[index] for index in sorted(by_slice)]
    if number < 0 or len(devices) % number:
        raise InputError(f"mesh.slices {number} does not divide the {len(devices)} devices")
    size = len(devices) // number
    return [list(devices[start : start + size]) for start in range(0, len(devices), size)]


def mesh_problems(config, size: Mapping[str, int]) -> list[str]:
    """Returns which sizes of a config a mesh of these sizes (Mesh.shape) does not divide, one line each."""
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


def check_sharded(mesh: Mesh, params, layouts: Layouts) -> None:
    """Checks that a mesh that shards the parameters replicates at most MAX_REPLICATED of their bytes.

    Raises:
      InputError: it replicates more, which happens if a new, large parameter has no sharded layout.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    size = {param_path(path): math.prod(leaf.shape) * leaf.dtype.itemsize for path, leaf in leaves}
    whole = {path: size[path] for path in size if not any(spec_of(path, layouts))}
    share = sum(whole.values()) / sum(size.values())
    if mesh.shape["fsdp"] > 1 and share > MAX_REPLICATED and sum(whole.values()) > NEGLIGIBLE:
        largest = max(whole, key=lambda path: whole[path])
        raise InputError(
            f"mesh fsdp={mesh.shape['fsdp']} would leave {share:.1%} of the parameters' bytes on every device, "
            f"more than {MAX_REPLICATED:.0%}; "
            f"the largest is {largest}: give it a layout beside the module that makes it"
        )


def spec_of(path: str, layouts: Layouts) -> P:
    """Returns the layout of the parameter at a path.

    Raises:
      ValueError: not exactly one layout matches; a new parameter needs one.
    """
    matches = [axes for pattern, axes in layouts if re.fullmatch(pattern, path)]
    if len(matches) != 1:
        raise ValueError(
            f"parameter {path} matches {len(matches)} layouts, must match 1: "
            "see the layouts of the part or objective that makes it"
        )
    return _spec(matches[0])


def state_shardings(mesh: Mesh, state, layouts: Layouts):
    """Returns the NamedSharding of every leaf of a train state (or of its shapes).

    Parameters follow the layouts. In an optimiser's state, a leaf at the path of a parameter follows that parameter: in
    all dimensions if it has the same shape (moments), in the remaining ones if it lacks one (factored moments).
    Everything else is replicated.
    """
    shapes = {param_path(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(state.params)}

    def sharding(path, leaf):
        keys = param_path(path).split("/")
        suffixes = ("/".join(keys[start:]) for start in range(len(keys)))
        parameter = next((suffix for suffix in suffixes if suffix in shapes), None)
        spec = P() if parameter is None else _spec_like(spec_of(parameter, layouts), shapes[parameter], np.shape(leaf))
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding, state)


def _spec_like(spec: P, shape: tuple[int, ...], other: tuple[int, ...]) -> P:
    """Returns the layout of an array of shape `other` that belongs to a parameter with `shape` and layout `spec`."""
    if other == shape:
        return spec
    axes = (*spec, *[None] * (len(shape) - len(spec)))
    for missing in range(len(shape)):
        if other == shape[:missing] + shape[missing + 1 :]:
            return P(*axes[:missing], *axes[missing + 1 :])
    return P()


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of every batch array: rows over data and fsdp."""
    return NamedSharding(mesh, P(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of arrays that are the same on every device."""
    return NamedSharding(mesh, P())


@functools.lru_cache
def rows_here(mesh: Mesh, total: int) -> np.ndarray:
    """Returns the numbers of the rows of a global batch that are on this process's devices, in order: int64 [n].

    With a tensor axis, several processes may have the same row.
    """
    indices = batch_sharding(mesh).addressable_devices_indices_map((total,)).values()
    return np.unique(np.concatenate([np.arange(total)[index] for index in indices]))


def put_batch(mesh: Mesh, batch: dict[str, np.ndarray], total: int | None = None) -> dict[str, jax.Array]:
    """Returns global arrays [total, ...] from the rows of this process.

    Args:
      mesh: of the run.
      batch: arrays [n, ...] of the rows that rows_here(mesh, total) names.
      total: rows of the global batch; None: `batch` has all of them.
    """
    total = len(batch["tokens"]) if total is None else total
    sharding, rows = batch_sharding(mesh), rows_here(mesh, total)
    if len(rows) == total:
        return jax.device_put(batch, sharding)
    devices, indices = zip(*sharding.addressable_devices_indices_map((total,)).items())
    rows_of_devices = [np.searchsorted(rows, np.arange(total)[index]) for (index,) in indices]  # as indices of `batch`

    def global_array(array: np.ndarray) -> jax.Array:
        shards = jax.device_put([array[of_device] for of_device in rows_of_devices], list(devices))
        return jax.make_array_from_single_device_arrays((total, *array.shape[1:]), sharding, shards)

    return {name: global_array(array) for name, array in batch.items()}


def constrain_like(shardings) -> Callable:
    """Returns a function that lays out a tree as `shardings`, a tree of NamedSharding."""
    return lambda tree: jax.lax.with_sharding_constraint(tree, shardings)


def layout_on(mesh: Mesh, interpret: bool) -> Layout:
    """Returns the Layout of a model on a mesh; interpret: whether to interpret Pallas kernels."""

    def constrain(x: jax.Array, axes: Axes) -> jax.Array:
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, _spec(axes)))

    def shard_map(function: Callable, inputs: tuple[Axes, ...], output: Axes) -> Callable:
        # The partitioner cannot see into kernels, so each device runs them on its own shards.
        in_specs = tuple(map(_spec, inputs))
        return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=_spec(output), check_vma=False)

    def whole_matrices(function: Callable, x: jax.Array) -> jax.Array:
        # One dimension at a time changes its axes, since that is an exchange between devices (all-to-all), not a copy
        # of everything to all of them.
        steps = [P(None, "fsdp", "tensor"), P("fsdp", None, "tensor"), P(("fsdp", "tensor")), P(AXES[1:] + AXES[:1])]
        shardings = [NamedSharding(mesh, step) for step in steps]
        number, padding = len(x), -len(x) % mesh.size
        x = jnp.pad(x, ((0, padding), (0, 0), (0, 0)))
        for sharding in shardings:
            x = jax.lax.with_sharding_constraint(x, sharding)
        x = function(x)
        for sharding in reversed(shardings):
            x = jax.lax.with_sharding_constraint(x, sharding)
        return x[:number]

    vocab_multiple = mesh.shape[LOGICAL_AXES["vocab"]]
    return Layout(constrain, shard_map, whole_matrices, vocab_multiple=vocab_multiple, interpret=interpret)


def _spec(axes: Axes) -> P:
    return P(*(LOGICAL_AXES.get(name) for name in axes))


def highest_on(mesh: Mesh) -> Callable[[int], jax.Array]:
    """Returns a function that takes a number from each process and returns the highest of them, on every device.

    The function does not wait for the result.
    """
    everywhere = NamedSharding(mesh, P(AXES))
    highest = jax.jit(jnp.max, out_shardings=replicated(mesh))

    def highest_of(number: int) -> jax.Array:
        numbers = jax.make_array_from_callback((mesh.size,), everywhere, lambda index: np.full(1, number, np.int32))
        return highest(numbers)

    return highest_of

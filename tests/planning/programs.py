"""Programs for the tests of costs: functions compiled for a mesh of eight devices, and modules made of HLO lines."""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

MESH = {"x": 2, "y": 2, "z": 2}


def make_mesh() -> jax.sharding.Mesh:
    """Returns the mesh of eight devices."""
    return jax.make_mesh(tuple(MESH.values()), tuple(MESH), axis_types=(AxisType.Auto,) * 3)


def compiled_text(function, *arguments) -> str:
    """Returns the program of a function of whole float32 arrays, each given as (shape, PartitionSpec)."""
    mesh = make_mesh()
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec)) for shape, spec in arguments]
    return jax.jit(function, out_shardings=NamedSharding(mesh, P())).lower(*shapes).compile().as_text()


def per_device(function, in_specs, out_specs):
    """Returns the function that runs on each device's shards, with explicit collectives."""
    return jax.shard_map(function, mesh=make_mesh(), in_specs=in_specs, out_specs=out_specs, check_vma=False)


def hlo_program(entry: str, others: str = "") -> str:
    """Returns a module whose entry consists of these instructions, the last of which is the root."""
    *lines, root = [line.strip() for line in entry.strip().splitlines()]
    body = "".join(f"  {line}\n" for line in [*lines, f"ROOT {root}"])
    return f"HloModule m\n{others}\nENTRY %main () -> f32[] {{\n{body}}}\n"

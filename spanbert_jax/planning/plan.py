"""A plan: the real train step of a config compiled for a topology that need not be here, and what it will cost there."""

import dataclasses
import math
import re
import time

import jax

from spanbert_jax.config import tokens_per_step
from spanbert_jax.data.batches import slots_of
from spanbert_jax.errors import DoesNotFit, InputError
from spanbert_jax.model.flops import kernel_flops
from spanbert_jax.planning.costs import Costs, analyse
from spanbert_jax.planning.roofline import Roofline, collective_seconds, roofline
from spanbert_jax.planning.topologies import Topology
from spanbert_jax.training.checks import checked_mesh
from spanbert_jax.training.compiled import peak_bytes
from spanbert_jax.training.program import Program, batch_shapes, build_program


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the compiler made of one config on one topology. Bytes and FLOPs of one device are those of each: all do the same."""

    config: object
    topology: Topology
    program: Program
    compile_seconds: float
    arguments_bytes: int  # train state and batch, on one device
    temporaries_bytes: int  # activations, gradients, buffers of collectives, on one device
    peak_bytes: int  # all that one device must hold, the program too
    costs: Costs
    roofline: Roofline

    @property
    def devices(self) -> int:
        """How many."""
        return len(self.topology.devices)

    @property
    def tokens_per_second(self) -> float:
        """Of all devices, padding included, at the bound."""
        return tokens_per_step(self.config) / self.roofline.bound_seconds

    @property
    def mfu(self) -> float:
        """Share of the devices' peak FLOP/s that the formula's FLOPs are, at the bound."""
        return self.program.flops_per_step / (
            self.roofline.bound_seconds * self.devices * self.topology.device.peak_flops
        )

    @property
    def run_seconds(self) -> float:
        """Of all updates, at the bound; evaluation and saving not counted."""
        return self.roofline.bound_seconds * self.config.total_steps


def make_plan(config, topology: Topology, vocab_size: int) -> Plan:
    """Compiles config's train step for the topology and reads off what it costs.

    Raises:
      DoesNotFit: it needs more memory than a device has.
      InputError: the config's problems, one a line.
    """
    mesh, slots = checked_mesh(config, topology.devices, topology.slices), slots_of(config)
    program = build_program(config, mesh, vocab_size, slots)
    began = time.perf_counter()
    try:
        lowered = program.train_step.lower(program.state, batch_shapes(config, mesh, slots, config.batch_size))
    except RuntimeError as error:
        if "cuDNN" not in str(error):
            raise
        raise InputError(
            "model.attention 'cudnn' cannot be planned without NVIDIA's library: pip install nvidia-cudnn-cu12 and put its nvidia/cudnn/lib "
            "on LD_LIBRARY_PATH, or plan with --config.model.attention=xla, which needs more memory"
        ) from None
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise unfit(topology, _used(str(error))) from None
    seconds = time.perf_counter() - began
    if peak_bytes(compiled) > topology.device.memory_bytes:
        raise unfit(topology, peak_bytes(compiled))
    sizes, costs = compiled.memory_analysis(), analyse(compiled.as_text(), dict(mesh.shape))
    costs = dataclasses.replace(
        costs, flops=costs.flops + kernel_flops(program.spec, config.batch_size, config.seq_len) // mesh.size
    )
    return Plan(
        config,
        topology,
        program,
        seconds,
        sizes.argument_size_in_bytes,
        sizes.temp_size_in_bytes,
        peak_bytes(compiled),
        costs,
        roofline(costs, topology, mesh),
    )


def unfit(topology: Topology, needed: int | None) -> DoesNotFit:
    """What to raise of a step that does not fit; needed: bytes, None if the compiler did not say."""
    what = f"{needed / 2**30:.2f} GiB" if needed else "more"
    return DoesNotFit(
        f"the step does not fit {topology.name}: it needs {what} on a device that has {topology.device.memory_bytes / 2**30:.2f} GiB; "
        "raise accumulation or the mesh's shards, give model.remat=full, or let --search look for what fits",
        needed,
    )


def _used(message: str) -> int | None:
    """Bytes of "Used 18.66G of 15.75G hbm" or "required for HLO temporaries (29.30G) exceeds" in a compiler's message."""
    match = re.search(r"(?:[Uu]sed |temporaries \()(\d+(?:\.\d+)?)([KMG])", message)
    return round(float(match[1]) * {"K": 2**10, "M": 2**20, "G": 2**30}[match[2]]) if match else None


def collectives_by_kind(plan: Plan) -> list[dict]:
    """Sums of the collectives of one step on one device, by kind and axes, longest first: kind, axes, dtypes, count, bytes, seconds."""
    sums: dict[tuple, dict] = {}
    for collective in plan.costs.collectives:
        row = sums.setdefault(
            (collective.kind, collective.axes),
            dict(kind=collective.kind, axes=list(collective.axes), dtypes=set(), count=0, bytes=0, seconds=0.0),
        )
        row["dtypes"].add(collective.dtype)
        row["count"] += collective.count
        row["bytes"] += collective.bytes * collective.count
        row["seconds"] += sum(collective_seconds(collective, plan.topology, plan.program.mesh))
    rows = sorted(sums.values(), key=lambda row: -row["seconds"])
    return [row | {"dtypes": sorted(row["dtypes"])} for row in rows]


def parameters_by_sharding(plan: Plan) -> list[dict]:
    """Sums of the parameters by layout: layout, number, bytes, bytes_per_device."""
    sums: dict[str, dict] = {}
    for leaf in jax.tree.leaves(plan.program.state.params):
        layout = (
            ", ".join("+".join(axis) if isinstance(axis, tuple) else str(axis) for axis in leaf.sharding.spec)
            or "replicated"
        )
        row = sums.setdefault(layout, dict(layout=layout, parameters=0, bytes=0, bytes_per_device=0))
        row["parameters"] += math.prod(leaf.shape)
        row["bytes"] += math.prod(leaf.shape) * leaf.dtype.itemsize
        row["bytes_per_device"] += math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    return sorted(sums.values(), key=lambda row: -row["bytes"])

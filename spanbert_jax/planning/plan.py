"""A plan: the train step of a config compiled for a topology that need not be present, and what a step costs there."""

import dataclasses
import math
import re
import time

import jax
from ml_collections import ConfigDict

from spanbert_jax.config import tokens_per_step
from spanbert_jax.errors import DoesNotFit, InputError
from spanbert_jax.model.flops import kernel_flops
from spanbert_jax.phases import Phase, phases_of
from spanbert_jax.planning.costs import Costs, analyse, is_optimizer
from spanbert_jax.planning.roofline import Roofline, collective_seconds, roofline
from spanbert_jax.planning.topologies import Topology
from spanbert_jax.training.pretraining import checked_mesh, pretraining_program
from spanbert_jax.training.program import Program, peak_bytes


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the compiler reports of one config on one topology. All devices need the same bytes and FLOPs."""

    config: ConfigDict
    steps: int  # of the run, or of one phase of it
    topology: Topology
    program: Program
    compile_seconds: float
    arguments_bytes: int  # train state and batch, on one device
    temporaries_bytes: int  # activations, gradients, buffers of collectives, on one device
    peak_bytes: int  # the largest memory use of one device, including the program
    costs: Costs
    roofline: Roofline

    @property
    def devices(self) -> int:
        """The number of devices."""
        return len(self.topology.devices)

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second of all devices at the bound, padding included."""
        return tokens_per_step(self.config) / self.roofline.bound_seconds

    @property
    def mfu(self) -> float:
        """Model FLOPs utilisation at the bound: the FLOP/s by formula as a share of the peak of the devices."""
        peak = self.devices * self.topology.device.peak_flops
        assert self.program.flops_per_step is not None
        return self.program.flops_per_step / (self.roofline.bound_seconds * peak)

    @property
    def run_seconds(self) -> float:
        """Seconds of all train steps at the bound, without evaluation and saving."""
        return self.roofline.bound_seconds * self.steps


def plans_of_phases(config, topology: Topology, vocab_size: int) -> list[tuple[Phase, Plan]]:
    """Returns the plan of each phase of a config; see make_plan."""
    checked_mesh(config, topology.devices, topology.slices)  # names the problems of all phases
    return [
        (phase, make_plan(phase.config, topology, vocab_size, phase.last - phase.first)) for phase in phases_of(config)
    ]


def make_plan(config, topology: Topology, vocab_size: int, steps: int | None = None) -> Plan:
    """Compiles a config's train step for a topology and returns its costs.

    Args:
      config: of a run, or of a phase.
      topology: to compile for.
      vocab_size: of its vocabulary.
      steps: of the phase; None: of the whole run.

    Raises:
      DoesNotFit: the step needs more memory than a device has.
      InputError: lists the problems of the config, one per line.
    """
    mesh = checked_mesh(config, topology.devices, topology.slices)
    program = pretraining_program(config, mesh, vocab_size)
    began = time.perf_counter()
    try:
        lowered = program.train_step.lower(program.state, program.batch_shapes(config.batch_size)[0])
    except RuntimeError as error:
        if "cuDNN" not in str(error):
            raise
        raise InputError(
            "model.attention 'cudnn' cannot be planned without NVIDIA's library: "
            "pip install nvidia-cudnn-cu12 and put its nvidia/cudnn/lib on LD_LIBRARY_PATH, "
            "or plan with --config.model.attention=xla, which needs more memory"
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
        costs, flops=costs.flops + kernel_flops(program.trainable.spec, config.batch_size, config.seq_len) // mesh.size
    )
    return Plan(
        config,
        steps or config.total_steps,
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
    """Returns the error of a step that does not fit; needed: bytes, None if the compiler did not report them."""
    what = f"{needed / 2**30:.2f} GiB" if needed else "more"
    available = f"{topology.device.memory_bytes / 2**30:.2f} GiB"
    return DoesNotFit(
        f"the step does not fit {topology.name}: it needs {what} on a device that has {available}; "
        "raise accumulation or the mesh's shards, give model.remat=full, or let --search look for what fits",
        needed,
    )


def _used(message: str) -> int | None:
    """Returns the bytes that a compiler's message names, None if it names none.

    Such messages contain "Used 18.66G of 15.75G hbm" or "required for HLO temporaries (29.30G) exceeds".
    """
    match = re.search(r"(?:[Uu]sed |temporaries \()(\d+(?:\.\d+)?)([KMG])", message)
    return round(float(match[1]) * {"K": 2**10, "M": 2**20, "G": 2**30}[match[2]]) if match else None


def collectives_by_kind(plan: Plan) -> list[dict]:
    """Returns the sums of the collectives of one step on one device, by kind, axes and part, longest first.

    Each has "kind", "axes", "part" ("model" or "optimizer"), "dtypes", "count", "bytes" and "seconds".
    """
    sums: dict[tuple, dict] = {}
    for collective in plan.costs.collectives:
        part = "optimizer" if is_optimizer(collective.source) else "model"
        key = dict(kind=collective.kind, axes=list(collective.axes), part=part)
        row = sums.setdefault(
            (collective.kind, collective.axes, part), key | dict(dtypes=set(), count=0, bytes=0, seconds=0.0)
        )
        row["dtypes"].add(collective.dtype)
        row["count"] += collective.count
        row["bytes"] += collective.bytes * collective.count
        row["seconds"] += sum(collective_seconds(collective, plan.topology, plan.program.mesh))
    rows = sorted(sums.values(), key=lambda row: -row["seconds"])
    return [row | {"dtypes": sorted(row["dtypes"])} for row in rows]


def parameters_by_sharding(plan: Plan) -> list[dict]:
    """Returns the sums of the parameters by layout, most bytes first.

    Each has "layout", "parameters" (their number), "bytes" and "bytes_per_device".
    """
    sums: dict[str, dict] = {}
    for leaf in jax.tree.leaves(plan.program.state.params):
        axes = ["+".join(axis) if isinstance(axis, tuple) else str(axis) for axis in leaf.sharding.spec]
        layout = ", ".join(axes) or "replicated"
        row = sums.setdefault(layout, dict(layout=layout, parameters=0, bytes=0, bytes_per_device=0))
        row["parameters"] += math.prod(leaf.shape)
        row["bytes"] += math.prod(leaf.shape) * leaf.dtype.itemsize
        row["bytes_per_device"] += math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    return sorted(sums.values(), key=lambda row: -row["bytes"])

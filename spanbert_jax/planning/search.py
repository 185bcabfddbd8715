"""The fastest plan that fits: meshes, microbatches and remat policies tried in the order of how fast they could be at the best.

Branch and bound: what a candidate cannot beat (its products at peak speed) and cannot fit below (its train state and the activations it must
keep) is known by formula; the compiler is asked only while a candidate could still beat the best plan found.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator

import jax

from spanbert_jax.data.batches import slots_of
from spanbert_jax.errors import DoesNotFit, InputError
from spanbert_jax.model.flops import remat_flops, train_flops
from spanbert_jax.model.flash import platform_of
from spanbert_jax.model.spec import ModelSpec, model_spec
from spanbert_jax.planning.plan import Plan, make_plan
from spanbert_jax.planning.topologies import Topology
from spanbert_jax.training import sharding
from spanbert_jax.training.checks import problems_of
from spanbert_jax.training.program import state_shapes

REMATS = ("none", "dots", "full")


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One way to run a config."""

    least_seconds: float      # nothing is faster: its products at the devices' peak, its state read and written once
    shape: tuple[int, ...]    # of the mesh
    accumulation: int
    remat: str

    def flags(self) -> str:
        """For the command line."""
        sizes = " ".join(f"--config.mesh.{axis}={size}" for axis, size in zip(sharding.AXES, self.shape))
        return f"{sizes} --config.accumulation={self.accumulation} --config.model.remat={self.remat}"


def candidates(config, topology: Topology, vocab_size: int) -> list[Candidate]:
    """Every mesh, accumulation and remat policy that divides the config and whose least memory fits a device.

    In the order to try them: the fastest at the best first, of equal ones that with the fewest microbatches, then with the fewest shards.
    """
    device, devices = topology.device, len(topology.devices)
    spec = model_spec(config, vocab_size, platform_of(topology.devices[0]))
    flops = train_flops(spec, config.batch_size, config.seq_len, slots_of(config))
    state = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state_shapes(config, spec)))
    found = []
    for shape, accumulation in itertools.product(meshes(devices), divisors(config.batch_size)):
        tried = applied(config, shape, accumulation, config.model.remat)
        if shape[0] % topology.slices or sharding.validate(tried, dict(zip(sharding.AXES, shape))):
            continue
        rows = config.batch_size // accumulation // math.prod(shape[:-1])
        for remat in REMATS:
            of_remat = dataclasses.replace(spec, remat=remat)
            if state / math.prod(shape[1:]) + kept_bytes(of_remat, rows, config.seq_len, shape[-1]) <= device.memory_bytes:
                total = flops + remat_flops(of_remat, config.batch_size, config.seq_len)
                least = max(total / (devices * device.peak_flops), 2 * state / math.prod(shape[1:]) / device.memory_bandwidth)
                found.append(Candidate(least, shape, accumulation, remat))
    return sorted(found, key=lambda candidate: (candidate.least_seconds, candidate.accumulation, candidate.shape[::-1]))


def meshes(devices: int) -> Iterator[tuple[int, ...]]:
    """Every (data, shards, tensor) whose product is the number of devices."""
    for inner in divisors(devices):
        for last in divisors(inner):
            yield devices // inner, inner // last, last


def divisors(number: int) -> list[int]:
    """Of a number, ascending."""
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def kept_bytes(spec: ModelSpec, rows: int, seq_len: int, shards: int) -> int:
    """The least that the backward pass must find of the forward pass on one device, of so many rows: bytes.

    Under remat "full" each layer's input; "dots" also the results of its products but the scores; "none" the probabilities besides, unless a
    flash kernel makes them anew. shards: of heads and of the perceptron's width.
    """
    width, split = spec.width, (3 * spec.width + spec.mlp_width) / shards
    scores = spec.heads / shards * seq_len if spec.attention == "xla" else 0
    elements = {"full": width, "dots": 3 * width + split, "none": 3 * width + split + scores}[spec.remat]
    return int(spec.layers * rows * seq_len * elements * spec.dtype.itemsize)


def applied(config, shape: tuple[int, ...], accumulation: int, remat: str):
    """The config with this mesh, accumulation and remat policy."""
    config = config.copy_and_resolve_references()
    config.mesh.update(dict(zip(sharding.AXES, shape)))
    config.accumulation, config.model.remat = accumulation, remat
    return config.lock()


def search(config, topology: Topology, vocab_size: int, most: int, tell: Callable[[str], None]) -> Plan:
    """The fastest plan that fits, of at most `most` that are compiled; `tell` hears of each.

    Raises:
      DoesNotFit: none of them fits.
      InputError: the config's problems, one a line.
    """
    if problems := problems_of(config, topology.devices[0]):
        raise InputError("\n".join(problems))
    listed = candidates(config, topology, vocab_size)
    best, chosen, asked = None, None, 0
    for candidate in listed:
        if asked == most or best and candidate.least_seconds >= best.roofline.bound_seconds:
            break
        asked += 1
        try:
            plan = make_plan(applied(config, candidate.shape, candidate.accumulation, candidate.remat), topology, vocab_size)
        except DoesNotFit:
            tell(f"{asked}: {candidate.flags()}: does not fit")
            continue
        tell(f"{asked}: {candidate.flags()}: {plan.roofline.bound_seconds * 1e3:,.1f} ms a step, by {plan.roofline.bound_by}")
        if best is None or plan.roofline.bound_seconds < best.roofline.bound_seconds:
            best, chosen = plan, candidate
    if best is None:
        raise DoesNotFit(f"nothing tried fits {topology.name}: {len(listed)} ways might by formula, {asked} were compiled. Give more devices, a smaller "
                         "seq_len, or optimizer.state_dtype=bfloat16")
    tell(f"the best of {asked} compiled, of {len(listed)} ways that might fit: {chosen.flags()}")
    return best

"""Best-first search for the fastest plan that fits, over meshes, microbatches and remat policies.

A formula gives lower bounds of the memory and time of every candidate. The fastest one that may fit is compiled; the
result corrects the formula for all candidates of that remat policy. This is repeated while a candidate could still beat
the best plan found.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator

import jax

from spanbert_jax.errors import DoesNotFit, InputError
from spanbert_jax.model.flash import platform_of
from spanbert_jax.model.flops import BACKWARD, remat_flops
from spanbert_jax.model.layout import ONE_DEVICE
from spanbert_jax.model.spec import ModelSpec, model_spec
from spanbert_jax.planning.plan import Plan, make_plan
from spanbert_jax.planning.topologies import Topology
from spanbert_jax.training import sharding
from spanbert_jax.training.pretraining import all_problems, trainable
from spanbert_jax.training.program import state_shapes

REMATS = ("none", "dots", "full")


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A choice of mesh, microbatches and remat policy for a config. Bytes are those of one device."""

    shape: tuple[int, ...]  # of the mesh
    accumulation: int
    remat: str
    compute_seconds: float  # of its matrix products, at the peak of the devices
    state_bytes: float  # of the train state, which each step reads and writes
    gradient_bytes: float  # of the float32 gradients
    kept_bytes: int  # lower bound of what the backward pass of a microbatch needs from its forward pass

    def flags(self) -> str:
        """Returns the flags that choose this candidate on the command line."""
        sizes = " ".join(f"--config.mesh.{axis}={size}" for axis, size in zip(sharding.AXES, self.shape))
        return f"{sizes} --config.accumulation={self.accumulation} --config.model.remat={self.remat}"


class Outlook:
    """Predicts memory and time of candidates by formula, corrected by compiled plans of the same remat policy.

    Both factors are multiples of `kept_bytes`: `memory` is the memory besides state and gradients, `traffic` the memory
    traffic besides that of the state (at least 2: written once, read once). With the initial factors, memory and time
    are lower bounds.
    """

    def __init__(self, topology: Topology):
        self.device = topology.device
        self.memory, self.traffic = dict.fromkeys(REMATS, 1.0), dict.fromkeys(REMATS, 2.0)

    def fits(self, candidate: Candidate) -> bool:
        """Returns whether a candidate may fit a device."""
        kept = self.memory[candidate.remat] * candidate.kept_bytes
        return candidate.state_bytes + candidate.gradient_bytes + kept <= self.device.memory_bytes

    def seconds(self, candidate: Candidate) -> float:
        """Returns the seconds of one step, without collectives."""
        kept = self.traffic[candidate.remat] * candidate.kept_bytes * candidate.accumulation
        return max(candidate.compute_seconds, (2 * candidate.state_bytes + kept) / self.device.memory_bandwidth)

    def order(self, candidate: Candidate) -> tuple:
        """Returns a sorting key: fastest first, then fewest microbatches, then fewest shards."""
        return self.seconds(candidate), candidate.accumulation, candidate.shape[::-1]

    def learn_memory(self, candidate: Candidate, needed: int) -> None:
        """Corrects the memory factor by a candidate that needs at least `needed` bytes."""
        factor = (needed - candidate.state_bytes - candidate.gradient_bytes) / candidate.kept_bytes
        self.memory[candidate.remat] = max(self.memory[candidate.remat], factor)

    def learn(self, candidate: Candidate, plan: Plan) -> None:
        """Corrects both factors by the plan of a candidate."""
        self.learn_memory(candidate, plan.peak_bytes)
        kept = candidate.kept_bytes * candidate.accumulation
        factor = (plan.costs.bytes - 2 * candidate.state_bytes) / kept
        self.traffic[candidate.remat] = max(self.traffic[candidate.remat], factor)


def candidates(config, topology: Topology, vocab_size: int) -> list[Candidate]:
    """Returns every combination of mesh, accumulation and remat policy that the config allows."""
    devices = len(topology.devices)
    spec = model_spec(config, vocab_size, platform_of(topology.devices[0]))
    model = trainable(config, spec, ONE_DEVICE)
    flops = (1 + BACKWARD) * config.batch_size * model.flops
    shapes = state_shapes(config, model)
    state, parameters = (
        sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
        for tree in (shapes, shapes.params)
    )
    found = []
    for shape, accumulation in itertools.product(meshes(devices), divisors(config.batch_size)):
        tried = applied(config, shape, accumulation, config.model.remat)
        if shape[0] % topology.slices or sharding.mesh_problems(tried, dict(zip(sharding.AXES, shape))):
            continue
        rows, shards = config.batch_size // accumulation // math.prod(shape[:-1]), math.prod(shape[1:])
        for remat in REMATS:
            of_remat = dataclasses.replace(spec, remat=remat)
            total = flops + remat_flops(of_remat, config.batch_size, config.seq_len)
            found.append(
                Candidate(
                    shape,
                    accumulation,
                    remat,
                    total / (devices * topology.device.peak_flops),
                    state / shards,
                    parameters / shards,
                    kept_bytes(of_remat, rows, config.seq_len, shape[-1]),
                )
            )
    return found


def meshes(devices: int) -> Iterator[tuple[int, ...]]:
    """Yields every (data, shards, tensor) whose product is the number of devices."""
    for inner in divisors(devices):
        for last in divisors(inner):
            yield devices // inner, inner // last, last


def divisors(number: int) -> list[int]:
    """Returns the divisors of a number, ascending."""
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def kept_bytes(spec: ModelSpec, rows: int, seq_len: int, shards: int) -> int:
    """Returns a lower bound of the bytes that the backward pass needs from the forward pass on one device.

    With remat "full" that is the input of each layer; "dots" adds the results of its products except the scores; "none"
    adds the attention probabilities, unless a flash kernel recomputes them.

    Args:
      spec: of the model.
      rows: of one microbatch on the device.
      seq_len: L.
      shards: of the heads and of the feed-forward width.
    """
    width, split = spec.width, (3 * spec.width + spec.mlp_width) / shards
    scores = spec.heads / shards * seq_len if spec.attention == "xla" else 0
    elements = {"full": width, "dots": 3 * width + split, "none": 3 * width + split + scores}[spec.remat]
    return int(spec.layers * rows * seq_len * elements * spec.dtype.itemsize)


def applied(config, shape: tuple[int, ...], accumulation: int, remat: str):
    """Returns the config with this mesh, accumulation and remat policy."""
    config = config.copy_and_resolve_references()
    config.mesh.update(dict(zip(sharding.AXES, shape)))
    config.accumulation, config.model.remat = accumulation, remat
    return config.lock()


def search(config, topology: Topology, vocab_size: int, most: int, log: Callable[[str], None]) -> Plan:
    """Returns the fastest plan that fits, after compiling at most `most` candidates; `log` gets a line on each.

    Raises:
      DoesNotFit: none of them fits.
      InputError: lists the problems of the config, one per line.
    """
    if problems := all_problems(config, topology.devices[0]):
        raise InputError("\n".join(problems))
    left, outlook = candidates(config, topology, vocab_size), Outlook(topology)
    best: tuple[Plan, Candidate] | None = None
    total, compiled = len(left), 0
    while left := [candidate for candidate in left if outlook.fits(candidate)]:
        candidate = min(left, key=outlook.order)
        if compiled == most or (best and outlook.seconds(candidate) >= best[0].roofline.bound_seconds):
            break
        left.remove(candidate)
        compiled += 1
        changed = applied(config, candidate.shape, candidate.accumulation, candidate.remat)
        try:
            plan = make_plan(changed, topology, vocab_size)
        except DoesNotFit as error:
            outlook.learn_memory(candidate, error.needed_bytes or topology.device.memory_bytes)
            log(f"{compiled}: {candidate.flags()}: does not fit")
            continue
        outlook.learn(candidate, plan)
        milliseconds = f"{plan.roofline.bound_seconds * 1e3:,.1f} ms"
        log(f"{compiled}: {candidate.flags()}: {milliseconds} per step, bound by {plan.roofline.bound_by}")
        if best is None or plan.roofline.bound_seconds < best[0].roofline.bound_seconds:
            best = plan, candidate
    if best is None:
        advice = "more devices, a smaller seq_len, or optimizer.state_dtype=bfloat16"
        raise DoesNotFit(
            f"nothing tried fits {topology.name}: of {total} ways {compiled} were compiled, "
            f"{len(left)} more might fit. Give {'--most a larger number' if left else advice}"
        )
    plan, candidate = best
    log(f"the best of {compiled} compiled, of {total} ways: {candidate.flags()}")
    return plan

"""The fastest plan that fits: meshes, microbatches and remat policies tried in the order of how fast they promise to be.

Best first: of every way to run a config a formula tells the least memory and the least time. The compiler is asked for the fastest that may
fit; what it says corrects the formula for all of that remat policy; and so on while one could still beat the best plan found.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator

import jax

from spanbert_jax.data.batches import slots_of
from spanbert_jax.errors import DoesNotFit, InputError
from spanbert_jax.model.flash import platform_of
from spanbert_jax.model.flops import remat_flops, train_flops
from spanbert_jax.model.spec import ModelSpec, model_spec
from spanbert_jax.planning.plan import Plan, make_plan
from spanbert_jax.planning.topologies import Topology
from spanbert_jax.training import sharding
from spanbert_jax.training.checks import problems_of
from spanbert_jax.training.program import state_shapes

REMATS = ("none", "dots", "full")


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One way to run a config. Bytes are those of one device."""

    shape: tuple[int, ...]  # of the mesh
    accumulation: int
    remat: str
    compute_seconds: float  # of its products, at the devices' peak
    state_bytes: float  # train state: read and written in each step
    gradient_bytes: float  # float32, besides the state
    kept_bytes: int  # what the backward pass of a microbatch must find of its forward pass, at the least

    def flags(self) -> str:
        """For the command line."""
        sizes = " ".join(f"--config.mesh.{axis}={size}" for axis, size in zip(sharding.AXES, self.shape))
        return f"{sizes} --config.accumulation={self.accumulation} --config.model.remat={self.remat}"


class Outlook:
    """What candidates promise: their formulas, corrected by what compiled plans of the same remat policy needed.

    Both factors say how many times `kept_bytes` it is, of memory beside state and gradients, and of traffic beside that of the state (where 2
    is the least: written once, read once). With the factors at their start memory and time are lower bounds.
    """

    def __init__(self, topology: Topology):
        self.device = topology.device
        self.memory, self.traffic = dict.fromkeys(REMATS, 1.0), dict.fromkeys(REMATS, 2.0)

    def fits(self, one: Candidate) -> bool:
        """Whether it may fit a device."""
        return (
            one.state_bytes + one.gradient_bytes + self.memory[one.remat] * one.kept_bytes <= self.device.memory_bytes
        )

    def seconds(self, one: Candidate) -> float:
        """How long a step takes, collectives not counted."""
        traffic = 2 * one.state_bytes + self.traffic[one.remat] * one.kept_bytes * one.accumulation
        return max(one.compute_seconds, traffic / self.device.memory_bandwidth)

    def order(self, one: Candidate) -> tuple:
        """The fastest first, of equal ones that with the fewest microbatches, then with the fewest shards."""
        return self.seconds(one), one.accumulation, one.shape[::-1]

    def learn_memory(self, one: Candidate, needed: int) -> None:
        """From a candidate that needs so many bytes at the least."""
        factor = (needed - one.state_bytes - one.gradient_bytes) / one.kept_bytes
        self.memory[one.remat] = max(self.memory[one.remat], factor)

    def learn(self, one: Candidate, plan: Plan) -> None:
        """From a candidate's plan."""
        self.learn_memory(one, plan.peak_bytes)
        factor = (plan.costs.bytes - 2 * one.state_bytes) / (one.kept_bytes * one.accumulation)
        self.traffic[one.remat] = max(self.traffic[one.remat], factor)


def candidates(config, topology: Topology, vocab_size: int) -> list[Candidate]:
    """Every mesh, accumulation and remat policy that divides the config."""
    devices = len(topology.devices)
    spec = model_spec(config, vocab_size, platform_of(topology.devices[0]))
    flops = train_flops(spec, config.batch_size, config.seq_len, slots_of(config))
    shapes = state_shapes(config, spec)
    state, parameters = (
        sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
        for tree in (shapes, shapes.params)
    )
    found = []
    for shape, accumulation in itertools.product(meshes(devices), divisors(config.batch_size)):
        tried = applied(config, shape, accumulation, config.model.remat)
        if shape[0] % topology.slices or sharding.validate(tried, dict(zip(sharding.AXES, shape))):
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
    left, outlook = candidates(config, topology, vocab_size), Outlook(topology)
    ways, best, chosen, asked = len(left), None, None, 0
    while left := [candidate for candidate in left if outlook.fits(candidate)]:
        candidate = min(left, key=outlook.order)
        if asked == most or (best and outlook.seconds(candidate) >= best.roofline.bound_seconds):
            break
        left.remove(candidate)
        asked += 1
        try:
            plan = make_plan(
                applied(config, candidate.shape, candidate.accumulation, candidate.remat), topology, vocab_size
            )
        except DoesNotFit as error:
            outlook.learn_memory(candidate, error.needed_bytes or topology.device.memory_bytes)
            tell(f"{asked}: {candidate.flags()}: does not fit")
            continue
        outlook.learn(candidate, plan)
        tell(
            f"{asked}: {candidate.flags()}: {plan.roofline.bound_seconds * 1e3:,.1f} ms a step, by {plan.roofline.bound_by}"
        )
        if best is None or plan.roofline.bound_seconds < best.roofline.bound_seconds:
            best, chosen = plan, candidate
    if best is None:
        raise DoesNotFit(
            f"nothing tried fits {topology.name}: of {ways} ways {asked} were compiled, {len(left)} more might fit. Give "
            f"{'--most a larger number' if left else 'more devices, a smaller seq_len, or optimizer.state_dtype=bfloat16'}"
        )
    tell(f"the best of {asked} compiled, of {ways} ways: {chosen.flags()}")
    return best

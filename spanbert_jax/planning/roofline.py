"""How long a step must take at the least: the time of its products, of its memory traffic and of its collectives, each at the published speed.

Whatever overlaps, the longest of them is a bound. What a machine reaches is less than its data sheet says, and one measurement tells how much.
"""

import dataclasses

import numpy as np
from jax.sharding import Mesh

from spanbert_jax.planning.costs import SEND, Collective, Costs
from spanbert_jax.planning.topologies import Topology

PASSES = {
    "all-reduce": 2,
    SEND: 2,
}  # how often the payload goes round: a sum over all is a reduce-scatter and an all-gather


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds of one step."""

    compute_seconds: float
    memory_seconds: float
    interconnect_seconds: float  # within slices or nodes
    network_seconds: float  # between them

    @property
    def bound_seconds(self) -> float:
        """If all of it overlaps."""
        return max(dataclasses.astuple(self))

    @property
    def serial_seconds(self) -> float:
        """If none of it does."""
        return sum(dataclasses.astuple(self))

    @property
    def bound_by(self) -> str:
        """The longest: "compute", "memory", "interconnect" or "network"."""
        return max(dataclasses.asdict(self).items(), key=lambda pair: pair[1])[0].removesuffix("_seconds")


def roofline(costs: Costs, topology: Topology, mesh: Mesh) -> Roofline:
    """The bounds of a compiled step's costs on a topology that `mesh` lies over."""
    times = [collective_seconds(collective, topology, mesh) for collective in costs.collectives]
    return Roofline(
        costs.flops / topology.device.peak_flops,
        costs.bytes / topology.device.memory_bandwidth,
        sum(within for within, _ in times),
        sum(between for _, between in times),
    )


def collective_seconds(collective: Collective, topology: Topology, mesh: Mesh) -> tuple[float, float]:
    """(seconds within slices, seconds between slices) of all executions of a collective.

    A group of n devices moves (n - 1) / n of the payload through each device, twice for an all-reduce. Between m slices each device's share of
    the network carries (m - 1) / m of what it has of the payload once the other devices of its slice have theirs. GPUs' collectives do both;
    TPUs' stay within a slice (the group is as large as the axes' part in it), and what is sent to other slices is a kind of its own.
    """
    payload = collective.bytes * collective.count * PASSES.get(collective.kind, 1)
    if collective.kind == SEND:
        return 0.0, payload * (collective.group - 1) / collective.group / topology.device.network_bandwidth
    group = group_of(mesh, collective.axes)[: collective.group]  # the axis that crosses slices is the outermost
    slices = sorted({topology.slice_of(device) for device in group})
    here = [device for device in group if topology.slice_of(device) == slices[0]]
    within = payload * (len(here) - 1) / len(here) / bandwidth(here, topology)
    between = payload / len(here) * (len(slices) - 1) / len(slices) / topology.device.network_bandwidth
    return within, between


def group_of(mesh: Mesh, axes: tuple[str, ...]) -> list:
    """The devices of the first group of a collective over these axes."""
    first = tuple(slice(None) if axis in axes else 0 for axis in mesh.axis_names)
    return list(np.asarray(mesh.devices)[first].flat)


def bandwidth(group: list, topology: Topology) -> float:
    """Bytes/s into each device of a group within a slice.

    On a torus each dimension that the group stretches over brings its links: two where the group runs around a whole ring, else one, since
    what reaches the end of a line comes through one link. Without a torus it is the device's link.
    """
    link = topology.device.link_bandwidth
    if topology.torus is None or len(group) == 1:
        return link
    places = np.array([topology.coordinates(device) for device in group])
    sides = [len(set(column)) for column in places.T]
    rings = [side == whole and wraps for side, whole, wraps in zip(sides, topology.torus, topology.wraps)]
    return link * max(1, sum(2 if ring else 1 for side, ring in zip(sides, rings) if side > 1))

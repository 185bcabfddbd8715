"""Lower bounds of the time of a step: its matrix products, memory traffic and collectives, each at the published speed.

However much of it overlaps, a step takes at least as long as the longest of them. Machines do not reach the speeds of
their data sheets; one measurement shows by how much.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from spanbert_jax.planning.collectives import SEND, Collective
from spanbert_jax.planning.costs import Costs
from spanbert_jax.planning.topologies import Topology

# How often the payload is moved, 1 if not listed: a sum over devices is a reduce-scatter and an all-gather.
PASSES = {"all-reduce": 2, SEND: 2}


@dataclasses.dataclass(frozen=True)
class Roofline:
    """The components of one step's time, in seconds."""

    compute_seconds: float
    memory_seconds: float
    interconnect_seconds: float  # within slices or nodes
    network_seconds: float  # between slices or nodes

    @property
    def bound_seconds(self) -> float:
        """Time of the step if everything overlaps."""
        return max(dataclasses.astuple(self))

    @property
    def serial_seconds(self) -> float:
        """Time of the step if nothing overlaps."""
        return sum(dataclasses.astuple(self))

    @property
    def bound_by(self) -> str:
        """What takes longest: "compute", "memory", "interconnect" or "network"."""
        seconds = dataclasses.asdict(self)
        return max(seconds, key=lambda name: seconds[name]).removesuffix("_seconds")


def roofline(costs: Costs, topology: Topology, mesh: Mesh) -> Roofline:
    """Returns the lower bounds for a compiled step on a topology whose devices are arranged in `mesh`."""
    times = [collective_seconds(collective, topology, mesh) for collective in costs.collectives]
    return Roofline(
        compute_seconds=costs.flops / topology.device.peak_flops,
        memory_seconds=costs.bytes / topology.device.memory_bandwidth,
        interconnect_seconds=sum(within for within, _ in times),
        network_seconds=sum(between for _, between in times),
    )


def collective_seconds(collective: Collective, topology: Topology, mesh: Mesh) -> tuple[float, float]:
    """Returns the time of all executions of a collective: (seconds within slices, seconds between slices).

    A group of n devices moves (n - 1) / n of the payload through each device, twice for an all-reduce. Between m slices
    the network moves (m - 1) / m of the payload, of which each device of a slice carries an equal share. Collectives of
    GPUs do both. Those of TPUs stay within a slice (the group is only as large as the slice's share of the axes), and
    what is sent to other slices is a collective of kind SEND.
    """
    payload = collective.bytes * collective.count * PASSES.get(collective.kind, 1)
    if collective.kind == SEND:
        return 0.0, payload * (collective.group - 1) / collective.group / topology.device.network_bandwidth
    group = _first_group(mesh, collective.axes)[: collective.group]  # the axis that crosses slices is the outermost
    slices = sorted({topology.slice_of(device) for device in group})
    in_one_slice = [device for device in group if topology.slice_of(device) == slices[0]]
    members = len(in_one_slice)
    within = payload * (members - 1) / members / _link_bandwidth(in_one_slice, topology)
    between = payload / members * (len(slices) - 1) / len(slices) / topology.device.network_bandwidth
    return within, between


def _first_group(mesh: Mesh, axes: tuple[str, ...]) -> list[jax.Device]:
    """Returns the devices of the first group of a collective over these axes."""
    first = tuple(slice(None) if axis in axes else 0 for axis in mesh.axis_names)
    return list(np.asarray(mesh.devices)[first].flat)


def _link_bandwidth(group: Sequence[jax.Device], topology: Topology) -> float:
    """Returns the bytes/s into each device of a group within a slice.

    On a torus each dimension that the group extends over adds its links: two if the group fills a whole ring, else one,
    since the end of a line is reached by one link only. Without a torus it is the bandwidth of the device's link.
    """
    link = topology.device.link_bandwidth
    if topology.torus is None or topology.wraps is None or len(group) == 1:
        return link
    coordinates = np.array([topology.coordinates(device) for device in group])
    links = 0
    for column, side, wraps in zip(coordinates.T, topology.torus, topology.wraps):
        extent = len(set(column))
        if extent > 1:
            links += 2 if extent == side and wraps else 1
    return link * max(1, links)

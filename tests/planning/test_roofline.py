"""Bounds of small costs on machines with simple figures."""

import dataclasses

import jax
import pytest

from spanbert_jax.devices import Device
from spanbert_jax.planning.collectives import SEND, Collective
from spanbert_jax.planning.costs import Costs
from spanbert_jax.planning.roofline import Roofline, roofline
from spanbert_jax.planning.topologies import Topology
from spanbert_jax.training import sharding
from tests.small import small_config

CHIP = Device(
    name="chip",
    kinds=("chip",),
    peak_flops=100.0,
    memory_bytes=1000,
    memory_bandwidth=50.0,
    link_bandwidth=10.0,
    network_bandwidth=2.0,
    source="made up",
)


@dataclasses.dataclass(frozen=True)
class Machine(Topology):
    """Eight devices: 2 x 4 chips, or two nodes of four."""

    def coordinates(self, device):
        """Row and column."""
        return self.torus and (device.id % (len(self.devices) // self.slices) // 4, device.id % 4)


def bounds(costs: Costs, data: int, fsdp: int, slices=1, torus=(2, 4), wraps=(False, True)) -> Roofline:
    machine = Machine("made up", CHIP, tuple(jax.devices()), slices, torus, wraps)
    config = small_config(mesh__data=data, mesh__fsdp=fsdp, mesh__slices=slices)
    return roofline(costs, machine, sharding.make_mesh(config.mesh, machine.devices))


def seconds(kind: str, axes: tuple[str, ...], group: int, **machine) -> tuple[float, float]:
    """Returns the time of three executions with 800 bytes, within and between slices."""
    line = bounds(Costs(0, 0, (Collective(kind, axes, group, "f32", 800, 3, ""),)), **machine)
    return line.interconnect_seconds, line.network_seconds


def test_compute_and_memory():
    line = bounds(Costs(200, 300, ()), data=8, fsdp=1)
    assert (line.compute_seconds, line.memory_seconds) == (2.0, 6.0)
    assert (line.bound_seconds, line.bound_by, line.serial_seconds) == (6.0, "memory", 8.0)


def test_links_of_a_ring_of_a_line_and_of_both():
    mesh = dict(data=2, fsdp=4)
    ring = seconds("all-gather", ("fsdp",), 4, **mesh)
    assert ring == (pytest.approx(3 * 800 * 3 / 4 / 20), 0)  # two links of the ring of four
    line = seconds("all-gather", ("data",), 2, **mesh)
    assert line == (pytest.approx(3 * 800 * 1 / 2 / 10), 0)  # one link between two rows
    both = seconds("all-gather", ("data", "fsdp"), 8, **mesh)
    assert both == (pytest.approx(3 * 800 * 7 / 8 / 30), 0)  # all three
    assert seconds("all-reduce", ("fsdp",), 4, **mesh)[0] == pytest.approx(2 * ring[0])
    assert seconds("all-gather", ("fsdp",), 4, **mesh, wraps=(False, False))[0] == pytest.approx(2 * ring[0])


def test_devices_of_a_node_share_the_network():
    """Each device carries a quarter of what its node lacks, half the payload, over its share of the network."""
    nodes = dict(slices=2, torus=None, wraps=None)
    within, between = seconds("all-gather", ("data",), 8, data=8, fsdp=1, **nodes)
    assert within == pytest.approx(3 * 800 * 3 / 4 / 10)
    assert between == pytest.approx(3 * 800 / 4 / 2 / 2)


def test_what_a_slice_sends_uses_the_network_only():
    two_slices = dict(slices=2, torus=(1, 4), wraps=(False, False))
    within, between = seconds(SEND, ("data",), 2, data=2, fsdp=4, **two_slices)
    assert within == 0 and between == pytest.approx(3 * 2 * 800 / 2 / 2)

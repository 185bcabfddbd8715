"""Bounds of hand-made costs on hand-made machines."""

import dataclasses

import jax
import pytest

from spanbert_jax.devices import Device
from spanbert_jax.planning.costs import SEND, Collective, Costs
from spanbert_jax.planning.roofline import roofline
from spanbert_jax.planning.topologies import Topology
from spanbert_jax.training import sharding
from tests.small import small_config

CHIP = Device(
    "chip",
    ("chip",),
    peak_flops=100.0,
    memory_bytes=1000,
    memory_bandwidth=50.0,
    link_bandwidth=10.0,
    network_bandwidth=2.0,
    source="made up",
)


@dataclasses.dataclass(frozen=True)
class Machine(Topology):
    """Eight devices, 2 x 4 chips, or two nodes of four."""

    def coordinates(self, device):
        """Row and column."""
        return self.torus and (device.id % (len(self.devices) // self.slices) // 4, device.id % 4)


def seconds(collective, data, fsdp, slices=1, torus=(2, 4), wraps=(False, True)):
    machine = Machine("made up", CHIP, tuple(jax.devices()), slices, torus, wraps)
    mesh = sharding.make_mesh(small_config(mesh__data=data, mesh__fsdp=fsdp, mesh__slices=slices).mesh, machine.devices)
    line = roofline(Costs(0, 0, (Collective(*collective, "f32", 800, 3, ""),)), machine, mesh)
    return line.interconnect_seconds, line.network_seconds


def test_products_and_memory():
    machine = Machine("made up", CHIP, tuple(jax.devices()), 1, (2, 4), (False, True))
    mesh = sharding.make_mesh(small_config(mesh__data=8).mesh, machine.devices)
    line = roofline(Costs(200, 300, ()), machine, mesh)
    assert (line.compute_seconds, line.memory_seconds) == (2.0, 6.0) and (
        line.bound_seconds,
        line.bound_by,
        line.serial_seconds,
    ) == (6.0, "memory", 8.0)


def test_a_ring_a_line_and_both():
    ring, line, both = (
        ("all-gather", axes, size) for axes, size in ((("fsdp",), 4), (("data",), 2), (("data", "fsdp"), 8))
    )
    assert seconds(ring, 2, 4) == (pytest.approx(3 * 800 * 3 / 4 / 20), 0)  # two links of the ring of four
    assert seconds(line, 2, 4) == (pytest.approx(3 * 800 * 1 / 2 / 10), 0)  # one link between two rows
    assert seconds(both, 2, 4) == (pytest.approx(3 * 800 * 7 / 8 / 30), 0)  # all three
    assert seconds(("all-reduce", ("fsdp",), 4), 2, 4)[0] == pytest.approx(2 * seconds(ring, 2, 4)[0])
    assert seconds(ring, 2, 4, wraps=(False, False))[0] == pytest.approx(2 * seconds(ring, 2, 4)[0])


def test_nodes_share_the_network():
    """All-gather over two nodes of four: each device brings a quarter of what its node lacks, half the payload, over its own part of the network."""
    within, between = seconds(("all-gather", ("data",), 8), 8, 1, slices=2, torus=None, wraps=None)
    assert within == pytest.approx(3 * 800 * 3 / 4 / 10) and between == pytest.approx(3 * 800 / 4 / 2 / 2)


def test_what_a_slice_sends():
    assert seconds((SEND, ("data",), 2), 2, 4, slices=2, torus=(1, 4), wraps=(False, False)) == (
        0,
        pytest.approx(3 * 2 * 800 / 2 / 2),
    )

"""The table of devices: complete, consistent, and found from what jax calls a device."""

import types

import jax
import pytest

from spanbert_jax import devices
from spanbert_jax.devices import DEVICES, GIB, TABLE, cpu_device, device_of, measured_copy_bandwidth, peak_flops

PUBLISHED_GIB = {"v4": 32, "v5e": 16, "v5p": 96, "v6e": 32, "v100": 32, "a100": 80, "h100": 80}


def named(kind: str):
    return types.SimpleNamespace(device_kind=kind, platform="tpu" if "TPU" in kind else "gpu")


@pytest.mark.parametrize(
    "kind, name",
    [
        ("TPU v4", "v4"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5e", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v5p", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("TPU v6e", "v6e"),
        ("Tesla V100-SXM2-32GB", "v100"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("TPU v3", None),
        ("NVIDIA H100 PCIe", None),
        ("NVIDIA H200", None),
        ("cpu", None),
    ],
)
def test_a_device_is_told_by_its_kind(kind, name):
    found = device_of(named(kind))
    assert (found and found.name) == name
    assert peak_flops(named(kind)) == (found and found.peak_flops)


def test_table_is_complete():
    assert set(DEVICES) == set(PUBLISHED_GIB) and len(DEVICES) == len(TABLE)
    for device in TABLE:
        assert device.kinds and device.source
        assert device_of(named(device.kinds[0])) is device


@pytest.mark.parametrize("device", TABLE, ids=lambda device: device.name)
def test_figures_are_of_the_right_size(device):
    """A factor of 8 between bits and bytes, of 2 between both directions and one, or of 1024 would break one of these orders."""
    gpu = device.name in ("v100", "a100", "h100")
    share = device.memory_bytes / (PUBLISHED_GIB[device.name] * GIB)
    assert 0.7 < share < 0.75 if gpu else 0.95 < share < 1
    assert 100e12 <= device.peak_flops < 1e15
    assert 500e9 < device.memory_bandwidth < 5e12
    assert 100 < device.peak_flops / device.memory_bandwidth < 600  # FLOPs a byte
    assert device.memory_bandwidth / 30 < device.link_bandwidth < device.memory_bandwidth / 5
    assert 3e9 < device.network_bandwidth <= 50e9 and device.network_bandwidth < device.link_bandwidth


def test_cpu_devices_share_the_machine(monkeypatch):
    monkeypatch.setattr(devices, "measured_matmul_flops", lambda: 8e9)
    monkeypatch.setattr(devices, "measured_copy_bandwidth", lambda: 4e9)
    whole, share = cpu_device(1), cpu_device(4)
    assert (share.peak_flops, share.memory_bandwidth, share.link_bandwidth) == (2e9, 1e9, 1e9)
    assert share.memory_bytes == whole.memory_bytes // 4 > 0
    assert peak_flops(jax.devices()[0]) == 8e9 / jax.local_device_count()


def test_this_machine_is_measured():
    assert 1e8 < measured_copy_bandwidth() < 1e13
    assert 1e8 < devices.measured_matmul_flops() < 1e15

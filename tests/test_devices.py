"""The table of devices is complete and consistent, and its entries are found by jax's names of devices."""

import types

import jax
import pytest

from spanbert_jax import devices
from spanbert_jax.devices import DEVICES, GIB, TABLE, cpu_device, device_of, measured_copy_bandwidth, peak_flops

TPUS = {"v4": 32, "v5e": 16, "v5p": 96, "v6e": 32, "v7": 96}
GPUS = {"v100": 32, "a100": 80, "a100-pcie": 80, "a100-40": 40, "a100-40-pcie": 40, "h100": 80, "h100-pcie": 80}
GPUS |= {"h100-nvl": 94, "h200": 141, "h200-nvl": 141, "b200": 180, "t4": 16, "l4": 24, "l40": 48, "l40s": 48}
PUBLISHED_GIB = TPUS | GPUS


def device_of_kind(kind: str):
    """Returns a stand-in for a jax device of a kind."""
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
        ("TPU7x", "v7"),
        ("Tesla T4", "t4"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40", "l40"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA A100-SXM4-40GB", "a100-40"),
        ("NVIDIA A100-PCIE-40GB", "a100-40-pcie"),
        ("NVIDIA A100 80GB PCIe", "a100-pcie"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA H200 NVL", "h200-nvl"),
        ("NVIDIA B200", "b200"),
        ("NVIDIA GH200 480GB", None),
        ("cpu", None),
    ],
)
def test_device_is_found_by_its_kind(kind, name):
    found = device_of(device_of_kind(kind))
    assert (found and found.name) == name
    assert peak_flops(device_of_kind(kind)) == (found and found.peak_flops)


def test_table_is_complete():
    assert set(DEVICES) == set(PUBLISHED_GIB) and len(DEVICES) == len(TABLE)
    for device in TABLE:
        assert device.kinds and device.source
        assert device_of(device_of_kind(device.kinds[0])) is device


@pytest.mark.parametrize("device", TABLE, ids=lambda device: device.name)
def test_figures_have_the_right_magnitude(device):
    """Mistaking bits for bytes, both directions for one, or GB for MB would violate one of these bounds."""
    is_gpu = device.name in GPUS
    share = device.memory_bytes / (PUBLISHED_GIB[device.name] * GIB)
    assert 0.7 < share < 0.75 if is_gpu else 0.95 < share < 1
    assert 50e12 <= device.peak_flops < 3e15
    assert 250e9 < device.memory_bandwidth < 1e13
    assert 100 < device.peak_flops / device.memory_bandwidth < 600  # FLOPs per byte
    assert device.memory_bandwidth / 40 < device.link_bandwidth < device.memory_bandwidth / 5
    assert 3e9 < device.network_bandwidth <= 50e9 and device.network_bandwidth < device.link_bandwidth


def test_cpu_devices_share_the_machine(monkeypatch):
    monkeypatch.setattr(devices, "measured_matmul_flops", lambda: 8e9)
    monkeypatch.setattr(devices, "measured_copy_bandwidth", lambda: 4e9)
    whole, share = cpu_device(1), cpu_device(4)
    assert (share.peak_flops, share.memory_bandwidth, share.link_bandwidth) == (2e9, 1e9, 1e9)
    assert share.memory_bytes == whole.memory_bytes // 4 > 0
    assert peak_flops(jax.devices()[0]) is None  # measured, not published: MFU would depend on what else runs


def test_measured_figures_of_this_machine():
    assert 1e8 < measured_copy_bandwidth() < 1e13
    assert 1e8 < devices.measured_matmul_flops() < 1e15

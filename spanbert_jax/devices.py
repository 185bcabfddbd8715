"""Published figures of accelerators, and measured ones of this machine's CPU."""

import dataclasses
import os
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

GIB = 2**30

# The share of a GPU's memory that a process takes unless XLA_CLIENT_MEM_FRACTION is set (docs.jax.dev, "GPU memory
# allocation").
GPU_MEMORY_SHARE = 0.75

CLOUD = "Google Cloud TPU documentation"
BOOK = "How To Scale Your Model (jax-ml.github.io/scaling-book)"


@dataclasses.dataclass(frozen=True)
class Device:
    """What one JAX device can do: a TPU chip (both cores of v4 and v5p), a GPU, or a share of a host's cores."""

    name: str
    kinds: tuple[str, ...]  # substrings of jax.Device.device_kind that identify it; the longest match wins
    peak_flops: float  # FLOP/s of dense bfloat16 matrix products (V100: float16; CPU: float32)
    memory_bytes: int  # usable by a program, with jax's defaults
    memory_bandwidth: float  # bytes/s
    link_bandwidth: float  # bytes/s one way, of one link of a TPU's torus, or of all NVLinks of a GPU together
    network_bandwidth: float  # bytes/s one way, of one device's share of the network between slices or nodes
    source: str  # of the figures


# TPUs: the memory is what the compiler lets a program use, a little less than is published. The bandwidth of a link is
# the published sum over all ports and both directions, divided by these (v5e and v6e have 4 ports, v5p and v7 have 6).
# A chip of v7 is two devices. GPUs: NVLink (without it: PCIe) is published as the sum of both directions; of the memory
# the driver leaves a little less. Of cards that are sold without a host, the network is taken to be 100 Gbit/s for 4.
TABLE = (
    Device(
        name="v4",
        kinds=("TPU v4",),
        peak_flops=275e12,
        memory_bytes=int(30.75 * GIB),
        memory_bandwidth=1200e9,
        link_bandwidth=45e9,
        network_bandwidth=25e9 / 4,
        source=f"{CLOUD}, v4 (FLOPs, memory); {BOOK}, part 2 (links; 2.5e10 bytes/s per host of 4 chips)",
    ),
    Device(
        name="v5e",
        kinds=("TPU v5 lite", "TPU v5e"),
        peak_flops=197e12,
        memory_bytes=int(15.75 * GIB),
        memory_bandwidth=819e9,
        link_bandwidth=400e9 / 4 / 2,
        network_bandwidth=6.4e12 / 8 / 256,
        source=f"{CLOUD}, v5e (400 GB/s of links per chip, 6.4 Tbit/s of network per pod of 256)",
    ),
    Device(
        name="v5p",
        kinds=("TPU v5", "TPU v5p"),
        peak_flops=459e12,
        memory_bytes=int(95.74 * GIB),
        memory_bandwidth=2765e9,
        link_bandwidth=1200e9 / 6 / 2,
        network_bandwidth=50e9 / 8,
        source=f"{CLOUD}, v5p (1200 GB/s of links and 50 Gbit/s of network per chip)",
    ),
    Device(
        name="v6e",
        kinds=("TPU v6 lite", "TPU v6e"),
        peak_flops=918e12,
        memory_bytes=int(31.25 * GIB),
        memory_bandwidth=1638e9,
        link_bandwidth=800e9 / 4 / 2,
        network_bandwidth=25.6e12 / 8 / 256,
        source=f"{CLOUD}, v6e (800 GB/s of links per chip, 25.6 Tbit/s of network per pod of 256)",
    ),
    Device(
        name="v7",
        kinds=("TPU7x", "TPU v7"),
        peak_flops=2307e12 / 2,
        memory_bytes=int(94 * GIB),
        memory_bandwidth=7380e9 / 2,
        link_bandwidth=1200e9 / 6 / 2,
        network_bandwidth=100e9 / 8 / 2,
        source=f"{CLOUD}, TPU7x (192 GiB and 1200 GB/s of links per chip of two devices, 100 Gbit/s of network)",
    ),
    Device(
        name="v100",
        kinds=("V100",),
        peak_flops=125e12,
        memory_bytes=int(31 * GIB * GPU_MEMORY_SHARE),
        memory_bandwidth=900e9,
        link_bandwidth=300e9 / 2,
        network_bandwidth=400e9 / 8 / 8,
        source="NVIDIA V100 data sheet (SXM2, 32 GB; float16), DGX-1 data sheet (4 x 100 Gbit/s for 8 GPUs)",
    ),
    Device(
        name="a100",
        kinds=("A100-SXM4-80GB",),
        peak_flops=312e12,
        memory_bytes=int(79 * GIB * GPU_MEMORY_SHARE),
        memory_bandwidth=2039e9,
        link_bandwidth=600e9 / 2,
        network_bandwidth=200e9 / 8,
        source="NVIDIA A100 data sheet (SXM, 80 GB), DGX A100 data sheet (200 Gbit/s per GPU)",
    ),
    Device(
        name="h100",
        kinds=("H100 80GB HBM3", "H100 SXM"),
        peak_flops=989e12,
        memory_bytes=int(79 * GIB * GPU_MEMORY_SHARE),
        memory_bandwidth=3350e9,
        link_bandwidth=900e9 / 2,
        network_bandwidth=400e9 / 8,
        source="NVIDIA H100 data sheet (SXM, 80 GB, without sparsity), DGX H100 data sheet (400 Gbit/s per GPU)",
    ),
    Device(
        name="t4",
        kinds=("Tesla T4",),
        peak_flops=65e12,
        memory_bytes=int(15 * GIB * GPU_MEMORY_SHARE),
        memory_bandwidth=320e9,
        link_bandwidth=32e9 / 2,
        network_bandwidth=100e9 / 8 / 4,
        source="NVIDIA T4 data sheet (16 GB; float16; PCIe 3 x16)",
    ),
    Device(
        name="l4",
        kinds=("NVIDIA L4",),
        peak_flops=121e12,
        memory_bytes=int(22.5 * GIB * GPU_MEMORY_SHARE),
        memory_bandwidth=300e9,
        link_bandwidth=64e9 / 2,
        network_bandwidth=100e9 / 8 / 4,
        source="NVIDIA L4 data sheet (24 GB, without sparsity; PCIe 4 x16)",
    ),
    Device(
        name="l40",
        kinds=("NVIDIA L40",),
        peak_flops=181e12,
        memory_bytes=int(45 * GIB * GPU_MEMORY_SHARE),
        memory_bandwidth=864e9,
        link_bandwidth=64e9 / 2,
        network_bandwidth=100e9 / 8 / 4,
        source="NVIDIA L40 data sheet (48 GB, without sparsity; PCIe 4 x16)",
    ),
    Device(
        name="l40s",
        kinds=("NVIDIA L40S",),
        peak_flops=362e12,
        memory_bytes=int(45 * GIB * GPU_MEMORY_SHARE),
        memory_bandwidth=864e9,
        link_bandwidth=64e9 / 2,
        network_bandwidth=100e9 / 8 / 4,
        source="NVIDIA L40S data sheet (48 GB, without sparsity; PCIe 4 x16)",
    ),
    Device(
        name="a100-40",
        kinds=("A100-SXM4-40GB",),
        peak_flops=312e12,
        memory_bytes=int(39.5 * GIB * GPU_MEMORY_SHARE),
        memory_bandwidth=1555e9,
        link_bandwidth=600e9 / 2,
        network_bandwidth=200e9 / 8,
        source="NVIDIA A100 data sheet (SXM, 40 GB), DGX A100 data sheet (200 Gbit/s per GPU)",
    ),
    Device(
        name="a100-40-pcie",
        kinds=("A100-PCIE-40GB",),
        peak_flops=312e12,
        memory_bytes=int(39.5 * GIB * GPU_MEMORY_SHARE),
        memory_bandwidth=1555e9,
        link_bandwidth=600e9 / 2,
        network_bandwidth=100e9 / 8 / 4,
        source="NVIDIA A100 data sheet (PCIe, 40 GB; NVLink bridge)",
    ),
    Device(
        name="a100-pcie",
        kinds=("A100 80GB PCIe",),
        peak_flops=312e12,
        memory_bytes=int(79 * GIB * GPU_MEMORY_SHARE),
        memory_bandwidth=1935e9,
        link_bandwidth=600e9 / 2,
        network_bandwidth=100e9 / 8 / 4,
        source="NVIDIA A100 data sheet (PCIe, 80 GB; NVLink bridge)",
    ),
    Device(
        name="h100-pcie",
        kinds=("H100 PCIe",),
        peak_flops=756e12,
        memory_bytes=int(79 * GIB * GPU_MEMORY_SHARE),
        memory_bandwidth=2000e9,
        link_bandwidth=600e9 / 2,
        network_bandwidth=100e9 / 8 / 4,
        source="NVIDIA H100 data sheet (PCIe, 80 GB, without sparsity; NVLink bridge)",
    ),
    Device(
        name="h100-nvl",
        kinds=("H100 NVL",),
        peak_flops=835e12,
        memory_bytes=int(93.5 * GIB * GPU_MEMORY_SHARE),
        memory_bandwidth=3900e9,
        link_bandwidth=600e9 / 2,
        network_bandwidth=100e9 / 8 / 4,
        source="NVIDIA H100 data sheet (NVL, 94 GB, without sparsity; NVLink bridge)",
    ),
    Device(
        name="h200",
        kinds=("NVIDIA H200",),
        peak_flops=989e12,
        memory_bytes=int(139 * GIB * GPU_MEMORY_SHARE),
        memory_bandwidth=4800e9,
        link_bandwidth=900e9 / 2,
        network_bandwidth=400e9 / 8,
        source="NVIDIA H200 data sheet (SXM, 141 GB, without sparsity), DGX H200 data sheet (400 Gbit/s per GPU)",
    ),
    Device(
        name="h200-nvl",
        kinds=("NVIDIA H200 NVL",),
        peak_flops=835e12,
        memory_bytes=int(139 * GIB * GPU_MEMORY_SHARE),
        memory_bandwidth=4800e9,
        link_bandwidth=900e9 / 2,
        network_bandwidth=100e9 / 8 / 4,
        source="NVIDIA H200 data sheet (NVL, 141 GB, without sparsity; NVLink bridge)",
    ),
    Device(
        name="b200",
        kinds=("NVIDIA B200",),
        peak_flops=2250e12,
        memory_bytes=int(178 * GIB * GPU_MEMORY_SHARE),
        memory_bandwidth=8000e9,
        link_bandwidth=1800e9 / 2,
        network_bandwidth=400e9 / 8,
        source="NVIDIA DGX B200 data sheet (8 GPUs: 36 PFLOP/s of bfloat16 with sparsity, 64 TB/s, 14.4 TB/s NVLink)",
    ),
)
DEVICES = {device.name: device for device in TABLE}


def device_of(device: jax.Device) -> Device | None:
    """Returns the table's entry for a device, real or of a topology; None if it has none, as for a CPU."""
    matches = {kind: entry for entry in TABLE for kind in entry.kinds if kind in device.device_kind}
    return matches[max(matches, key=len)] if matches else None


def peak_flops(device: jax.Device) -> float | None:
    """Returns the published FLOP/s of one device; None for CPUs and others that the table does not have.

    A measured figure would not do: what other processes use meanwhile is missing in it.
    """
    entry = device_of(device)
    return entry.peak_flops if entry else None


def cpu_device(devices: int) -> Device:
    """Returns one of `devices` equal shares of this machine's processor, measured (a second).

    The shares communicate through the memory that they have in common.
    """
    bandwidth = measured_copy_bandwidth() / devices
    return Device(
        name="cpu",
        kinds=("cpu",),
        peak_flops=measured_matmul_flops() / devices,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // devices,
        memory_bandwidth=bandwidth,
        link_bandwidth=bandwidth,
        network_bandwidth=bandwidth,
        source="measured on this machine",
    )


def measured_matmul_flops() -> float:
    """Returns the host's best FLOP/s over four float32 products of two 2048 x 2048 matrices."""
    size = 2048
    return 2 * size**3 / _fastest_seconds(lambda x: x @ x, jnp.ones((size, size), jnp.float32))


def measured_copy_bandwidth() -> float:
    """Returns the host's best bytes/s, read and written, over four times eight passes over 256 MB.

    Caches hold less than that.
    """
    x, passes = jnp.ones(2**26, jnp.float32), 8

    def increment(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, passes, lambda _, x: x + 1, x)

    return passes * 2 * x.nbytes / _fastest_seconds(increment, x)


def _fastest_seconds(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> float:
    """Returns the time of the fastest of four calls, after one to warm up."""
    compiled = jax.jit(function).lower(x).compile()
    compiled(x).block_until_ready()
    times = []
    for _ in range(4):
        start = time.perf_counter()
        compiled(x).block_until_ready()
        times.append(time.perf_counter() - start)
    return min(times)

"""Published figures of accelerators, and measured ones of this machine's CPU."""

import dataclasses
import os
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

GIB = 2**30

# A process on a GPU takes three quarters of its memory (docs.jax.dev, "GPU memory allocation"), unless XLA_CLIENT_MEM_FRACTION says otherwise.
GPU_MEMORY_SHARE = 0.75

CLOUD = "Google Cloud TPU documentation"
BOOK = "How To Scale Your Model (jax-ml.github.io/scaling-book)"


@dataclasses.dataclass(frozen=True)
class Device:
    """What one JAX device can do: a chip of a TPU (with v4 and v5p both of its cores), a GPU, or a share of a host's cores."""

    name: str
    kinds: tuple[str, ...]  # parts of jax.Device.device_kind that tell it; the longest that fits wins
    peak_flops: float  # FLOP/s of dense bfloat16 matrix products (V100: float16; CPU: float32)
    memory_bytes: int  # that a program can use, with jax's defaults
    memory_bandwidth: float  # bytes/s
    link_bandwidth: float  # bytes/s one way, of one link of a TPU's torus, or of a GPU's NVLink altogether
    network_bandwidth: float  # bytes/s one way, of one device's share of the network between slices or nodes
    source: str  # of the figures


# Memory of the TPUs is what their compiler itself says a program may use, a little less than is published. Links of a TPU: the published
# sum over all ports and both directions, divided by these (4 ports with v5e and v6e, 6 with v5p). GPUs: NVLink is published as the sum of
# both directions; of 80 GiB the driver leaves a little over 79, and of V100's 32 a little over 31.
TABLE = (
    Device(
        "v4",
        ("TPU v4",),
        275e12,
        int(30.75 * GIB),
        1200e9,
        45e9,
        25e9 / 4,
        f"{CLOUD}, v4 (FLOPs, memory); {BOOK}, part 2 (links; 2.5e10 bytes/s a host of 4 chips)",
    ),
    Device(
        "v5e",
        ("TPU v5 lite", "TPU v5e"),
        197e12,
        int(15.75 * GIB),
        819e9,
        400e9 / 4 / 2,
        6.4e12 / 8 / 256,
        f"{CLOUD}, v5e (400 GB/s of links a chip, 6.4 Tbit/s of network a pod of 256)",
    ),
    Device(
        "v5p",
        ("TPU v5", "TPU v5p"),
        459e12,
        int(95.74 * GIB),
        2765e9,
        1200e9 / 6 / 2,
        50e9 / 8,
        f"{CLOUD}, v5p (1200 GB/s of links and 50 Gbit/s of network a chip)",
    ),
    Device(
        "v6e",
        ("TPU v6 lite", "TPU v6e"),
        918e12,
        int(31.25 * GIB),
        1638e9,
        800e9 / 4 / 2,
        25.6e12 / 8 / 256,
        f"{CLOUD}, v6e (800 GB/s of links a chip, 25.6 Tbit/s of network a pod of 256)",
    ),
    Device(
        "v100",
        ("V100",),
        125e12,
        int(31 * GIB * GPU_MEMORY_SHARE),
        900e9,
        300e9 / 2,
        400e9 / 8 / 8,
        "NVIDIA V100 data sheet (SXM2, 32 GB; float16), DGX-1 data sheet (4 x 100 Gbit/s for 8 GPUs)",
    ),
    Device(
        "a100",
        ("A100",),
        312e12,
        int(79 * GIB * GPU_MEMORY_SHARE),
        2039e9,
        600e9 / 2,
        200e9 / 8,
        "NVIDIA A100 data sheet (SXM, 80 GB), DGX A100 data sheet (200 Gbit/s a GPU)",
    ),
    Device(
        "h100",
        ("H100 80GB HBM3", "H100 SXM"),
        989e12,
        int(79 * GIB * GPU_MEMORY_SHARE),
        3350e9,
        900e9 / 2,
        400e9 / 8,
        "NVIDIA H100 data sheet (SXM, 80 GB, without sparsity), DGX H100 data sheet (400 Gbit/s a GPU)",
    ),
)
DEVICES = {device.name: device for device in TABLE}


def device_of(device: jax.Device) -> Device | None:
    """The table's entry for a device, real or of a topology; None if it has none (a CPU, too)."""
    fitting = [(len(kind), entry) for entry in TABLE for kind in entry.kinds if kind in device.device_kind]
    return max(fitting, key=lambda pair: pair[0])[1] if fitting else None


def peak_flops(device: jax.Device) -> float | None:
    """FLOP/s of one device: published for known accelerators, measured for a CPU (half a second), None for others."""
    if device.platform == "cpu":
        return measured_matmul_flops() / jax.local_device_count()
    entry = device_of(device)
    return entry and entry.peak_flops


def cpu_device(devices: int) -> Device:
    """One of so many equal shares of this machine's processor, measured (a second). Shares talk through the same memory."""
    bandwidth = measured_copy_bandwidth() / devices
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // devices
    return Device(
        "cpu",
        ("cpu",),
        measured_matmul_flops() / devices,
        memory,
        bandwidth,
        bandwidth,
        bandwidth,
        "measured on this machine",
    )


def measured_matmul_flops() -> float:
    """The host's best FLOP/s over a few float32 products of two 2048 x 2048 matrices."""
    size = 2048
    return 2 * size**3 / _seconds(lambda x: x @ x, jnp.ones((size, size), jnp.float32))


def measured_copy_bandwidth() -> float:
    """The host's best bytes/s, read and written, over a few times eight passes over 256 MB, more than caches hold."""
    x, passes = jnp.ones(2**26, jnp.float32), 8
    return passes * 2 * x.nbytes / _seconds(lambda x: jax.lax.fori_loop(0, passes, lambda _, x: x + 1, x), x)


def _seconds(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> float:
    """Of the fastest of four calls, after one to warm up."""
    compiled = jax.jit(function).lower(x).compile()
    compiled(x).block_until_ready()
    times = []
    for _ in range(4):
        start = time.perf_counter()
        compiled(x).block_until_ready()
        times.append(time.perf_counter() - start)
    return min(times)

"""Devices to compile for that are not here: slices of TPUs, nodes of GPUs, and shares of this machine's CPU.

No accelerator is needed, only the compilers' wheels (extras `plan` and `plan-gpu`).
"""

import dataclasses
import importlib.util
import math

import jax
from jax.experimental import topologies

from spanbert_jax.devices import DEVICES, GPU_MEMORY_SHARE, Device, cpu_device
from spanbert_jax.errors import InputError
from spanbert_jax.planning.environment import GPUS, Layout, parse

# What XLA wants to know of a GPU beyond devices.TABLE. Sources: NVIDIA's A100 and H100 architecture white papers (multiprocessors, float32
# units of one, boost clock, L2 cache) and the CUDA C++ programming guide, "Technical specifications per compute capability" 8.0 and 9.0.
GPU_FIGURES = {
    "a100": dict(
        kind="NVIDIA A100-SXM4-80GB",
        capability=8,
        core_count=108,
        fpus_per_core=64,
        clock_rate_ghz=1.41,
        l2_cache_size=40 * 2**20,
        shared_memory_per_core=164 * 1024,
        shared_memory_per_block_optin=163 * 1024,
    ),
    "h100": dict(
        kind="NVIDIA H100 80GB HBM3",
        capability=9,
        core_count=132,
        fpus_per_core=128,
        clock_rate_ghz=1.98,
        l2_cache_size=50 * 2**20,
        shared_memory_per_core=228 * 1024,
        shared_memory_per_block_optin=227 * 1024,
    ),
}
EVERY_GPU = dict(
    threads_per_block_limit=1024,
    threads_per_warp=32,
    threads_per_core_limit=2048,
    shared_memory_per_block=48 * 1024,
    registers_per_core_limit=2**16,
    registers_per_block_limit=2**16,
    block_dim_limit_x=2**31 - 1,
    block_dim_limit_y=2**16 - 1,
    block_dim_limit_z=2**16 - 1,
)
CUDA, CUDNN = (12, 9), (9, 8)  # versions that compiled programs may count on


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices of one kind, and how they are joined."""

    name: str
    device: Device  # figures of each device
    devices: tuple[jax.Device, ...]  # to compile for, slice by slice
    slices: int  # slices of TPUs, or nodes of GPUs, joined by the network
    torus: (
        tuple[int, ...] | None
    )  # chips of one slice along each dimension; None: each device reaches each other directly
    wraps: tuple[bool, ...] | None  # whether each dimension of the torus closes to a ring

    def slice_of(self, device: jax.Device) -> int:
        """The slice or node of a device, from 0."""
        return self.devices.index(device) // (len(self.devices) // self.slices)

    def coordinates(self, device: jax.Device) -> tuple[int, ...] | None:
        """Where in its slice's torus a chip is; None without a torus."""
        return self.torus and tuple(device.coords[: len(self.torus)])


def topology(name: str) -> Topology:
    """The topology of a name (see environment.parse), in a process with environment.environment(name) set.

    Raises:
      InputError: the name tells of nothing that exists, a wheel is missing, or the compiler refuses the topology.
    """
    layout = parse(name)
    if layout.family == "cpu":
        devices = tuple(jax.devices("cpu")[: layout.shape[0]])
        if len(devices) < layout.shape[0]:
            raise InputError(
                f"topology {name}: this process has {len(devices)} CPU devices: start it with "
                f"XLA_FLAGS=--xla_force_host_platform_device_count={layout.shape[0]}"
            )
        return Topology(name, cpu_device(len(devices)), devices, 1, None, None)
    _demand_wheels(layout)
    try:
        devices = _gpus(layout) if layout.family in GPUS else _tpus(layout)
    except (RuntimeError, NotImplementedError) as error:
        raise InputError(f"topology {name}: the compiler refuses it: {' '.join(str(error).split())}") from error
    if len(devices) != layout.slices * math.prod(layout.shape):
        raise InputError(
            f"topology {name}: the compiler gives {len(devices)} devices, not {layout.slices} x {math.prod(layout.shape)}"
        )
    return Topology(name, DEVICES[layout.family], tuple(devices), layout.slices, layout.torus, layout.wraps)


def _demand_wheels(layout: Layout) -> None:
    """InputError if the compiler is not installed."""
    modules, extra = (
        (("jax_cuda12_plugin", "jax_cuda13_plugin"), "plan-gpu") if layout.family in GPUS else (("libtpu",), "plan")
    )
    if not any(importlib.util.find_spec(module) for module in modules):
        raise InputError(
            f"planning for {layout.family} wants its compiler, which is not installed: pip install 'spanbert_jax[{extra}]'"
        )


def _tpus(layout: Layout) -> list[jax.Device]:
    """Compile-only chips, by slice."""
    options = dict(num_slices=layout.slices)
    if layout.family == "v4":
        options["chip_config_name"] = "megacore"  # a device is a chip, not one of its two cores
    if math.prod(layout.shape) == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)  # default: 2 x 2
    shape = "x".join(map(str, layout.shape))
    return topologies.get_topology_desc(f"{layout.family}:{shape}", "tpu", **options).devices


def _gpus(layout: Layout) -> list[jax.Device]:
    """Compile-only GPUs, by node."""
    shape = f"{layout.slices}x1x{layout.shape[0]}"  # partitions x hosts of one x GPUs of one
    return topologies.get_topology_desc("", "cuda", target_config=target_config(layout.family), topology=shape).devices


def target_config(family: str) -> str:
    """A GPU's figures as a text proto of XLA's stream_executor.GpuTargetConfigProto."""
    figures, device = dict(GPU_FIGURES[family]), DEVICES[family]
    kind, capability = figures.pop("kind"), figures.pop("capability")
    figures |= EVERY_GPU | dict(
        memory_bandwidth=int(device.memory_bandwidth), device_memory_size=round(device.memory_bytes / GPU_MEMORY_SHARE)
    )
    lines = "\n".join(f"  {field}: {value}" for field, value in figures.items())
    return (
        f"gpu_device_info {{\n{lines}\n  cuda_compute_capability {{ major: {capability} }}\n}}\n"
        f'platform_name: "CUDA"\ndevice_description_str: "{kind}"\n'
        f"runtime_version {{ major: {CUDA[0]} minor: {CUDA[1]} }}\ndnn_version_info {{ major: {CUDNN[0]} minor: {CUDNN[1]} }}\n"
    )

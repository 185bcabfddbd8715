"""Devices to compile for without having them: slices of TPUs, nodes of GPUs, and shares of this machine's CPU.

No accelerator is needed, only the wheels of the compilers (extras `plan` and `plan-gpu`).
"""

import dataclasses
import importlib.util
import math

import jax
from jax.experimental import topologies

from spanbert_jax.devices import DEVICES, GPU_MEMORY_SHARE, Device, cpu_device
from spanbert_jax.errors import InputError
from spanbert_jax.planning.environment import GPUS, TopologySpec, parse

# What XLA needs to know about a GPU beyond devices.TABLE. Sources: NVIDIA's A100 and H100 architecture white papers
# (multiprocessors, float32 units per multiprocessor, boost clock, L2 cache) and the CUDA C++ programming guide,
# "Technical specifications per compute capability" 8.0 and 9.0.
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
COMMON_GPU_FIGURES = dict(
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
# Versions of the libraries that compiled programs may rely on.
CUDA, CUDNN = (12, 9), (9, 8)


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices of one kind, and how they are joined."""

    name: str
    device: Device  # figures of each device
    devices: tuple[jax.Device, ...]  # to compile for, ordered by slice
    slices: int  # slices of TPUs or nodes of GPUs, which the network joins
    torus: tuple[int, ...] | None  # chips of one slice along each dimension; None: devices are connected all to all
    wraps: tuple[bool, ...] | None  # for each dimension of the torus whether it closes to a ring

    def slice_of(self, device: jax.Device) -> int:
        """Returns the number of the slice or node of a device, from 0."""
        return self.devices.index(device) // (len(self.devices) // self.slices)

    def coordinates(self, device: jax.Device) -> tuple[int, ...] | None:
        """Returns the coordinates of a chip in the torus of its slice; None without a torus."""
        return self.torus and tuple(device.coords[: len(self.torus)])


def make_topology(name: str) -> Topology:
    """Returns the topology of a name, see environment.parse, in a process that called environment.start_jax(name).

    Raises:
      InputError: no such topology exists, a wheel is missing, or the compiler refuses the topology.
    """
    spec = parse(name)
    if spec.family == "cpu":
        return _cpu_topology(name, spec)
    _check_compiler(spec)
    try:
        devices = _gpus(spec) if spec.family in GPUS else _tpus(spec)
    except (RuntimeError, NotImplementedError) as error:
        raise InputError(f"topology {name}: the compiler refuses it: {' '.join(str(error).split())}") from error
    per_slice = math.prod(spec.shape)
    if len(devices) != spec.slices * per_slice:
        raise InputError(f"topology {name}: the compiler gives {len(devices)} devices, not {spec.slices} x {per_slice}")
    return Topology(name, DEVICES[spec.family], tuple(devices), spec.slices, spec.torus, spec.wraps)


def _cpu_topology(name: str, spec: TopologySpec) -> Topology:
    """Returns this process's first CPU devices."""
    [count] = spec.shape
    devices = tuple(jax.devices("cpu")[:count])
    if len(devices) < count:
        raise InputError(
            f"topology {name}: this process has {len(devices)} CPU devices: start it with "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={count}"
        )
    return Topology(name, cpu_device(count), devices, slices=1, torus=None, wraps=None)


def _check_compiler(spec: TopologySpec) -> None:
    """Raises an InputError if the compiler of a family is not installed."""
    is_gpu = spec.family in GPUS
    modules = ["jax_cuda12_plugin", "jax_cuda13_plugin"] if is_gpu else ["libtpu"]
    extra = "plan-gpu" if is_gpu else "plan"
    if not any(importlib.util.find_spec(module) for module in modules):
        raise InputError(
            f"planning for {spec.family} needs its compiler, which is not installed: "
            f"pip install 'spanbert_jax[{extra}]'"
        )


def _tpus(spec: TopologySpec) -> list[jax.Device]:
    """Returns compile-only chips, ordered by slice."""
    options: dict[str, int | str | tuple[int, ...]] = {"num_slices": spec.slices}
    if spec.family == "v4":
        options["chip_config_name"] = "megacore"  # a device is a chip, not one of its two cores
    if math.prod(spec.shape) == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)  # default: 2 x 2
    shape = "x".join(map(str, spec.shape))
    return topologies.get_topology_desc(f"{spec.family}:{shape}", "tpu", **options).devices


def _gpus(spec: TopologySpec) -> list[jax.Device]:
    """Returns compile-only GPUs, ordered by node."""
    shape = f"{spec.slices}x1x{spec.shape[0]}"  # partitions x hosts per partition x GPUs per host
    return topologies.get_topology_desc("", "cuda", target_config=target_config(spec.family), topology=shape).devices


def target_config(family: str) -> str:
    """Returns a GPU's figures as a text proto of XLA's stream_executor.GpuTargetConfigProto."""
    device = DEVICES[family]
    figures = GPU_FIGURES[family] | COMMON_GPU_FIGURES
    kind, capability = figures.pop("kind"), figures.pop("capability")
    figures["memory_bandwidth"] = int(device.memory_bandwidth)
    figures["device_memory_size"] = round(device.memory_bytes / GPU_MEMORY_SHARE)
    lines = "\n".join(f"  {field}: {value}" for field, value in figures.items())
    return f"""gpu_device_info {{
{lines}
  cuda_compute_capability {{ major: {capability} }}
}}
platform_name: "CUDA"
device_description_str: "{kind}"
runtime_version {{ major: {CUDA[0]} minor: {CUDA[1]} }}
dnn_version_info {{ major: {CUDNN[0]} minor: {CUDNN[1]} }}
"""

"""Topologies: real ones where the wheels of the compilers are installed."""

import functools
import importlib.util
import json
import math
import os
import subprocess
import sys
import types

import jax
import pytest

from spanbert_jax.devices import DEVICES
from spanbert_jax.errors import InputError
from spanbert_jax.planning import topologies
from spanbert_jax.planning.environment import FLAT_SHAPES, GPUS, TPUS, parse
from spanbert_jax.planning.topologies import make_topology, target_config

WHEELS = {"tpu": "libtpu", "gpu": "jax_cuda12_plugin"}
DEVICE_COUNTS = {
    "v5e:1x1": 1,
    "v5e:16x16": 256,
    "2*v5e:4x4": 32,
    "v4:2x2x2": 8,
    "v4:4x4x8": 128,
    "v5p:2x2x4": 16,
    "3*v5p:2x2x1": 12,
    "v6e:8x8": 64,
    "h100:8": 8,
    "h100:4x8": 32,
    "a100:2": 2,
}

# Prints what each topology is and what its compiler makes of a sum over all devices; for TPUs also how much memory the
# compiler grants a program.
PROBE = """
import json, re, sys
from spanbert_jax.planning.environment import start_jax
names = sys.argv[1:]
start_jax(names[0])
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from spanbert_jax.devices import device_of
from spanbert_jax.planning.topologies import make_topology

def compiled(devices, rows, columns):
    mesh = Mesh(devices, ("x",))
    shape = jax.ShapeDtypeStruct((rows * len(devices), columns), jnp.float32, sharding=NamedSharding(mesh, P("x")))
    return jax.jit(lambda x: x.sum(0), out_shardings=NamedSharding(mesh, P())).lower(shape).compile()

def granted_gib(device):
    try:
        compiled([device], 2**20, 2**20)
    except Exception as error:
        return float(re.search(r"available HBM \\((.*)G\\)", str(error))[1])

def real_slice(device, topology):
    if topology.slices == 1:
        return 0
    return getattr(device, "slice_index", 0) if topology.torus else device.process_index

for name in names:
    topology = make_topology(name)
    devices = topology.devices
    program = compiled(devices, 128, 1024)
    print(json.dumps(dict(
        devices=len(devices),
        ids=len({device.id for device in devices}),
        slices=topology.slices,
        torus=topology.torus,
        device=topology.device.name,
        device_by_kind=device_of(devices[0]).name,
        positions=[(topology.slice_of(device), topology.coordinates(device)) for device in devices],
        real_slices=[real_slice(device, topology) for device in devices],
        arguments_bytes=program.memory_analysis().argument_size_in_bytes,
        text=program.as_text(),
        granted_gib=granted_gib(devices[0]) if topology.torus else None,
    )))
"""


def probe(names: list[str], env: dict[str, str]) -> tuple[dict, str]:
    """Returns what the probe prints for each name, and its standard error."""
    run = subprocess.run([sys.executable, "-c", PROBE, *names], env=env, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    return dict(zip(names, map(json.loads, run.stdout.splitlines()), strict=True)), run.stderr


@pytest.fixture(scope="module")
def probed():
    """Returns a function that probes all topologies of a platform in one process.

    Each platform has its own process, since libraries of accelerators stay loaded. The process does not inherit the
    variables that this one was started with.
    """
    changed = ("JAX_PLATFORMS", "TPU_", "TF_CPP", "XLA_FLAGS")
    env = {name: value for name, value in os.environ.items() if not name.startswith(changed)}

    @functools.cache
    def probe_platform(platform: str):
        if not importlib.util.find_spec(WHEELS[platform]):
            pytest.skip(f"the compiler for {platform} is not installed: extras plan and plan-gpu")
        return probe([name for name in DEVICE_COUNTS if platform_of(name) == platform], env)

    return probe_platform


def platform_of(name: str) -> str:
    return "gpu" if parse(name).family in GPUS else "tpu"


@pytest.mark.parametrize("name, extra", [("v5e:4x4", "plan"), ("h100:8", "plan-gpu")])
def test_error_names_a_missing_wheel(name, extra, monkeypatch):
    monkeypatch.setattr(topologies.importlib.util, "find_spec", lambda module: None)
    with pytest.raises(InputError, match=r"pip install 'spanbert_jax\[" + extra + r"\]'"):
        make_topology(name)


@pytest.mark.parametrize("name", ["v5e:4x4", "h100:8"])
def test_refusal_of_the_compiler_is_an_error_of_one_line(name, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("INVALID:\n no such thing")

    monkeypatch.setattr(topologies.importlib.util, "find_spec", lambda module: True)
    monkeypatch.setattr(topologies.topologies, "get_topology_desc", refuse)
    with pytest.raises(InputError, match=f"^topology {name}: the compiler refuses it: INVALID: no such thing$"):
        make_topology(name)


def test_unexpected_number_of_devices_is_refused(monkeypatch):
    description = types.SimpleNamespace(devices=[object()] * 32)  # cores instead of chips
    monkeypatch.setattr(topologies.importlib.util, "find_spec", lambda module: True)
    monkeypatch.setattr(topologies.topologies, "get_topology_desc", lambda *_, **__: description)
    with pytest.raises(InputError, match="gives 32 devices, not 1 x 16"):
        make_topology("v4:2x2x4")


def test_topology_of_a_cpu():
    cpu = make_topology("cpu:4")
    assert cpu.devices == tuple(jax.devices()[:4]) and (cpu.slices, cpu.torus) == (1, None)
    assert cpu.device.name == "cpu" and cpu.device.peak_flops > 0
    assert {cpu.slice_of(device) for device in cpu.devices} == {0} and cpu.coordinates(cpu.devices[3]) is None
    with pytest.raises(InputError, match="has 8 CPU devices.*device_count=64"):
        make_topology("cpu:64")


@pytest.mark.parametrize("family", GPUS)
def test_target_config_has_the_published_figures(family):
    lines = target_config(family).replace("  ", "").splitlines()
    fields = dict(line.split(": ") for line in lines if ": " in line and "{" not in line)
    assert int(fields["memory_bandwidth"]) == DEVICES[family].memory_bandwidth
    assert int(fields["device_memory_size"]) * 0.75 == pytest.approx(DEVICES[family].memory_bytes)
    # A float32 unit does one multiply-add per cycle: the published 19.5 and 67 TFLOP/s, to 1 %.
    flops = 2 * int(fields["core_count"]) * int(fields["fpus_per_core"]) * float(fields["clock_rate_ghz"]) * 1e9
    assert flops == pytest.approx({"a100": 19.5e12, "h100": 67e12}[family], rel=0.01)


@pytest.mark.parametrize("name", DEVICE_COUNTS)
def test_topology_has_its_devices(name, probed):
    results, _ = probed(platform_of(name))
    result, spec = results[name], parse(name)
    assert result["devices"] == result["ids"] == DEVICE_COUNTS[name]
    assert result["device"] == result["device_by_kind"] == spec.family
    assert result["slices"] == spec.slices == len(set(result["real_slices"]))
    assert [slice_number for slice_number, _ in result["positions"]] == result["real_slices"]
    if spec.torus:  # each position of the torus occurs once in every slice
        assert tuple(result["torus"]) == spec.torus
        assert len({(number, *coordinates) for number, coordinates in result["positions"]}) == DEVICE_COUNTS[name]
        columns = zip(*(coordinates for _, coordinates in result["positions"]))
        assert [max(column) + 1 for column in columns] == list(spec.torus)
    else:
        assert result["torus"] is None


@pytest.mark.parametrize("name", DEVICE_COUNTS)
def test_programs_compile_for_a_topology(name, probed):
    results, _ = probed(platform_of(name))
    result = results[name]
    assert result["arguments_bytes"] == 128 * 1024 * 4  # of one device
    assert ("all-reduce" in result["text"]) == (DEVICE_COUNTS[name] > 1)
    if parse(name).torus:  # the network between slices is used by other instructions than the links within
        assert ("megascale" in result["text"]) == (result["slices"] > 1)


@pytest.mark.parametrize("family", TPUS)
def test_memory_of_a_tpu_is_what_its_compiler_grants(family, probed):
    results, _ = probed("tpu")
    [granted_gib] = {result["granted_gib"] for name, result in results.items() if parse(name).family == family}
    assert granted_gib == pytest.approx(DEVICES[family].memory_bytes / 2**30, abs=0.005)


@pytest.mark.parametrize("platform", WHEELS)
def test_libraries_are_quiet(platform, probed):
    _, stderr = probed(platform)
    assert stderr == ""


def test_smallest_flat_shapes_compile(probed):
    """Hosts with fewer chips than usual are a special case for libraries."""
    probed("tpu")  # skips without the compiler
    shapes = FLAT_SHAPES[:3]
    results, _ = probe([f"v6e:{rows}x{columns}" for rows, columns in shapes], dict(os.environ))
    assert [result["devices"] for result in results.values()] == [math.prod(shape) for shape in shapes]

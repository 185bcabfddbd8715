"""Names of topologies, and the topologies themselves: real ones where the compilers' wheels are installed."""

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
from spanbert_jax.planning.environment import FLAT, GPUS, KNOWN, TPUS, Layout, environment, parse
from spanbert_jax.planning.topologies import target_config, topology

WHEELS = {"tpu": "libtpu", "gpu": "jax_cuda12_plugin"}
TOPOLOGIES = {  # name -> devices
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

# Says what a topology is, and what its compiler makes of a sum over all devices. Of a TPU also how much memory its compiler grants.
PROBE = """
import json, re, sys
from spanbert_jax.planning.environment import start_jax
names = sys.argv[1:]
start_jax(names[0])
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from spanbert_jax.devices import device_of
from spanbert_jax.planning.topologies import topology

def compiled(devices, rows, columns):
    mesh = Mesh(devices, ("x",))
    shape = jax.ShapeDtypeStruct((rows * len(devices), columns), jnp.float32, sharding=NamedSharding(mesh, P("x")))
    return jax.jit(lambda x: x.sum(0), out_shardings=NamedSharding(mesh, P())).lower(shape).compile()

def granted(device):
    try:
        compiled([device], 2**20, 2**20)
    except Exception as error:
        return float(re.search(r"available HBM \\((.*)G\\)", str(error))[1])

for name in names:
    topo = topology(name)
    program = compiled(topo.devices, 128, 1024)
    print(json.dumps(dict(
        devices=len(topo.devices), slices=topo.slices, torus=topo.torus, wraps=topo.wraps, device=topo.device.name,
        kind=device_of(topo.devices[0]).name, ids=len({device.id for device in topo.devices}),
        places=[(topo.slice_of(device), topo.coordinates(device)) for device in topo.devices],
        own_slices=[getattr(device, "slice_index", 0) if topo.torus else device.process_index for device in topo.devices]
                   if topo.slices > 1 else [0] * len(topo.devices),
        arguments=program.memory_analysis().argument_size_in_bytes, text=program.as_text(),
        granted=granted(topo.devices[0]) if topo.torus else None)))
"""


def probe(names: list[str], env: dict[str, str]) -> tuple[dict, str]:
    """The probe's answers by name, and its standard error."""
    run = subprocess.run([sys.executable, "-c", PROBE, *names], env=env, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    return dict(zip(names, map(json.loads, run.stdout.splitlines()), strict=True)), run.stderr


@pytest.fixture(scope="module")
def probed():
    """Probes of all topologies of a platform, in a process of its own: libraries of accelerators stay loaded. None of the variables that
    this process was started with help.
    """
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JAX_PLATFORMS", "TPU_", "TF_CPP", "XLA_FLAGS"))
    }
    done = {}

    def of(platform: str):
        if not importlib.util.find_spec(WHEELS[platform]):
            pytest.skip(f"the compiler for {platform} is not installed: extras plan and plan-gpu")
        if platform not in done:
            done[platform] = probe([name for name in TOPOLOGIES if platform_of(name) == platform], env)
        return done[platform]

    return of


def platform_of(name: str) -> str:
    return "gpu" if parse(name).family in GPUS else "tpu"


@pytest.mark.parametrize(
    "name, layout",
    [
        ("v5e:16x16", Layout("v5e", 1, (16, 16))),
        ("2*v5e:16x16", Layout("v5e", 2, (16, 16))),
        ("v4:4x4x12", Layout("v4", 1, (4, 4, 12))),
        ("v5p:2x2x1", Layout("v5p", 1, (2, 2, 1))),
        ("h100:8", Layout("h100", 1, (8,))),
        ("h100:4x8", Layout("h100", 4, (8,))),
        ("2*a100:4x8", Layout("a100", 8, (8,))),
        ("cpu:8", Layout("cpu", 1, (8,))),
    ],
)
def test_names_are_read(name, layout):
    assert parse(name) == layout


@pytest.mark.parametrize(
    "name",
    [
        "",
        "v5e",
        "v5e:",
        "v5e:16x",
        "v5e:0x4",
        "v5e:-2x2",
        "0*v5e:4x4",
        "V5E:4x4",
        "v7x:2x2x1",
        "h200:8",
        "tpu:8",
        "v100:8",
        "v5e:4x4 ",
    ],
)
def test_an_unknown_name_is_told_what_is_known(name):
    with pytest.raises(InputError, match="unknown") as error:
        topology(name)
    assert KNOWN in str(error.value) and repr(name) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name, said",
    [
        ("v5e:3x5", "1x1, 2x2, 2x4, 4x4, 4x8, 8x8, 8x16, 16x16"),
        ("v5e:32x32", "16x16"),
        ("v6e:2x2x2", "8x16"),
        ("v5e:8", "8x16"),
        ("v4:3x3x3", "2x2x1, 2x2x2, 2x2x4, 2x4x4, and AxBxC with A <= B <= C, multiples of 4, of at most 4096 chips"),
        ("v4:8x4x4", "A <= B <= C"),
        ("v4:16x16x20", "4096"),
        ("v5p:16x16x28", "6144"),
        ("v5p:4x4", "2x4x4"),
        ("h100:16", "h100:4x8"),
        ("h100:2x2x8", "h100:4x8"),
        ("a100:2x9", "a100:4x8"),
        ("cpu:2x4", "cpu:8"),
        ("2*cpu:4", "cpu:8"),
    ],
)
def test_a_shape_that_does_not_exist_is_told_which_do(name, said):
    with pytest.raises(InputError) as error:
        topology(name)
    assert said in str(error.value) and name in str(error.value) and "\n" not in str(error.value)


def test_the_known_names_are_good():
    names = [part.split(" ")[0] for part in KNOWN.split(", ")]
    assert {parse(name).family for name in names} == {*TPUS, *GPUS, "cpu"}


def test_every_family_has_a_device():
    assert {*TPUS, *GPUS} <= set(DEVICES)


@pytest.mark.parametrize(
    "name, wraps",
    [
        ("v5e:16x16", (True, True)),
        ("v5e:8x16", (False, True)),
        ("v6e:8x8", (False, False)),
        ("v4:4x4x4", (True,) * 3),
        ("v5p:2x4x4", (False,) * 3),
        ("h100:8", None),
        ("cpu:2", None),
    ],
)
def test_which_dimensions_are_rings(name, wraps):
    assert parse(name).wraps == wraps


@pytest.mark.parametrize("name, extra", [("v5e:4x4", "plan"), ("h100:8", "plan-gpu")])
def test_a_missing_wheel_is_named(name, extra, monkeypatch):
    monkeypatch.setattr(topologies.importlib.util, "find_spec", lambda module: None)
    with pytest.raises(InputError, match=r"pip install 'spanbert_jax\[" + extra + r"\]'"):
        topology(name)


@pytest.mark.parametrize("name", ["v5e:4x4", "h100:8"])
def test_what_the_compiler_refuses_is_told_in_one_line(name, monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("INVALID:\n no such thing")

    monkeypatch.setattr(topologies.importlib.util, "find_spec", lambda module: True)
    monkeypatch.setattr(topologies.topologies, "get_topology_desc", refuse)
    with pytest.raises(InputError, match=f"^topology {name}: the compiler refuses it: INVALID: no such thing$"):
        topology(name)


def test_other_devices_than_asked_for_are_refused(monkeypatch):
    monkeypatch.setattr(topologies.importlib.util, "find_spec", lambda module: True)
    monkeypatch.setattr(
        topologies.topologies, "get_topology_desc", lambda *_, **__: types.SimpleNamespace(devices=[object()] * 32)
    )
    with pytest.raises(InputError, match="gives 32 devices, not 1 x 16"):  # cores instead of chips
        topology("v4:2x2x4")


def test_a_cpu():
    topo = topology("cpu:4")
    assert topo.devices == tuple(jax.devices()[:4]) and (topo.slices, topo.torus) == (1, None)
    assert topo.device.name == "cpu" and topo.device.peak_flops > 0
    assert {topo.slice_of(device) for device in topo.devices} == {0} and topo.coordinates(topo.devices[3]) is None
    with pytest.raises(InputError, match="has 8 CPU devices.*device_count=64"):
        topology("cpu:64")


def test_environment_of_a_cpu_keeps_other_flags(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1 --xla_force_host_platform_device_count=8")
    assert environment("cpu:4")["XLA_FLAGS"] == "--xla_a=1 --xla_force_host_platform_device_count=4"
    assert "XLA_FLAGS" not in environment("v5e:4x4") and environment("v5e:4x4")["JAX_PLATFORMS"] == "cpu"


def test_environment_is_told_before_jax_is_imported():
    code = (
        "import sys, spanbert_jax.planning.environment as e; e.environment('h100:8'); assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("family", GPUS)
def test_target_config_has_the_tables_figures(family):
    fields = dict(
        line.split(": ")
        for line in target_config(family).replace("  ", "").splitlines()
        if ": " in line and "{" not in line
    )
    assert int(fields["memory_bandwidth"]) == DEVICES[family].memory_bandwidth
    assert int(fields["device_memory_size"]) * 0.75 == pytest.approx(DEVICES[family].memory_bytes)
    # a float32 unit does a multiply-add a cycle: the published 19.5 and 67 TFLOP/s, to 1 %
    flops = 2 * int(fields["core_count"]) * int(fields["fpus_per_core"]) * float(fields["clock_rate_ghz"]) * 1e9
    assert flops == pytest.approx({"a100": 19.5e12, "h100": 67e12}[family], rel=0.01)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_a_topology_has_its_devices(name, probed):
    answers, _ = probed(platform_of(name))
    said, layout = answers[name], parse(name)
    assert said["devices"] == said["ids"] == TOPOLOGIES[name]
    assert said["device"] == said["kind"] == layout.family
    assert said["slices"] == layout.slices and [place[0] for place in said["places"]] == said["own_slices"]
    assert len(set(said["own_slices"])) == layout.slices
    if layout.torus:  # each place of the torus once in every slice
        assert tuple(said["torus"]) == layout.torus
        assert len({(part, *place) for part, place in said["places"]}) == TOPOLOGIES[name]
        assert [max(side) + 1 for side in zip(*(place for _, place in said["places"]))] == list(layout.torus)
    else:
        assert said["torus"] is None


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_a_topology_compiles(name, probed):
    answers, _ = probed(platform_of(name))
    said = answers[name]
    assert said["arguments"] == 128 * 1024 * 4  # of one device
    assert ("all-reduce" in said["text"]) == (TOPOLOGIES[name] > 1)
    if parse(name).torus:  # the network between slices is another way than the links within
        assert ("megascale" in said["text"]) == (said["slices"] > 1)


@pytest.mark.parametrize("family", TPUS)
def test_memory_of_a_tpu_is_what_its_compiler_grants(family, probed):
    answers, _ = probed("tpu")
    (granted,) = {said["granted"] for name, said in answers.items() if parse(name).family == family}
    assert granted == pytest.approx(DEVICES[family].memory_bytes / 2**30, abs=0.005)


@pytest.mark.parametrize("platform", WHEELS)
def test_libraries_are_quiet(platform, probed):
    _, stderr = probed(platform)
    assert stderr == ""


def test_the_flat_shapes_are_all_planned_for(probed):
    """Shapes whose hosts hold fewer chips than usual are the ones that libraries stumble over."""
    probed("tpu")  # or skip
    names = [f"v6e:{rows}x{columns}" for rows, columns in FLAT[:3]]
    answers, _ = probe(names, dict(os.environ))
    assert [said["devices"] for said in answers.values()] == [math.prod(shape) for shape in FLAT[:3]]

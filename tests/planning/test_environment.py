"""Names of topologies, and the environment to compile for one."""

import subprocess
import sys

import pytest

from spanbert_jax.devices import DEVICES
from spanbert_jax.errors import InputError
from spanbert_jax.planning.environment import EXAMPLES, GPUS, TPUS, TopologySpec, environment, parse


@pytest.mark.parametrize(
    "name, spec",
    [
        ("v5e:16x16", TopologySpec("v5e", 1, (16, 16))),
        ("2*v5e:16x16", TopologySpec("v5e", 2, (16, 16))),
        ("v4:4x4x12", TopologySpec("v4", 1, (4, 4, 12))),
        ("v5p:2x2x1", TopologySpec("v5p", 1, (2, 2, 1))),
        ("h100:8", TopologySpec("h100", 1, (8,))),
        ("h100:4x8", TopologySpec("h100", 4, (8,))),
        ("2*a100:4x8", TopologySpec("a100", 8, (8,))),
        ("cpu:8", TopologySpec("cpu", 1, (8,))),
    ],
)
def test_names_are_parsed(name, spec):
    assert parse(name) == spec


UNKNOWN = "|v5e|v5e:|v5e:16x|v5e:0x4|v5e:-2x2|0*v5e:4x4|V5E:4x4|v7x:2x2x1|h200:8|tpu:8|v100:8|v5e:4x4 "


@pytest.mark.parametrize("name", UNKNOWN.split("|"))
def test_error_for_an_unknown_name_lists_known_ones(name):
    with pytest.raises(InputError, match="unknown") as error:
        parse(name)
    assert EXAMPLES in str(error.value) and repr(name) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name, existing",
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
def test_error_for_a_shape_that_does_not_exist_lists_existing_ones(name, existing):
    with pytest.raises(InputError) as error:
        parse(name)
    assert existing in str(error.value) and name in str(error.value) and "\n" not in str(error.value)


def test_examples_cover_all_families():
    names = [example.split(" ")[0] for example in EXAMPLES.split(", ")]
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
def test_dimensions_that_are_rings(name, wraps):
    assert parse(name).wraps == wraps


def test_environment_of_a_cpu_keeps_other_flags(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1 --xla_force_host_platform_device_count=8")
    assert environment("cpu:4")["XLA_FLAGS"] == "--xla_a=1 --xla_force_host_platform_device_count=4"
    assert "XLA_FLAGS" not in environment("v5e:4x4") and environment("v5e:4x4")["JAX_PLATFORMS"] == "cpu"


def test_environment_does_not_import_jax():
    code = (
        "import sys, spanbert_jax.planning.environment as e; e.environment('h100:8'); assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

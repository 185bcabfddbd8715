"""Plans, compared with programs that run here, and for machines that are not available."""

import dataclasses
import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import pytest

from spanbert_jax.data.batches import slots_of
from spanbert_jax.errors import DoesNotFit, InputError
from spanbert_jax.planning.plan import _used, make_plan, unfit
from spanbert_jax.planning.search import Outlook, applied, candidates, search
from spanbert_jax.planning.topologies import Topology, make_topology
from tests.small import TOKENIZER, small_config, small_program

ROOT = Path(__file__).parents[2]


def with_figures(topology: Topology, **figures) -> Topology:
    """Returns the topology with other figures of its devices."""
    return dataclasses.replace(topology, device=dataclasses.replace(topology.device, **figures))


@pytest.fixture(scope="module")
def cpu():
    """CPU devices with figures that are the same on every host."""
    return with_figures(make_topology("cpu:8"), peak_flops=2e10, memory_bandwidth=4e9, link_bandwidth=4e9)


def test_plan_is_of_the_program_that_runs(cpu):
    config = small_config(mesh__data=2, mesh__fsdp=4, model__width=64, eval__every=0)
    plan, program = make_plan(config, cpu, TOKENIZER.vocab_size), small_program(config, 8)
    sizes = program.compiled(config, lambda line: None).train_step.function.memory_analysis()
    assert (plan.arguments_bytes, plan.temporaries_bytes) == (sizes.argument_size_in_bytes, sizes.temp_size_in_bytes)
    arrays = [leaf for leaf in jax.tree.leaves(program.init(None)) if leaf.dtype != program.state.key.dtype]
    state_bytes = sum(leaf.addressable_shards[0].data.nbytes for leaf in arrays)
    batch_bytes = 4 * (4 * 16 * 64 + 8 * 16 * slots_of(config)) // 8  # int32 and float32 fields, over eight devices
    assert plan.arguments_bytes == pytest.approx(state_bytes + batch_bytes, rel=0.01)
    assert plan.costs.flops * 8 == pytest.approx(program.flops_per_step, rel=0.02)


def test_errors_of_what_does_not_fit(cpu):
    small, config, vocab_size = with_figures(cpu, memory_bytes=10**6), small_config(), TOKENIZER.vocab_size
    needs = r"does not fit cpu:8: it needs 0.0\d GiB on a device that has 0.00 GiB; raise accumulation.*--search"
    with pytest.raises(DoesNotFit, match=needs):
        make_plan(config, small, vocab_size)
    assert "more on a device" in str(unfit(small, None))
    more = r"nothing tried fits cpu:8: of 75 ways 1 were compiled, \d+ more might fit. Give --most a larger number"
    with pytest.raises(DoesNotFit, match=more):
        search(config, small, vocab_size, 1, lambda line: None)
    none = "75 ways 0 were compiled, 0 more might fit. Give more devices, a smaller seq_len, or optimizer.state_dtype"
    with pytest.raises(DoesNotFit, match=none):
        search(config, with_figures(cpu, memory_bytes=10**4), vocab_size, 1, lambda line: None)


@pytest.mark.parametrize(
    "message, needed",
    [
        ("Ran out of memory. Used 18.66G of 15.75G hbm", 18.66 * 2**30),
        ("the total memory required for HLO temporaries (29.30G) exceeds available HBM (15.75G).", 29.3 * 2**30),
        ("out of memory", None),
    ],
)
def test_needed_memory_is_read_from_messages_of_compilers(message, needed):
    assert _used(message) == (needed and round(needed))


def test_no_plan_beats_its_candidate(cpu):
    config, outlook = small_config(model__heads=8), Outlook(cpu)
    listed = candidates(config, cpu, TOKENIZER.vocab_size)
    assert {each.shape for each in listed} >= {(8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2)}
    assert {each.remat for each in listed} == {"none", "dots", "full"}
    for options in (((8, 1, 1), 1, "none"), ((1, 8, 1), 2, "dots"), ((2, 2, 2), 1, "full")):
        [candidate] = [each for each in listed if (each.shape, each.accumulation, each.remat) == options]
        state_and_gradients = candidate.state_bytes + candidate.gradient_bytes
        plan = make_plan(applied(config, *options), cpu, TOKENIZER.vocab_size)
        assert candidate.state_bytes < plan.arguments_bytes
        assert state_and_gradients + candidate.kept_bytes < plan.peak_bytes
        assert outlook.seconds(candidate) < plan.roofline.bound_seconds
        outlook.learn(candidate, plan)  # from here on the time is known, and the memory to the byte
        seconds = max(plan.roofline.compute_seconds, plan.roofline.memory_seconds)
        assert outlook.seconds(candidate) == pytest.approx(seconds, rel=0.03)
        predicted_bytes = state_and_gradients + outlook.memory[candidate.remat] * candidate.kept_bytes
        assert predicted_bytes == pytest.approx(plan.peak_bytes)


def test_search_returns_the_fastest_plan_that_fits(cpu):
    """The devices are too small for the fastest plan of all."""
    config = small_config(batch_size=64, seq_len=128, model__heads=8, model__attention_dropout=0.1)
    fastest, smallest = (
        make_plan(applied(config, (8, 1, 1), 1, remat), cpu, TOKENIZER.vocab_size).peak_bytes
        for remat in ("none", "full")
    )
    tight, log = with_figures(cpu, memory_bytes=(fastest + smallest) // 2), []
    best = search(config, tight, TOKENIZER.vocab_size, 5, log.append)
    assert best.peak_bytes <= tight.device.memory_bytes
    assert log[0].endswith("accumulation=1 --config.model.remat=none: does not fit")
    times = [re.search(r": ([\d.,]+) ms (?:a|per) step", line) for line in log[:-1]]
    milliseconds = [float(time[1].replace(",", "")) for time in times if time]
    assert best.roofline.bound_seconds * 1e3 == pytest.approx(min(milliseconds), abs=0.06) and len(log) <= 6
    flags = f"--config.accumulation={best.config.accumulation} --config.model.remat={best.config.model.remat}"
    assert flags in log[-1]


def test_problems_of_a_config_are_reported_together(cpu):
    with pytest.raises(InputError, match=r"(?s)total_steps.*model.heads 4 must be a multiple of mesh tensor = 8"):
        make_plan(small_config(mesh__data=1, mesh__tensor=8, total_steps=0), cpu, TOKENIZER.vocab_size)
    with pytest.raises(InputError, match="data=3 .* is for 3 devices, but there are 8"):
        make_plan(small_config(mesh__data=3), cpu, TOKENIZER.vocab_size)


RUN = """
import json, sys
import numpy as np
from pathlib import Path
from spanbert_jax.training.program import peak_bytes
from tests.small import batches_of, small_config, small_program, small_store

def kibibytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])

config = small_config(**json.loads(sys.argv[2]))
program = small_program(config, 8)
step = program.compiled(config, lambda line: None).train_step
batches = batches_of(small_store(Path(sys.argv[1])), config)
batch = program.put(next(batches))
init = program.init.lower(None).compile()  # compilers take memory too, by processor: up to 150 MB for these programs
before = kibibytes("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
state = init(None, np.int32(0))
for _ in range(3):
    state, metrics = step(state, batch)
float(metrics["loss"])
print(8 * peak_bytes(step.function) / 1024, kibibytes("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [dict(mesh__data=1, mesh__fsdp=8), dict(model__remat="full")], ids=["shards", "copies"]
)
def test_memory_of_a_cpu_is_what_a_run_takes(tmp_path, changes):
    """The plan equals the growth of a real process with eight devices, once nothing is left to compile in it."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak of a process's memory is known of Linux only")
    changes |= dict(
        model__width=256,
        model__heads=8,
        model__mlp_width=1024,
        model__layers=4,
        seq_len=128,
        batch_size=64,
        eval__every=0,
    )
    ended = subprocess.run(
        [sys.executable, "-c", RUN, tmp_path / "store", json.dumps(changes)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stderr
    planned, taken = map(float, ended.stdout.split())
    assert taken == pytest.approx(planned, rel=0.15)


@functools.cache
def planned(config: str, name: str, *flags: str) -> dict:
    """Returns the JSON that scripts/plan.py writes for a config of configs/spanbert.py and a topology."""
    wheel = "jax_cuda12_plugin" if name.startswith(("h100", "a100")) else "libtpu"
    if importlib.util.find_spec(wheel) is None:
        pytest.skip(f"compiling for {name} needs {wheel}: extras plan and plan-gpu")
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS" and "CACHE" not in key}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *sys.path])
    with tempfile.NamedTemporaryFile("r") as file:
        command = [sys.executable, "scripts/plan.py", f"--config=configs/spanbert.py:{config}", f"--topology={name}"]
        command += [f"--json={file.name}", *(f"--config.{flag}" for flag in flags)]
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
        assert ended.returncode == 0 and ended.stderr == "", ended.stderr
        return json.loads(Path(file.name).read_text())


def replicated(name: str, batch_size: int) -> dict:
    """Returns the plan of `base` with all parameters on each device."""
    return planned("base", name, f"batch_size={batch_size}", f"eval.batch_size={batch_size}", "model.remat=full")


def payload(plan: dict, *kinds: str) -> float:
    """Returns the bytes of kinds of collectives on one device, per parameter of the model."""
    return sum(row["bytes"] for row in plan["collectives"] if row["kind"] in kinds) / plan["parameters"]


@pytest.mark.slow
@pytest.mark.parametrize("name, batch_size", [("v5e:4x4", 512), ("v5e:16x16", 8192), ("v6e:4x4", 512), ("h100:8", 256)])
def test_replicas_of_base_exchange_gradients_only(name, batch_size):
    plan = replicated(name, batch_size)
    assert plan["fits"] and plan["peak_bytes"] < plan["device_memory_bytes"]
    rows = [(row["kind"], row["axes"], row["dtypes"]) for row in plan["collectives"]]
    assert rows == [("all-reduce", ["data"], ["f32", "s32"])]
    # Gradients in float32, each once but for the vocabulary's table: a fifth of the model.
    assert 4 <= payload(plan, "all-reduce") < 4.88
    # The layers' forward pass runs twice.
    assert plan["compiled_flops"] / plan["analytic_flops"] == pytest.approx(4 / 3, rel=0.08)


@pytest.mark.slow
def test_collective_bytes_per_chip_are_the_same_on_16_and_on_256_chips():
    few, many = replicated("v5e:4x4", 512), replicated("v5e:16x16", 8192)
    assert few["collective_bytes_per_device"] == pytest.approx(many["collective_bytes_per_device"], rel=0.01)


@pytest.mark.slow
def test_slices_exchange_gradients_only_and_each_device_sends_its_share():
    plan = replicated("2*v5e:4x4", 1024)
    assert [row["axes"] for row in plan["collectives"] if row["kind"] == "send"] == [["data"]]
    sent, reduced = payload(plan, "send"), payload(plan, "all-reduce")
    assert sent == pytest.approx(reduced / 16, rel=0.05)  # a device's share of the sum over its slice
    assert payload(plan, "all-gather") == pytest.approx(reduced, rel=0.01)  # of the sum over slices
    seconds = sent * plan["parameters"] / plan["device"]["network_bandwidth"]
    assert plan["network_seconds"] == pytest.approx(seconds, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, mesh, remat, passes",
    [
        ("v5e:4x4", (1, 16), "full", 3),
        ("v5e:16x16", (16, 16), "none", 2),
        ("v5p:2x2x4", (1, 16), "full", 3),
        ("v6e:4x4", (1, 16), "none", 2),
        ("h100:8", (1, 8), "dots", 2),
    ],
)
def test_shards_of_large_gather_parameters_once_per_pass_in_bfloat16(name, mesh, remat, passes):
    """The passes are forward, backward, and under remat "full" forward again."""
    data, fsdp = mesh
    plan = planned("large", name, f"mesh.data={data}", f"mesh.fsdp={fsdp}", f"model.remat={remat}")
    assert plan["peak_bytes"] < plan["device_memory_bytes"] and plan["seq_len"] == 512
    assert name != "v5e:16x16" or plan["peak_bytes"] < 16 * 2**30
    moved = sum(row["bytes"] for row in plan["collectives"] if row["axes"] == ["fsdp"]) / plan["parameters"]
    assert moved == pytest.approx(2 * passes + 4, rel=0.08)  # parameters in bfloat16; gradients in float32, once
    assert payload(plan, "all-gather") < 2 * passes * 1.02
    sums = [row for row in plan["collectives"] if row["kind"] in ("all-reduce", "reduce-scatter")]
    assert not any("bf16" in row["dtypes"] for row in sums)  # sums over devices are float32
    rows = plan["parameters_by_sharding"]
    large_sharded = [row for row in rows if row["layout"] != "replicated" and row["bytes"] > 10**7]
    largest_share = max(row["bytes_per_device"] / row["bytes"] for row in large_sharded)
    assert largest_share == pytest.approx(1 / fsdp, rel=0.01)

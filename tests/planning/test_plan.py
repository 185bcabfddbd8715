"""Plans: against the program that really runs, and for machines that are not here."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from spanbert_jax.errors import DoesNotFit, InputError
from spanbert_jax.planning.plan import make_plan, unfit
from spanbert_jax.planning.search import candidates, search
from spanbert_jax.planning.show import show, to_json
from spanbert_jax.planning.topologies import topology
from spanbert_jax.training.compiled import compiled
from tests.small import TOKENIZER, slots_of, small_config, small_program

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def here():
    return topology("cpu:8")


def test_a_plan_is_of_the_program_that_runs(here):
    config = small_config(mesh__data=2, mesh__fsdp=4, model__width=64, eval__every=0)
    plan, program = make_plan(config, here, TOKENIZER.vocab_size), small_program(config, 8)
    sizes = compiled(config, program, slots_of(config), lambda line: None).train.memory_analysis()
    assert (plan.arguments_bytes, plan.temporaries_bytes) == (sizes.argument_size_in_bytes, sizes.temp_size_in_bytes)
    on_first = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(program.init(None)) if leaf.dtype != program.state.key.dtype)
    batch = 4 * (4 * 16 * 64 + 8 * 16 * slots_of(config)) // 8  # int32 and float32 fields, over eight devices
    assert plan.arguments_bytes == pytest.approx(on_first + batch, rel=0.01)
    assert plan.costs.flops * 8 == pytest.approx(program.flops_per_step, rel=0.02)


def test_a_plan_tells_all_figures_with_units(here):
    plan = make_plan(small_config(mesh__fsdp=4, model__remat="full"), here, TOKENIZER.vocab_size)
    figures = json.loads(json.dumps(to_json(plan)))
    assert figures["parameters"] == sum(row["parameters"] for row in figures["parameters_by_sharding"])
    assert figures["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(plan.program.state.params))
    assert figures["step_seconds"] == max(figures[f"{name}_seconds"] for name in ("compute", "memory", "interconnect", "network"))
    assert figures["run_seconds"] == pytest.approx(figures["step_seconds"] * 20) and figures["accelerator_hours"] == pytest.approx(figures["run_seconds"] / 450)
    assert figures["tokens_per_second"] == pytest.approx(16 * 64 / figures["step_seconds"])
    assert figures["collective_bytes_per_device"] == sum(row["bytes"] for row in figures["collectives"]) > 0
    text = show(plan)
    for part in ("parameters by sharding", "collectives of a step", "GiB a device", "roofline", "MFU", "tokens/s", "accelerator-hours", "all-gather"):
        assert part in text


def test_what_does_not_fit_is_told(here, monkeypatch):
    import dataclasses
    small = dataclasses.replace(here, device=dataclasses.replace(here.device, memory_bytes=10**6))
    with pytest.raises(DoesNotFit, match=r"does not fit cpu:8: it needs 0.0\d GiB on a device that has 0.00 GiB; raise accumulation.*--search"):
        make_plan(small_config(), small, TOKENIZER.vocab_size)
    assert "more on a device" in unfit(small, None)
    with pytest.raises(DoesNotFit, match="nothing tried fits cpu:8"):
        search(small_config(), small, TOKENIZER.vocab_size, 2, lambda line: None)


def test_search_compiles_the_most_promising_and_returns_the_fastest(here):
    config, told = small_config(model__heads=8), []
    listed = candidates(config, here, TOKENIZER.vocab_size)
    assert [one.least_seconds for one in listed] == sorted(one.least_seconds for one in listed)
    assert {one.shape for one in listed} >= {(8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2)} and {one.remat for one in listed} == {"none", "dots", "full"}
    best = search(config, here, TOKENIZER.vocab_size, 3, told.append)
    assert len(told) == 4 and "--config.mesh.data=" in told[-1] and "--config.model.remat=" in told[-1]
    again = make_plan(config, here, TOKENIZER.vocab_size)
    assert best.roofline.bound_seconds <= again.roofline.bound_seconds * 1.001
    for one in listed[:1]:
        assert one.least_seconds <= best.roofline.bound_seconds


def test_problems_are_told_at_once(here):
    with pytest.raises(InputError, match=r"(?s)total_steps.*model.heads 4 must be a multiple of mesh tensor = 8"):
        make_plan(small_config(mesh__data=1, mesh__tensor=8, total_steps=0), here, TOKENIZER.vocab_size)
    with pytest.raises(InputError, match="data=3 .* is for 3 devices, but there are 8"):
        make_plan(small_config(mesh__data=3), here, TOKENIZER.vocab_size)


RUN = """
import json, sys
from pathlib import Path
from spanbert_jax.training.compiled import compiled, peak_bytes
from spanbert_jax.training.sharding import put_batch
from tests.small import batches_of, slots_of, small_config, small_program, small_store

def kibibytes(name):
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)).split()[1])

config = small_config(**json.loads(sys.argv[2]))
program = small_program(config, 8)
step = compiled(config, program, slots_of(config), lambda line: None).train
batches = batches_of(small_store(Path(sys.argv[1])), config)
batch = put_batch(program.mesh, next(batches))
before = kibibytes("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
state = program.init(None)
for _ in range(3):
    state, metrics = step(state, batch)
float(metrics["loss"])
print(8 * peak_bytes(step) / 1024, kibibytes("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("changes", [dict(mesh__data=1, mesh__fsdp=8), dict(model__remat="full")], ids=["shards", "copies"])
def test_memory_of_a_cpu_is_what_a_run_takes(tmp_path, changes):
    """Of eight devices, by the system's account of the process."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak of a process's memory is known of Linux only")
    changes |= dict(model__width=256, model__heads=8, model__mlp_width=1024, model__layers=4, seq_len=128, batch_size=64, eval__every=0)
    ended = subprocess.run([sys.executable, "-c", RUN, tmp_path / "store", json.dumps(changes)], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
                           capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    planned, taken = map(float, ended.stdout.split())
    assert taken == pytest.approx(planned, rel=0.15)


def planned(tmp_path, config: str, name: str, *flags: str) -> dict:
    """The JSON of scripts/plan.py, as a user runs it."""
    wheel = "jax_cuda12_plugin" if name.startswith(("h100", "a100")) else "libtpu"
    if importlib.util.find_spec(wheel) is None:
        pytest.skip(f"compiling for {name} wants {wheel}: extras plan and plan_gpu")
    command = [sys.executable, "scripts/plan.py", f"--config=configs/spanbert.py:{config}", f"--topology={name}", f"--json={tmp_path}/plan.json",
               *(f"--config.{flag}" for flag in flags)]
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS" and "CACHE" not in key} | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert ended.returncode == 0, ended.stderr
    return json.loads((tmp_path / "plan.json").read_text())


def payload(plan: dict, kind: str, axes: list[str]) -> int:
    return sum(row["bytes"] for row in plan["collectives"] if (row["kind"], row["axes"]) == (kind, axes))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v5e:4x4"])
def test_base_under_data_parallelism_adds_up_gradients_and_nothing_else(tmp_path, name):
    plan = planned(tmp_path, "base", name, "batch_size=512", "model.remat=full", "eval.batch_size=512")
    assert plan["fits"] and plan["peak_bytes"] < plan["device_memory_bytes"]
    assert {(row["kind"], tuple(row["axes"])) for row in plan["collectives"]} == {("all-reduce", ("data",))}
    gradients = 4 * plan["parameters"]  # in float32, each once but for the vocabulary's table: a fifth of the model, from lookup and projection
    assert gradients <= plan["collective_bytes_per_device"] < 1.22 * gradients
    assert plan["compiled_flops"] / plan["analytic_flops"] == pytest.approx(4 / 3, rel=0.08)  # the layers' forward pass twice


@pytest.mark.slow
@pytest.mark.parametrize("name, mesh", [("v5e:16x16", (16, 16))])
def test_large_with_shards_gathers_each_parameter_twice_and_in_bfloat16(tmp_path, name, mesh):
    data, fsdp = mesh
    plan = planned(tmp_path, "large", name, f"mesh.data={data}", f"mesh.fsdp={fsdp}")
    assert plan["peak_bytes"] < min(plan["device_memory_bytes"], 16 * 2**30) and plan["seq_len"] == 512
    kernels = 2 * plan["parameters"]  # in bfloat16, once
    gathered = payload(plan, "all-gather", ["fsdp"])
    assert kernels < gathered < 2.2 * kernels  # for the forward and the backward pass; the vocabulary's table and small things besides
    reduced = payload(plan, "reduce-scatter", ["fsdp"]) + payload(plan, "all-reduce", ["fsdp"])
    assert reduced == pytest.approx(4 * plan["parameters"], rel=0.1)  # gradients in float32, each once
    held = max(row["bytes_per_device"] / row["bytes"] for row in plan["parameters_by_sharding"] if row["layout"] != "replicated" and row["bytes"] > 10**7)
    assert held == pytest.approx(1 / fsdp, rel=0.01)


@pytest.mark.slow
def test_collective_bytes_a_chip_stay_the_same_from_4_to_16_chips(tmp_path):
    flags = ["model.remat=full"]
    plans = [planned(tmp_path, "base", name, *flags, f"batch_size={32 * chips}", f"eval.batch_size={32 * chips}")
             for name, chips in (("v5e:2x2", 4), ("v5e:4x4", 16))]
    assert plans[0]["collective_bytes_per_device"] == pytest.approx(plans[1]["collective_bytes_per_device"], rel=0.01)

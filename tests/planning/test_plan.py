"""Plans: against the program that really runs, and for machines that are not here."""

import dataclasses
import functools
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import pytest

from spanbert_jax.errors import DoesNotFit, InputError
from spanbert_jax.planning.plan import _used, make_plan, unfit
from spanbert_jax.planning.search import Outlook, applied, candidates, search
from spanbert_jax.planning.show import show, to_json
from spanbert_jax.planning.topologies import topology
from spanbert_jax.training.compiled import compiled
from tests.small import TOKENIZER, slots_of, small_config, small_program

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def here():
    """CPU devices with figures that are the same everywhere."""
    cpu = topology("cpu:8")
    return dataclasses.replace(
        cpu, device=dataclasses.replace(cpu.device, peak_flops=2e10, memory_bandwidth=4e9, link_bandwidth=4e9)
    )


def test_a_plan_is_of_the_program_that_runs(here):
    config = small_config(mesh__data=2, mesh__fsdp=4, model__width=64, eval__every=0)
    plan, program = make_plan(config, here, TOKENIZER.vocab_size), small_program(config, 8)
    sizes = compiled(config, program, slots_of(config), lambda line: None).train.memory_analysis()
    assert (plan.arguments_bytes, plan.temporaries_bytes) == (sizes.argument_size_in_bytes, sizes.temp_size_in_bytes)
    on_first = sum(
        leaf.addressable_shards[0].data.nbytes
        for leaf in jax.tree.leaves(program.init(None))
        if leaf.dtype != program.state.key.dtype
    )
    batch = 4 * (4 * 16 * 64 + 8 * 16 * slots_of(config)) // 8  # int32 and float32 fields, over eight devices
    assert plan.arguments_bytes == pytest.approx(on_first + batch, rel=0.01)
    assert plan.costs.flops * 8 == pytest.approx(program.flops_per_step, rel=0.02)


def test_a_plan_tells_all_figures_with_units(here):
    plan = make_plan(small_config(mesh__fsdp=4, model__remat="full"), here, TOKENIZER.vocab_size)
    figures = json.loads(json.dumps(to_json(plan)))
    assert figures["parameters"] == sum(row["parameters"] for row in figures["parameters_by_sharding"])
    assert figures["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(plan.program.state.params))
    assert figures["step_seconds"] == max(
        figures[f"{name}_seconds"] for name in ("compute", "memory", "interconnect", "network")
    )
    assert figures["run_seconds"] == pytest.approx(figures["step_seconds"] * 20) and figures[
        "accelerator_hours"
    ] == pytest.approx(figures["run_seconds"] / 450)
    assert figures["tokens_per_second"] == pytest.approx(16 * 64 / figures["step_seconds"])
    assert figures["collective_bytes_per_device"] == sum(row["bytes"] for row in figures["collectives"]) > 0
    text = show(plan)
    for part in (
        "parameters by sharding",
        "collectives of a step",
        "GiB a device",
        "roofline",
        "MFU",
        "tokens/s",
        "accelerator-hours",
        "all-gather",
    ):
        assert part in text


def test_what_does_not_fit_is_told(here):
    small = dataclasses.replace(here, device=dataclasses.replace(here.device, memory_bytes=10**6))
    with pytest.raises(
        DoesNotFit,
        match=r"does not fit cpu:8: it needs 0.0\d GiB on a device that has 0.00 GiB; raise accumulation.*--search",
    ):
        make_plan(small_config(), small, TOKENIZER.vocab_size)
    assert "more on a device" in str(unfit(small, None))
    with pytest.raises(
        DoesNotFit,
        match=r"nothing tried fits cpu:8: of 75 ways 1 were compiled, \d+ more might fit. Give --most a larger number",
    ):
        search(small_config(), small, TOKENIZER.vocab_size, 1, lambda line: None)
    none = dataclasses.replace(here, device=dataclasses.replace(here.device, memory_bytes=10**4))
    with pytest.raises(
        DoesNotFit,
        match="of 75 ways 0 were compiled, 0 more might fit. Give more devices, a smaller seq_len, or optimizer.state_dtype",
    ):
        search(small_config(), none, TOKENIZER.vocab_size, 1, lambda line: None)


@pytest.mark.parametrize(
    "message, needed",
    [
        ("Ran out of memory. Used 18.66G of 15.75G hbm", 18.66 * 2**30),
        ("the total memory required for HLO temporaries (29.30G) exceeds available HBM (15.75G).", 29.3 * 2**30),
        ("out of memory", None),
    ],
)
def test_what_a_compiler_says_it_needs(message, needed):
    assert _used(message) == (needed and round(needed))


def test_what_candidates_promise_no_plan_beats(here):
    config, outlook = small_config(model__heads=8), Outlook(here)
    listed = candidates(config, here, TOKENIZER.vocab_size)
    assert {one.shape for one in listed} >= {(8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2)} and {
        one.remat for one in listed
    } == {"none", "dots", "full"}
    for way in (((8, 1, 1), 1, "none"), ((1, 8, 1), 2, "dots"), ((2, 2, 2), 1, "full")):
        (one,) = (one for one in listed if (one.shape, one.accumulation, one.remat) == way)
        plan = make_plan(applied(config, *way), here, TOKENIZER.vocab_size)
        assert (
            one.state_bytes < plan.arguments_bytes
            and one.state_bytes + one.gradient_bytes + one.kept_bytes < plan.peak_bytes
        )
        assert outlook.seconds(one) < plan.roofline.bound_seconds
        outlook.learn(one, plan)  # and then it is known how long it takes, and to the byte what it needs
        assert outlook.seconds(one) == pytest.approx(
            max(plan.roofline.compute_seconds, plan.roofline.memory_seconds), rel=0.03
        )
        assert one.state_bytes + one.gradient_bytes + outlook.memory[one.remat] * one.kept_bytes == pytest.approx(
            plan.peak_bytes
        )


def test_search_returns_the_fastest_of_what_fits(here):
    """On devices where the fastest way of all does not."""
    config, told = small_config(batch_size=64, seq_len=128, model__heads=8, model__attention_dropout=0.1), []
    fastest, smallest = (
        make_plan(applied(config, (8, 1, 1), 1, remat), here, TOKENIZER.vocab_size).peak_bytes
        for remat in ("none", "full")
    )
    tight = dataclasses.replace(here, device=dataclasses.replace(here.device, memory_bytes=(fastest + smallest) // 2))
    best = search(config, tight, TOKENIZER.vocab_size, 5, told.append)
    assert best.peak_bytes <= tight.device.memory_bytes
    assert told[0].endswith("accumulation=1 --config.model.remat=none: does not fit")
    times = [
        float(line.rpartition(": ")[2].split(" ms")[0].replace(",", "")) for line in told[:-1] if " ms a step" in line
    ]
    assert best.roofline.bound_seconds * 1e3 == pytest.approx(min(times), abs=0.06) and len(told) <= 6
    assert (
        f"--config.accumulation={best.config.accumulation} --config.model.remat={best.config.model.remat}" in told[-1]
    )


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
@pytest.mark.parametrize(
    "changes", [dict(mesh__data=1, mesh__fsdp=8), dict(model__remat="full")], ids=["shards", "copies"]
)
def test_memory_of_a_cpu_is_what_a_run_takes(tmp_path, changes):
    """Of eight devices, by the system's account of the process."""
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
    """The JSON of scripts/plan.py, as a user runs it."""
    wheel = "jax_cuda12_plugin" if name.startswith(("h100", "a100")) else "libtpu"
    if importlib.util.find_spec(wheel) is None:
        pytest.skip(f"compiling for {name} wants {wheel}: extras plan and plan-gpu")
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS" and "CACHE" not in key} | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])
    }
    with tempfile.NamedTemporaryFile("r") as file:
        command = [
            sys.executable,
            "scripts/plan.py",
            f"--config=configs/spanbert.py:{config}",
            f"--topology={name}",
            f"--json={file.name}",
            *(f"--config.{flag}" for flag in flags),
        ]
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
        assert ended.returncode == 0 and ended.stderr == "", ended.stderr
        return json.loads(Path(file.name).read_text())


def with_copies(name: str, batch_size: int) -> dict:
    """The plan of `base` with all parameters on each device."""
    return planned("base", name, f"batch_size={batch_size}", f"eval.batch_size={batch_size}", "model.remat=full")


def payload(plan: dict, *kinds: str) -> float:
    """Bytes on a device, a parameter of the model."""
    return sum(row["bytes"] for row in plan["collectives"] if row["kind"] in kinds) / plan["parameters"]


@pytest.mark.slow
@pytest.mark.parametrize("name, batch_size", [("v5e:4x4", 512), ("v5e:16x16", 8192), ("v6e:4x4", 512), ("h100:8", 256)])
def test_base_with_copies_adds_up_gradients_and_nothing_else(name, batch_size):
    plan = with_copies(name, batch_size)
    assert plan["fits"] and plan["peak_bytes"] < plan["device_memory_bytes"]
    assert [(row["kind"], row["axes"], row["dtypes"]) for row in plan["collectives"]] == [
        ("all-reduce", ["data"], ["f32", "s32"])
    ]
    assert (
        4 <= payload(plan, "all-reduce") < 4.88
    )  # gradients in float32, each once but for the vocabulary's table: a fifth of the model
    assert plan["compiled_flops"] / plan["analytic_flops"] == pytest.approx(
        4 / 3, rel=0.08
    )  # the layers' forward pass twice


@pytest.mark.slow
def test_collective_bytes_a_chip_are_the_same_on_16_and_on_256_chips():
    few, many = with_copies("v5e:4x4", 512), with_copies("v5e:16x16", 8192)
    assert few["collective_bytes_per_device"] == pytest.approx(many["collective_bytes_per_device"], rel=0.01)


@pytest.mark.slow
def test_two_slices_send_each_other_gradients_alone_and_each_device_its_share():
    plan = with_copies("2*v5e:4x4", 1024)
    assert [row["axes"] for row in plan["collectives"] if row["kind"] == "send"] == [["data"]]
    assert payload(plan, "send") == pytest.approx(
        payload(plan, "all-reduce") / 16, rel=0.05
    )  # of the sum over a slice, once
    assert payload(plan, "all-gather") == pytest.approx(payload(plan, "all-reduce"), rel=0.01)  # of the sum over slices
    assert plan["network_seconds"] == pytest.approx(
        payload(plan, "send") * plan["parameters"] / plan["device"]["network_bandwidth"], rel=0.01
    )


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
def test_large_in_shards_gathers_parameters_once_a_pass_and_in_bfloat16(name, mesh, remat, passes):
    """Passes: forward, backward, and under remat "full" forward once more."""
    data, fsdp = mesh
    plan = planned("large", name, f"mesh.data={data}", f"mesh.fsdp={fsdp}", f"model.remat={remat}")
    assert plan["peak_bytes"] < plan["device_memory_bytes"] and plan["seq_len"] == 512
    assert name != "v5e:16x16" or plan["peak_bytes"] < 16 * 2**30
    moved = sum(payload(plan, row["kind"]) for row in plan["collectives"] if row["axes"] == ["fsdp"])
    assert moved == pytest.approx(2 * passes + 4, rel=0.08)  # parameters in bfloat16; gradients in float32, once
    assert payload(plan, "all-gather") < 2 * passes * 1.02
    assert not any(
        "bf16" in row["dtypes"] for row in plan["collectives"] if row["kind"] in ("all-reduce", "reduce-scatter")
    )  # what is summed is float32
    held = max(
        row["bytes_per_device"] / row["bytes"]
        for row in plan["parameters_by_sharding"]
        if row["layout"] != "replicated" and row["bytes"] > 10**7
    )
    assert held == pytest.approx(1 / fsdp, rel=0.01)

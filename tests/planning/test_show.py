"""Plans as text and as JSON."""

import json

import jax
import pytest

from spanbert_jax.planning.plan import make_plan
from spanbert_jax.planning.show import show, to_json
from spanbert_jax.planning.topologies import make_topology
from tests.small import TOKENIZER, small_config


@pytest.fixture(scope="module")
def plan():
    """A plan for eight CPU devices."""
    return make_plan(small_config(mesh__fsdp=4, model__remat="full"), make_topology("cpu:8"), TOKENIZER.vocab_size)


def test_figures_of_the_json_agree(plan):
    figures = json.loads(json.dumps(to_json(plan)))
    assert figures["parameters"] == sum(row["parameters"] for row in figures["parameters_by_sharding"])
    assert figures["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(plan.program.state.params))
    times = [figures[f"{name}_seconds"] for name in ("compute", "memory", "interconnect", "network")]
    assert figures["step_seconds"] == max(times)
    assert figures["run_seconds"] == pytest.approx(figures["step_seconds"] * 20)
    assert figures["accelerator_hours"] == pytest.approx(figures["run_seconds"] / 450)
    assert figures["tokens_per_second"] == pytest.approx(16 * 64 / figures["step_seconds"])
    assert figures["collective_bytes_per_device"] == sum(row["bytes"] for row in figures["collectives"]) > 0


def test_text_has_all_tables_and_lines(plan):
    text = show(plan)
    for table in ("parameters by sharding", "collectives per step", "all-gather"):
        assert table in text
    lines = {line.split(" ")[0]: line for line in text.splitlines()}
    assert "GiB per device" in lines["memory"] and "recomputed by remat" in lines["FLOPs"]
    assert "ms per step" in lines["roofline"] and "accelerator-hours" in lines["run"]
    assert "MFU" in lines["bound"] and "tokens/s" in lines["bound"]

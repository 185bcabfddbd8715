"""A plan as text for people, and as one JSON object."""

import dataclasses
import io
from collections.abc import Sequence

import rich.box
import rich.console
import rich.table

from spanbert_jax.phases import Phase
from spanbert_jax.planning.plan import Plan, collectives_by_kind, parameters_by_sharding
from spanbert_jax.training.metrics import duration

MIB, GIB = 2**20, 2**30
RECOMPUTED_SHARE = 0.02  # compiled FLOPs that exceed the formula's by more than this share are reported as such


def to_json(plan: Plan) -> dict:
    """Returns all figures of a plan. Units are in the names; FLOPs and bytes are those of one step."""
    device, line = plan.topology.device, plan.roofline
    parameters, collectives = parameters_by_sharding(plan), collectives_by_kind(plan)
    return {
        "config": plan.config.name,
        "topology": plan.topology.name,
        "devices": plan.devices,
        "slices": plan.topology.slices,
        "device": dataclasses.asdict(device) | {"kinds": list(device.kinds)},
        "mesh": dict(plan.program.mesh.shape),
        "accumulation": plan.config.accumulation,
        "remat": plan.config.model.remat,
        "attention": plan.program.spec.attention,
        "batch_size": plan.config.batch_size,
        "seq_len": plan.config.seq_len,
        "parameters": sum(row["parameters"] for row in parameters),
        "parameters_by_sharding": parameters,
        "arguments_bytes": plan.arguments_bytes,
        "temporaries_bytes": plan.temporaries_bytes,
        "peak_bytes": plan.peak_bytes,
        "device_memory_bytes": device.memory_bytes,
        "fits": True,
        "analytic_flops": plan.program.flops_per_step,
        "compiled_flops": plan.costs.flops * plan.devices,
        "optimizer_flops": plan.costs.optimizer_flops * plan.devices,
        "memory_traffic_bytes_per_device": plan.costs.bytes,
        "collectives": collectives,
        "collective_bytes_per_device": sum(row["bytes"] for row in collectives),
        "compute_seconds": line.compute_seconds,
        "memory_seconds": line.memory_seconds,
        "interconnect_seconds": line.interconnect_seconds,
        "network_seconds": line.network_seconds,
        "bound_by": line.bound_by,
        "step_seconds": line.bound_seconds,
        "step_without_overlap_seconds": line.serial_seconds,
        "mfu": plan.mfu,
        "tokens_per_second": plan.tokens_per_second,
        "total_steps": plan.steps,
        "run_seconds": plan.run_seconds,
        "accelerator_hours": plan.run_seconds / 3600 * plan.devices,
        "compile_seconds": plan.compile_seconds,
    }


def phases_to_json(plans: Sequence[tuple[Phase, Plan]]) -> dict:
    """Returns all figures of the plans of the phases of a run: to_json, if there is one."""
    figures = [to_json(plan) for _, plan in plans]
    if len(plans) == 1:
        return figures[0]
    sums = {key: sum(each[key] for each in figures) for key in ("total_steps", "run_seconds", "accelerator_hours")}
    same = {key: figures[0][key] for key in ("config", "topology", "devices")}
    changed = [{"phase": phase.number, "changes": list(phase.changes)} for phase, _ in plans]
    return same | sums | {"phases": [phase | each for phase, each in zip(changed, figures)]}


def show_phases(plans: Sequence[tuple[Phase, Plan]]) -> str:
    """Returns the plans of the phases of a run as text, with their sum: show, if there is one."""
    if len(plans) == 1:
        return show(plans[0][1])
    texts = [f"{phase}\n{show(plan)}" for phase, plan in plans]
    figures = phases_to_json(plans)
    return "\n\n".join([*texts, f"all phases {_run_line(figures)}"])


def show(plan: Plan) -> str:
    """Returns the plan as tables and lines."""
    figures = to_json(plan)
    mesh = ", ".join(f"{axis}={size}" for axis, size in figures["mesh"].items())
    heading = (
        f"{figures['config']} on {figures['topology']}: {figures['devices']} x {figures['device']['name']}, "
        f"mesh {mesh}, accumulation {figures['accumulation']}, remat {figures['remat']}, "
        f"attention {figures['attention']}; compiled in {figures['compile_seconds']:.0f} s"
    )
    return "\n".join(
        [heading, _parameters_table(figures), _collectives_table(figures), _memory_line(figures), *_time_lines(figures)]
    )


def _parameters_table(figures: dict) -> str:
    rows = [
        (row["layout"], f"{row['parameters']:,}", f"{row['bytes'] / MIB:,.1f}", f"{row['bytes_per_device'] / MIB:,.1f}")
        for row in figures["parameters_by_sharding"]
    ]
    return _table(("parameters by sharding", "number", "MiB", "MiB per device"), rows)


def _collectives_table(figures: dict) -> str:
    rows = [
        (
            row["kind"],
            " x ".join(row["axes"]) or "-",
            row["part"],
            ", ".join(row["dtypes"]),
            f"{row['count']:,}",
            f"{row['bytes'] / MIB:,.1f}",
            f"{row['seconds'] * 1e3:,.2f}",
        )
        for row in figures["collectives"]
    ]
    return _table(("collectives per step", "over", "of", "types", "number", "MiB per device", "ms"), rows)


def _memory_line(figures: dict) -> str:
    peak, available, arguments, temporaries = (
        f"{figures[name] / GIB:.2f}"
        for name in ("peak_bytes", "device_memory_bytes", "arguments_bytes", "temporaries_bytes")
    )
    return f"memory     {peak} GiB per device of {available}: arguments {arguments}, temporaries {temporaries}. It fits"


def _time_lines(figures: dict) -> list[str]:
    """Returns the lines of the FLOPs, the roofline, the bound and the whole run."""
    analytic, compiled, optimizer = (figures[f"{part}_flops"] for part in ("analytic", "compiled", "optimizer"))
    flops = f"{analytic / 1e12:,.1f} T per step by formula, {compiled / 1e12:,.1f} T compiled"
    excess = (compiled - optimizer) / analytic - 1
    if excess > RECOMPUTED_SHARE:
        flops += f" ({excess:+.0%}: recomputed by remat)"
    if optimizer:
        flops += f", {optimizer / compiled:.1%} of them the optimiser's"
    names = ("compute", "memory", "interconnect", "network")
    times = "  ".join(f"{name} {figures[f'{name}_seconds'] * 1e3:,.1f}" for name in names)
    step, serial = (f"{figures[name] * 1e3:,.1f}" for name in ("step_seconds", "step_without_overlap_seconds"))
    return [
        f"FLOPs      {flops}",
        f"roofline   ms per step: {times}",
        f"bound      {step} ms per step, by {figures['bound_by']} ({serial} if nothing overlaps): "
        f"MFU {figures['mfu']:.0%}, {figures['tokens_per_second']:,.0f} tokens/s",
        f"run        {_run_line(figures)}",
    ]


def _run_line(figures: dict) -> str:
    return (
        f"{figures['total_steps']:,} steps: {duration(figures['run_seconds'])}, "
        f"{figures['accelerator_hours']:,.0f} accelerator-hours at the bound; a real run takes longer"
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table; columns of numbers after the first are aligned to the right."""
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    for column, head in enumerate(heads):
        is_number = column > 0 and bool(rows) and rows[0][column][:1].isdigit()
        table.add_column(head, justify="right" if is_number else "left")
    for row in rows:
        table.add_row(*row)
    output = io.StringIO()
    rich.console.Console(file=output, width=120).print(table)
    return output.getvalue().rstrip()

"""A plan for a person, and as one JSON object."""

import dataclasses
import io

import rich.box
import rich.console
import rich.table

from spanbert_jax.planning.plan import Plan, collectives_by_kind, parameters_by_sharding
from spanbert_jax.training.metrics import duration

MIB, GIB = 2**20, 2**30


def to_json(plan: Plan) -> dict:
    """All figures of a plan; units stand in the names, FLOPs and bytes are those of one step."""
    device, line = plan.topology.device, plan.roofline
    compiled_flops = plan.costs.flops * plan.devices
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
        "parameters": sum(row["parameters"] for row in parameters_by_sharding(plan)),
        "parameters_by_sharding": parameters_by_sharding(plan),
        "arguments_bytes": plan.arguments_bytes,
        "temporaries_bytes": plan.temporaries_bytes,
        "peak_bytes": plan.peak_bytes,
        "device_memory_bytes": device.memory_bytes,
        "fits": True,
        "analytic_flops": plan.program.flops_per_step,
        "compiled_flops": compiled_flops,
        "memory_traffic_bytes_per_device": plan.costs.bytes,
        "collectives": collectives_by_kind(plan),
        "collective_bytes_per_device": sum(row["bytes"] for row in collectives_by_kind(plan)),
        "compute_seconds": line.compute_seconds,
        "memory_seconds": line.memory_seconds,
        "interconnect_seconds": line.interconnect_seconds,
        "network_seconds": line.network_seconds,
        "bound_by": line.bound_by,
        "step_seconds": line.bound_seconds,
        "step_without_overlap_seconds": line.serial_seconds,
        "mfu": plan.mfu,
        "tokens_per_second": plan.tokens_per_second,
        "total_steps": plan.config.total_steps,
        "run_seconds": plan.run_seconds,
        "accelerator_hours": plan.run_seconds / 3600 * plan.devices,
        "compile_seconds": plan.compile_seconds,
    }


def show(plan: Plan) -> str:
    """The plan in tables and lines."""
    figures = to_json(plan)
    mesh = ", ".join(f"{axis}={size}" for axis, size in figures["mesh"].items())
    return "\n".join(
        [
            f"{figures['config']} on {figures['topology']}: {plan.devices} x {plan.topology.device.name}, mesh {mesh}, accumulation "
            f"{figures['accumulation']}, remat {figures['remat']}, attention {figures['attention']}; compiled in {plan.compile_seconds:.0f} s",
            _table(
                ("parameters by sharding", "number", "MiB", "MiB a device"),
                [
                    (
                        row["layout"],
                        f"{row['parameters']:,}",
                        f"{row['bytes'] / MIB:,.1f}",
                        f"{row['bytes_per_device'] / MIB:,.1f}",
                    )
                    for row in figures["parameters_by_sharding"]
                ],
            ),
            _table(
                ("collectives of a step", "over", "types", "number", "MiB a device", "ms"),
                [
                    (
                        row["kind"],
                        " x ".join(row["axes"]) or "-",
                        ", ".join(row["dtypes"]),
                        f"{row['count']:,}",
                        f"{row['bytes'] / MIB:,.1f}",
                        f"{row['seconds'] * 1e3:,.2f}",
                    )
                    for row in figures["collectives"]
                ],
            ),
            *_lines(plan, figures),
        ]
    )


def _lines(plan: Plan, figures: dict) -> list[str]:
    """Memory, FLOPs, roofline and bill, a line each."""
    line = plan.roofline
    more = figures["compiled_flops"] / figures["analytic_flops"] - 1
    times = "  ".join(
        f"{name} {getattr(line, f'{name}_seconds') * 1e3:,.1f}"
        for name in ("compute", "memory", "interconnect", "network")
    )
    return [
        f"memory     {plan.peak_bytes / GIB:.2f} GiB a device of {plan.topology.device.memory_bytes / GIB:.2f}: arguments "
        f"{plan.arguments_bytes / GIB:.2f}, temporaries {plan.temporaries_bytes / GIB:.2f}. It fits",
        f"FLOPs      {figures['analytic_flops'] / 1e12:,.1f} T a step by formula, {figures['compiled_flops'] / 1e12:,.1f} T compiled ({more:+.0%}: what "
        "remat computes anew)"
        if more > 0.02
        else f"FLOPs      {figures['analytic_flops'] / 1e12:,.1f} T a step by formula, {figures['compiled_flops'] / 1e12:,.1f} T compiled",
        f"roofline   ms a step: {times}",
        f"bound      {line.bound_seconds * 1e3:,.1f} ms a step, by {line.bound_by} ({line.serial_seconds * 1e3:,.1f} if nothing overlapped): MFU "
        f"{plan.mfu:.0%}, {plan.tokens_per_second:,.0f} tokens/s",
        f"the run    {plan.config.total_steps:,} steps: {duration(plan.run_seconds)}, {figures['accelerator_hours']:,.0f} accelerator-hours, at the bound; "
        "a real one takes longer",
    ]


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    for number, head in enumerate(heads):
        table.add_column(head, justify="right" if number and rows and rows[0][number][:1].isdigit() else "left")
    for row in rows:
        table.add_row(*row)
    console = rich.console.Console(file=io.StringIO(), width=120)
    console.print(table)
    return console.file.getvalue().rstrip()

"""Pretrains a model as a config describes. The same command resumes an interrupted run."""

import argparse
from pathlib import Path

from spanbert_jax import cli
from spanbert_jax.errors import InputError
from spanbert_jax.memory import keep_memory


def main() -> int:
    """Runs the command on sys.argv; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    cli.add_run_flags(parser)
    branch_help = "begin as a copy of this run after --branch_step, with its optimiser state"
    parser.add_argument("--branch", type=Path, metavar="WORKDIR", help=branch_help)
    branch_step_help = "step of a checkpoint of --branch (default: the newest one)"
    parser.add_argument("--branch_step", type=int, metavar="N", help=branch_step_help)
    budget_help = (
        'total_steps as what they cost: "3e9 tokens", "2 epochs", "24h on h100:1", "9 device-hours on v5e:4x4"'
    )
    parser.add_argument("--budget", metavar="AMOUNT", help=budget_help)
    fit_help = "choose mesh, accumulation and model.remat by the plan's search for this machine"
    parser.add_argument("--fit", action="store_true", help=fit_help)
    flags = cli.parse(parser)
    keep_memory()
    if flags.init:
        flags.config.init.path = flags.init
    from spanbert_jax.training.processes import join  # slow imports, so after the flags are checked

    join(flags.distributed, flags.coordinator, flags.processes, flags.process)
    from spanbert_jax.training.branching import branch
    from spanbert_jax.training.pretrain import pretrain
    from spanbert_jax.training.processes import agreed, is_first

    with agreed():
        if flags.branch and is_first():
            branch(flags.branch, flags.branch_step, flags.workdir)
    if flags.budget:
        flags.config = with_budget(flags)
    if flags.fit:
        from spanbert_jax.planning.fit import fitted
        from spanbert_jax.training.pretrain import log

        flags.config = fitted(flags.config, flags.workdir, log)
    return pretrain(flags.config, flags.workdir, tuple(filter(None, flags.allow.split(","))))


def with_budget(flags: argparse.Namespace):
    """Returns the config with the total_steps that --budget pays for, which are found once and then recorded."""
    from spanbert_jax.config import with_changes
    from spanbert_jax.planning import budget
    from spanbert_jax.training.pretrain import log, training_rows
    from spanbert_jax.training.processes import agreed, is_first

    parsed = budget.parse(flags.budget)
    if flags.config.phases:
        raise InputError("--budget: phases begin at given steps; give --config.total_steps too, instead of a budget")
    with agreed():
        if is_first() and budget.resolved_before(flags.workdir, flags.budget) is None:
            found = budget.steps_of(
                parsed,
                flags.config,
                lambda: training_rows(flags.config, flags.workdir),
                lambda machine: budget.planned_seconds(flags.config_spec, flags.config_overrides, machine),
            )
            budget.write(flags.workdir, flags.budget, found)
    resolved = budget.resolved_before(flags.workdir, flags.budget)
    assert resolved is not None
    log(f"--budget {flags.budget}: {resolved.steps:,} steps ({resolved.reason})")
    return with_changes(flags.config, {"total_steps": resolved.steps})

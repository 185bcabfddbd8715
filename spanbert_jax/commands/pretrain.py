"""Pretrains a model as a config describes. The same command resumes an interrupted run."""

import argparse
from pathlib import Path

from spanbert_jax import cli


def main() -> int:
    """Runs the command on sys.argv; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    cli.add_run_flags(parser)
    branch_help = "begin as a copy of this run after --branch_step, with its optimiser state"
    parser.add_argument("--branch", type=Path, metavar="WORKDIR", help=branch_help)
    branch_step_help = "step of a checkpoint of --branch (default: the newest one)"
    parser.add_argument("--branch_step", type=int, metavar="N", help=branch_step_help)
    flags = cli.parse(parser)
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
    return pretrain(flags.config, flags.workdir, tuple(filter(None, flags.allow.split(","))))

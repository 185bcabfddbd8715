"""Fine-tunes a model on a task as a config describes. The same command resumes an interrupted run.

--config=configs/tasks/glue.py:rte --config.task.train=RTE/train --config.task.valid=RTE/dev --init=runs/base
"""

import argparse

from spanbert_jax import cli
from spanbert_jax.errors import InputError


def main() -> int:
    """Runs the command on sys.argv; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cli.add_run_flags(parser)
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="runs, each with a seed, in workdir/seed_0, ..."
    )
    parser.add_argument(
        "--folds",
        type=int,
        default=0,
        metavar="K",
        help="cross-validation: runs, each without a K-th of task.train, "
        "which it is validated on, in workdir/fold_1, ...",
    )
    flags = cli.parse(parser)
    if flags.init:
        flags.config.init.path = flags.init
    if "task" not in flags.config:
        raise InputError("--config: it describes no task; give one of configs/tasks")
    if flags.seeds < 1:
        raise InputError(f"--seeds must be at least 1, not {flags.seeds}")
    if flags.folds and (flags.folds < 2 or flags.seeds > 1):
        raise InputError("--folds must be at least 2, and without --seeds: give another seed by --config.seed")
    from spanbert_jax.training.processes import join  # slow imports, so after the flags are checked

    join(flags.distributed, flags.coordinator, flags.processes, flags.process)
    from spanbert_jax.finetuning.finetune import finetune
    from spanbert_jax.finetuning.repeated import finetune_folds, finetune_seeds
    from spanbert_jax.tasks import TASKS

    name = flags.config.task.name
    if name not in TASKS:
        raise InputError(f"task.name must be one of {', '.join(TASKS)}, not {name!r}")
    allowed = tuple(filter(None, flags.allow.split(",")))
    if flags.seeds > 1:
        return finetune_seeds(flags.config, flags.workdir, TASKS[name], allowed, flags.seeds)
    if flags.folds:
        return finetune_folds(flags.config, flags.workdir, TASKS[name], allowed, flags.folds)
    return finetune(flags.config, flags.workdir, TASKS[name], allowed)

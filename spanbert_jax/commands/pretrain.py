"""Pretrains a model as a config describes. The same command resumes an interrupted run."""

import argparse
from pathlib import Path

from spanbert_jax import cli


def main() -> int:
    """Runs the command on sys.argv; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    config_help = "config of the run; --config.a.b=VALUE overrides the key a.b"
    parser.add_argument("--config", required=True, metavar="CONFIG:VARIANT", help=config_help)
    parser.add_argument("--workdir", required=True, type=Path, help="folder of the run")
    init_help = "weights to start from: a run, a Hugging Face folder or a file; sets init.path"
    parser.add_argument("--init", metavar="PATH", help=init_help)
    allow_help = "config keys, separated by commas, that a resumed run changes from here on (recorded with the step)"
    parser.add_argument("--allow", default="", metavar="KEY,...", help=allow_help)
    group = parser.add_argument_group(
        "several processes",
        "Found automatically under Slurm (srun), Open MPI and on TPU slices, otherwise by these flags.",
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0, the same in all processes")
    group.add_argument("--processes", type=int, metavar="N", help="number of processes")
    group.add_argument("--process", type=int, metavar="I", help="index of this process, from 0")
    distributed_help = "off: this process runs alone, whatever launched it (default: %(default)s)"
    group.add_argument("--distributed", choices=("auto", "off"), default="auto", help=distributed_help)
    flags = cli.parse(parser)
    if flags.init:
        flags.config.init.path = flags.init
    from spanbert_jax.training.processes import join  # slow imports, so after the flags are checked

    join(flags.distributed, flags.coordinator, flags.processes, flags.process)
    from spanbert_jax.training.pretrain import pretrain

    return pretrain(flags.config, flags.workdir, tuple(filter(None, flags.allow.split(","))))

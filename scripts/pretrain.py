"""Pretrains SpanBERT, or resumes: python scripts/pretrain.py --config=configs/spanbert.py:tiny --workdir=DIR [--config.a.b=c ...]"""

import argparse
from pathlib import Path

from spanbert_jax import cli


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--config", required=True, metavar="FILE.py:VARIANT", help="and --config.a.b=VALUE overrides a key of it"
    )
    parser.add_argument(
        "--workdir", required=True, type=Path, help="folder of the run; run the same command again to resume"
    )
    parser.add_argument(
        "--init", metavar="PATH", help="weights to start from: a run, a Hugging Face folder, a file; sets init.path"
    )
    group = parser.add_argument_group(
        "several processes", "found by themselves under Slurm (srun), Open MPI and on TPU slices; else by these flags"
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0, the same in all")
    group.add_argument("--processes", type=int, metavar="N", help="how many there are")
    group.add_argument("--process", type=int, metavar="I", help="which of them this is, from 0")
    group.add_argument(
        "--distributed", choices=("auto", "off"), default="auto", help="off: this process is alone, whatever started it"
    )
    flags = cli.parse(parser)
    if flags.init:
        flags.config.init.path = flags.init
    from spanbert_jax.training.processes import join  # after the flags: a typo should not wait for these

    join(flags.distributed, flags.coordinator, flags.processes, flags.process)
    from spanbert_jax.training.pretrain import pretrain

    return pretrain(flags.config, flags.workdir)


if __name__ == "__main__":
    cli.run(main)

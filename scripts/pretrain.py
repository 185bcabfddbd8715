"""Pretrains SpanBERT, or resumes: python scripts/pretrain.py --config=configs/spanbert.py:tiny --workdir=DIR [--config.a.b=c ...]"""

import argparse
from pathlib import Path

from spanbert_jax import cli


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, metavar="FILE.py:VARIANT", help="and --config.a.b=VALUE overrides a key of it")
    parser.add_argument("--workdir", required=True, type=Path, help="folder of the run; run the same command again to resume")
    parser.add_argument("--init", metavar="PATH", help="weights to start from: a run, a Hugging Face folder, a file; sets init.path")
    flags = cli.parse(parser)
    if flags.init:
        flags.config.init.path = flags.init
    from spanbert_jax.training.pretrain import pretrain  # after the flags: a typo should not wait for tensorflow
    return pretrain(flags.config, flags.workdir)


if __name__ == "__main__":
    cli.run(main)

"""Prints masked rows of a batch: python scripts/show_batch.py --config=configs/spanbert.py:tiny [--workdir=DIR] [--step=S] [--rows=N]"""

import argparse
from pathlib import Path

from spanbert_jax import cli


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--config", required=True, metavar="FILE.py:VARIANT", help="and --config.a.b=VALUE overrides a key of it"
    )
    parser.add_argument(
        "--workdir", type=Path, help="folder of a run whose tokenised text to use; else text is tokenised anew"
    )
    parser.add_argument(
        "--split",
        choices=("train", "valid"),
        default="train",
        help="of training or of evaluation (default: %(default)s)",
    )
    parser.add_argument("--step", type=int, default=0, help="number of the batch, from 0 (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=2, help="how many of its rows to print (default: %(default)s)")
    flags = cli.parse(parser)
    from rich.console import Console  # after the flags: a typo should not wait for tensorflow

    from spanbert_jax.data.show import batch_to_show, show_batch

    with Console(stderr=True).status("making the batch") as status:
        batch, tokenizer = batch_to_show(flags.config, flags.workdir, flags.split, flags.step, tell=status.update)
    Console(highlight=False).print(show_batch(batch, tokenizer, flags.rows))


if __name__ == "__main__":
    cli.run(main)

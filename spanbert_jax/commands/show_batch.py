"""Prints rows of a masked batch: spans, boundaries and targets."""

import argparse
from pathlib import Path

from spanbert_jax import cli


def main() -> None:
    """Runs the command on sys.argv."""
    parser = argparse.ArgumentParser(description=__doc__)
    config_help = "config of a run; --config.a.b=VALUE overrides the key a.b"
    parser.add_argument("--config", required=True, metavar="CONFIG:VARIANT", help=config_help)
    workdir_help = "folder of a run whose store is read; default: the text of the config is tokenised"
    parser.add_argument("--workdir", type=Path, help=workdir_help)
    split_help = "a training batch or an evaluation batch (default: %(default)s)"
    parser.add_argument("--split", choices=("train", "valid"), default="train", help=split_help)
    parser.add_argument("--step", type=int, default=0, help="number of the batch, from 0 (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=2, help="number of rows to print (default: %(default)s)")
    flags = cli.parse(parser)
    from rich.console import Console  # slow imports, so after the flags are checked

    from spanbert_jax.data.show import batch_to_show, show_batch

    with Console(stderr=True).status("making the batch") as status:
        batch, tokenizer = batch_to_show(flags.config, flags.workdir, flags.split, flags.step, log=status.update)
    Console(highlight=False).print(show_batch(batch, tokenizer, flags.rows))

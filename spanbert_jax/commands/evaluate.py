"""Scores a pretrained model without fine-tuning: minimal pairs such as BLiMP's, and spans of hidden words.

  --suites=pairs=blimp.jsonl,cloze

pairs=FILE          JSON lines with "sentence_good" and "sentence_bad" (or "good" and "bad"); each token hidden alone
pairs_by_word=FILE  the same, with the rest of a token's word hidden too
cloze               spans of one to five words of the run's held-out text, predicted by MLM, SBO and both
cloze=FILE          the same for a text on each line of a file
"""

import argparse
import contextlib
import json
from pathlib import Path

from spanbert_jax import cli
from spanbert_jax.errors import InputError
from spanbert_jax.folders import atomic_file


def main() -> int:
    """Runs the command on sys.argv; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, type=Path, help=cli.MODEL_HELP)
    parser.add_argument("--step", type=int, help="step of the checkpoint; default: the newest one")
    parser.add_argument("--suites", required=True, metavar="SUITE,...", help="see above")
    parser.add_argument("--batch_size", type=int, default=64, help="rows of a batch (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the metrics to a file")
    flags = cli.parse(parser)
    if flags.batch_size < 1:
        raise InputError(f"--batch_size must be at least 1, not {flags.batch_size}")
    from rich.console import Console  # slow imports, so after the flags are checked
    from rich.progress import track
    from rich.table import Table

    from spanbert_jax.tasks.zero_shot import evaluate

    def progress(batches, number: int, what: str):
        return track(batches, total=number, description=what, console=Console(stderr=True), transient=True)

    console = Console(highlight=False)
    with atomic_file(flags.json) if flags.json else contextlib.nullcontext() as file:  # fails before the work
        metrics = evaluate(flags.workdir, flags.step, flags.suites.split(","), flags.batch_size, progress)
        for label, values in metrics.items():
            table = Table("metric", "value", title=label, title_justify="left")
            for name, value in values.items():
                table.add_row(name.removeprefix(label).lstrip("/_"), f"{value:.4g}")
            console.print(table)
        if file:
            file.write(json.dumps(metrics, indent=2) + "\n")
    return 0

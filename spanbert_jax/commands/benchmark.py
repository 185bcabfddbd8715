"""Runs a benchmark suite and prints its figures."""

import argparse
import json
from pathlib import Path

from spanbert_jax import cli
from spanbert_jax.errors import InputError


def main() -> int:
    """Runs the command on sys.argv; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", choices=("pipeline", "prepare", "train_step", "finetune", "finetune_quality"))
    input_help = "prepare: text files (default: several copies of the embedded corpus); finetune_quality: data sets"
    parser.add_argument("--input", default="embedded", help=input_help)
    group = parser.add_argument_group("finetune_quality")
    group.add_argument("--init", metavar="FOLDER", help="a BERT in a Hugging Face folder, which both sides start from")
    group.add_argument("--workdir", type=Path, help="folder of the results; the same command goes on with them")
    group.add_argument("--tasks", default="", metavar="TASK,...", help="default: all of them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE, as one JSON object")
    flags = cli.parse(parser)
    arguments = [flags.input] if flags.suite == "prepare" else []
    if flags.suite == "finetune_quality":
        if not (flags.init and flags.workdir and Path(flags.input).is_dir()):
            raise InputError("finetune_quality needs --input=FOLDER of data sets, --init=FOLDER and --workdir=FOLDER")
        arguments = [Path(flags.input), flags.init, flags.workdir, tuple(filter(None, flags.tasks.split(",")))]
    from spanbert_jax.experiments.benchmark import SUITES

    figures = SUITES[flags.suite](*arguments)
    for name, value in figures.items():
        print(f"{name:40} {value:>20,}")
    if flags.json:
        flags.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0

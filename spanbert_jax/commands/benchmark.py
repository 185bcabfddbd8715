"""Runs a benchmark suite and prints its figures."""

import argparse
import json
from pathlib import Path

from spanbert_jax import cli
from spanbert_jax.errors import InputError
from spanbert_jax.memory import keep_memory

SPEED = ("pipeline", "prepare", "train_step", "packing", "start", "checkpoint", "recipes", "finetune")
PRETRAINING = ("train_step", "packing", "recipes")  # suites of one shape of batches, which run as pretraining does
SIZES = ("small", "base256", "base512")
QUALITY = ("finetune_quality", "pretraining_quality")


def main() -> int:
    """Runs the command on sys.argv; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", choices=SPEED + QUALITY)
    input_help = (
        "prepare: text files (default: several copies of the embedded corpus); ..._quality: folder of data sets"
    )
    parser.add_argument("--input", default="embedded", help=input_help)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE, as one JSON object")
    parser.add_argument("--size", choices=SIZES, default="small", help="train_step: of the model and its rows")
    group = parser.add_argument_group("suites of quality, which take long; the same command goes on with them")
    group.add_argument("--workdir", type=Path, help="folder of the results")
    group.add_argument("--init", metavar="FOLDER", help="finetune_quality: a BERT in a Hugging Face folder")
    group.add_argument("--tasks", default="", metavar="TASK,...", help="finetune_quality: default: all of them")
    group.add_argument("--minutes", type=float, default=20, help="pretraining_quality: of training for each model")
    flags = cli.parse(parser)
    arguments: list = [flags.input] if flags.suite == "prepare" else []
    if flags.suite == "train_step":
        arguments.append(flags.size)
    if flags.suite in QUALITY:
        if not (flags.workdir and Path(flags.input).is_dir()):
            raise InputError(f"{flags.suite} needs --input=FOLDER, the data sets, and --workdir=FOLDER")
        arguments = [Path(flags.input), flags.workdir]
    if flags.suite == "finetune_quality":
        if not flags.init:
            raise InputError("finetune_quality needs --init=FOLDER, the BERT that both sides start from")
        arguments += [flags.init, tuple(filter(None, flags.tasks.split(",")))]
    if flags.suite == "pretraining_quality":
        arguments.append(flags.minutes)
    if flags.suite in PRETRAINING:
        keep_memory()
    from spanbert_jax.experiments.benchmark import SUITES

    figures = SUITES[flags.suite](*arguments)
    for name, value in figures.items():
        print(f"{name:40} {value:>20,}")
    if flags.json:
        flags.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0

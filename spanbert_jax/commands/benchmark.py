"""Runs a benchmark suite and prints its figures."""

import argparse
import json
from pathlib import Path

from spanbert_jax import cli


def main() -> int:
    """Runs the command on sys.argv; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", choices=("pipeline", "prepare", "train_step", "finetune"))
    input_help = "text files for the suite prepare; default: several copies of the embedded corpus"
    parser.add_argument("--input", default="embedded", help=input_help)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE, as one JSON object")
    flags = cli.parse(parser)
    from spanbert_jax.experiments.benchmark import SUITES

    figures = SUITES[flags.suite](*([flags.input] if flags.suite == "prepare" else []))
    for name, value in figures.items():
        print(f"{name:40} {value:>20,}")
    if flags.json:
        flags.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0

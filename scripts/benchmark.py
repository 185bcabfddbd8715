"""Prints the figures of a benchmark suite: python scripts/benchmark.py pipeline|prepare|train_step [--json=FILE]"""

import argparse
import json
from pathlib import Path

from spanbert_jax import cli


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", choices=("pipeline", "prepare", "train_step"))
    parser.add_argument(
        "--input", default="embedded", help="of prepare: text files, or 'embedded', which is then read many times over"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too, as one JSON object")
    flags = cli.parse(parser)
    from spanbert_jax.experiments.benchmark import SUITES

    figures = SUITES[flags.suite](*([flags.input] if flags.suite == "prepare" else []))
    for name, value in figures.items():
        print(f"{name:40} {value:>20,}")
    if flags.json:
        flags.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    cli.run(main)

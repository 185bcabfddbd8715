"""Plots losses of pretraining runs: python scripts/plot_metrics.py WORKDIR [WORKDIR ...] [--output=loss.png]"""

import argparse
from pathlib import Path

from spanbert_jax import cli


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "workdirs", nargs="+", type=Path, metavar="WORKDIR", help="folder of a run; several are drawn over each other"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("loss.png"), help=".png, .svg or .pdf (default: %(default)s)"
    )
    flags = cli.parse(parser)
    from spanbert_jax.experiments.curve import plot_curves  # after the flags: a typo should not wait for tensorflow

    plot_curves(flags.workdirs, flags.output)
    print(f"losses of {', '.join(map(str, flags.workdirs))} in {flags.output}")
    return 0


if __name__ == "__main__":
    cli.run(main)

"""Plots the losses of pretraining runs."""

import argparse
from pathlib import Path

from spanbert_jax import cli


def main() -> int:
    """Runs the command on sys.argv; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    workdirs_help = "folder of a run; several runs are drawn into the same panels"
    parser.add_argument("workdirs", nargs="+", type=Path, metavar="WORKDIR", help=workdirs_help)
    output_help = "file of the plot: .png, .svg or .pdf (default: %(default)s)"
    parser.add_argument("--output", type=Path, default=Path("loss.png"), help=output_help)
    flags = cli.parse(parser)
    from spanbert_jax.experiments.curve import plot_curves  # slow import, so after the flags are checked

    plot_curves(flags.workdirs, flags.output)
    print(f"plotted the losses of {', '.join(map(str, flags.workdirs))} to {flags.output}")
    return 0

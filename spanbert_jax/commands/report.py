"""Writes a report on runs: one HTML file that needs no network, and its tables as Markdown and CSV.

Runs that differ in their seed alone are one arm: the report gives means and standard deviations over its runs, and says
whether the differences between arms exceed the spread between seeds.
"""

import argparse
from pathlib import Path

from spanbert_jax import cli


def main() -> int:
    """Runs the command on sys.argv; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    runs_help = "folder of a run, of the seeds of one, or of a sweep"
    parser.add_argument("runs", nargs="+", type=Path, metavar="FOLDER", help=runs_help)
    output_help = "the HTML file (default: %(default)s); the tables are beside it as .md and .csv"
    parser.add_argument("--output", type=Path, default=Path("report.html"), help=output_help)
    samples_help = "held-out texts whose spans are filled by the first run of each arm; 0: none (default: %(default)s)"
    parser.add_argument("--samples", type=int, default=2, metavar="N", help=samples_help)
    flags = cli.parse(parser)
    from spanbert_jax.experiments.report.page import make_report  # slow import, so after the flags are checked

    files = make_report(flags.runs, flags.output, flags.samples, print)
    print(f"wrote {', '.join(map(str, files))}")
    return 0

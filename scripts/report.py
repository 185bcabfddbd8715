"""Writes a report on runs; in an installation `spanbert report`."""

from spanbert_jax import cli
from spanbert_jax.commands import report

if __name__ == "__main__":
    cli.run(report.main)

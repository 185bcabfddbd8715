"""Runs a benchmark suite and prints its figures; in an installation `spanbert benchmark`."""

from spanbert_jax import cli
from spanbert_jax.commands import benchmark

if __name__ == "__main__":
    cli.run(benchmark.main)

"""Runs a config many times with changes; in an installation `spanbert sweep`."""

from spanbert_jax import cli
from spanbert_jax.commands import sweep

if __name__ == "__main__":
    cli.run(sweep.main)

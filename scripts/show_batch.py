"""Prints rows of a masked batch: spans, boundaries and targets; in an installation `spanbert show_batch`."""

from spanbert_jax import cli
from spanbert_jax.commands import show_batch

if __name__ == "__main__":
    cli.run(show_batch.main)

"""Fills hidden spans of text with the model of a pretraining run; in an installation `spanbert fill_spans`."""

from spanbert_jax import cli
from spanbert_jax.commands import fill_spans

if __name__ == "__main__":
    cli.run(fill_spans.main)

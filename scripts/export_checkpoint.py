"""Exports the weights of a run for other libraries; in an installation `spanbert export_checkpoint`."""

from spanbert_jax import cli
from spanbert_jax.commands import export_checkpoint

if __name__ == "__main__":
    cli.run(export_checkpoint.main)

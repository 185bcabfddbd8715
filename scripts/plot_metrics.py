"""Plots the losses of pretraining runs; in an installation `spanbert plot_metrics`."""

from spanbert_jax import cli
from spanbert_jax.commands import plot_metrics

if __name__ == "__main__":
    cli.run(plot_metrics.main)

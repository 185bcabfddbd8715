"""Scores a pretrained model without fine-tuning; in an installation `spanbert evaluate`."""

from spanbert_jax import cli
from spanbert_jax.commands import evaluate

if __name__ == "__main__":
    cli.run(evaluate.main)

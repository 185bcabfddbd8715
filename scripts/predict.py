"""Predicts with a fine-tuned model; in an installation `spanbert predict`."""

from spanbert_jax import cli
from spanbert_jax.commands import predict

if __name__ == "__main__":
    cli.run(predict.main)

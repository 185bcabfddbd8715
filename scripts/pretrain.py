"""Pretrains a model as a config describes, or resumes; in an installation `spanbert pretrain`."""

from spanbert_jax import cli
from spanbert_jax.commands import pretrain

if __name__ == "__main__":
    cli.run(pretrain.main)

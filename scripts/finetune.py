"""Fine-tunes a model on a task, or resumes; in an installation `spanbert finetune`."""

from spanbert_jax import cli
from spanbert_jax.commands import finetune

if __name__ == "__main__":
    cli.run(finetune.main)

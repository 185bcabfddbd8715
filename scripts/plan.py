"""Reports what a config costs on a machine, without that machine; in an installation `spanbert plan`."""

from spanbert_jax import cli
from spanbert_jax.commands import plan

if __name__ == "__main__":
    cli.run(plan.main)

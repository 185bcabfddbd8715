"""Makes a tokenised store of text; in an installation `spanbert prepare_data`."""

from spanbert_jax import cli
from spanbert_jax.commands import prepare_data

if __name__ == "__main__":
    cli.run(prepare_data.main)

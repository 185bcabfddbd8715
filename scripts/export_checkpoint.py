"""Writes a run's weights for other libraries: python scripts/export_checkpoint.py --workdir=RUN --output=DIR [--format=FORMAT] [--step=N]

huggingface  a folder that transformers' AutoModel, AutoModelForMaskedLM and AutoTokenizer load, with the SBO head in a file beside it
original     model.safetensors with the names of the original SpanBERT's state dict, both heads in it
stablehlo    the encoder and MLM head as one program for cpu, cuda and tpu, any batch and length, that runs with jax alone
"""

import argparse
from pathlib import Path

from spanbert_jax import cli


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, type=Path, help="folder of a pretraining run")
    parser.add_argument("--output", required=True, type=Path, help="folder to make")
    parser.add_argument(
        "--format", choices=("huggingface", "original", "stablehlo"), default="huggingface", help="default: %(default)s"
    )
    parser.add_argument("--step", type=int, help="of the checkpoint; default: the newest")
    flags = cli.parse(parser)
    from spanbert_jax.training.export import export_run  # after the flags: a typo should not wait for jax

    step = export_run(flags.workdir, flags.output, flags.format, flags.step)
    print(f"step {step:,} of {flags.workdir} is in {flags.output}, in the format of {flags.format}")
    return 0


if __name__ == "__main__":
    cli.run(main)

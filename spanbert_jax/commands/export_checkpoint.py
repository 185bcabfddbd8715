"""Exports the weights of a run, or of a BERT in a Hugging Face folder or a file, for other libraries.

Of a fine-tuning run it is the best checkpoint with the head of its task, where the format has a counterpart.

Formats:
  huggingface  a folder for AutoModel, AutoModelForMaskedLM and AutoTokenizer of transformers; the SBO head is in a file
               of its own
  original     model.safetensors with the names of the original SpanBERT's state dict, including both heads
  stablehlo    the encoder and the MLM head as one program for cpu, cuda and tpu, for any batch size and length, that
               runs with nothing but jax and safetensors
"""

import argparse
from pathlib import Path

from spanbert_jax import cli
from spanbert_jax.errors import InputError


def main() -> int:
    """Runs the command on sys.argv; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, type=Path, help=cli.MODEL_HELP)
    parser.add_argument("--output", required=True, type=Path, help="new folder to write to")
    formats = ("huggingface", "original", "stablehlo")
    parser.add_argument("--format", choices=formats, default=formats[0], help="default: %(default)s")
    parser.add_argument("--step", type=int, help="step of the checkpoint; default: the newest one")
    flags = cli.parse(parser)
    # slow imports, so after the flags are checked
    from spanbert_jax.finetuning.export import export_fine_tuned
    from spanbert_jax.tasks import TASKS
    from spanbert_jax.training.export import export_model
    from spanbert_jax.training.trained import is_run
    from spanbert_jax.training.workdir import read_config

    notes: list[str] = []
    if is_run(flags.workdir) and "task" in read_config(flags.workdir):
        if flags.step is not None:
            raise InputError("--step is of pretraining; of a fine-tuning run the best checkpoint is exported")
        what = export_fine_tuned(flags.workdir, flags.output, flags.format, TASKS)
    else:
        what, notes = export_model(flags.workdir, flags.output, flags.format, flags.step)
    print("\n".join([f"exported {what} to {flags.output} in the {flags.format} format", *notes]))
    return 0

"""Predicts with a fine-tuned model, and writes the predictions in the official format of its task.

--workdir=runs/squad --input=dev-v1.1.json --output=predictions.json
"""

import argparse
from pathlib import Path

from spanbert_jax import cli
from spanbert_jax.errors import InputError


def main() -> int:
    """Runs the command on sys.argv; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, type=Path, help="folder of a fine-tuning run")
    input_help = "examples: files as those of training, with or without labels, or tfds:NAME/SPLIT"
    parser.add_argument("--input", required=True, help=input_help)
    parser.add_argument(
        "--output", required=True, type=Path, help="file to write; .jsonl has what the format leaves out"
    )
    parser.add_argument("--score", action="store_true", help="the examples have labels: print the metrics too")
    parser.add_argument("--batch_size", type=int, default=32, help="rows per batch (default: %(default)s)")
    flags = cli.parse(parser)
    if flags.batch_size < 1:
        raise InputError(f"--batch_size must be at least 1, not {flags.batch_size}")
    from spanbert_jax.finetuning.predictor import Predictor, restore, write_predictions  # slow imports
    from spanbert_jax.folders import refuse_existing
    from spanbert_jax.tasks import TASKS

    refuse_existing(flags.output)
    model = restore(flags.workdir, TASKS)
    task = model.task
    examples, notes = (task.read if flags.score else task.read_unlabelled)(model.config, flags.input)
    for note in notes:
        print(note)
    predictor = Predictor(model)
    predictions = predictor.predictions(examples, flags.batch_size)
    write_predictions(flags.output, task, examples, predictions)
    print(f"wrote {len(predictions):,} predictions of step {model.step:,} to {flags.output}")
    if flags.score:
        metrics = predictor.score(examples, predictions)
        print("  ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in metrics.items()))
        for name, signature in task.signatures(examples).items():
            print(f"{name}: {signature}")
    return 0

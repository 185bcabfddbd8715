"""The quickstart's recipe and SpanBERT's plain one, trained one after the other: what each learns, and in what time."""

import tempfile
from pathlib import Path

from spanbert_jax.configs import modern, spanbert
from spanbert_jax.experiments.pretraining_quality import MASKS
from spanbert_jax.objectives import MLM
from spanbert_jax.training.metrics import read_metrics
from spanbert_jax.training.pretrain import pretrain

RECIPES = {"plain": spanbert, "modern": modern}


def recipes() -> dict:
    """Trains both tiny models on the embedded corpus.

    Returns:
      Of each: "steps"; "training_seconds", without compilation, evaluation and saving; "nats_below_unigram", the
      held-out MLM loss below the entropy of the token frequencies. Both are evaluated on the same masks.
    """
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, module in RECIPES.items():
            config, workdir = module.get_config("tiny"), Path(folder) / name
            config.eval.masking = MASKS
            if code := pretrain(config.lock(), workdir):
                return {"exit_code": code}
            lines = read_metrics(workdir)
            seconds = sum(config.log_every / line["steps_per_second"] for line in lines if "steps_per_second" in line)
            last = [line for line in lines if "eval/unigram_entropy" in line][-1]
            figures |= {
                f"{name}_steps": config.total_steps,
                f"{name}_training_seconds": round(seconds, 1),
                f"{name}_nats_below_unigram": round(last["eval/unigram_entropy"] - last[f"eval/{MLM.name}_loss"], 3),
            }
    return figures

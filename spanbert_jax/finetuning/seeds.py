"""The same run with several seeds, and the mean and standard deviation of their results."""

import json
from collections.abc import Collection
from pathlib import Path

import numpy as np

from spanbert_jax.finetuning.finetune import RESULTS_FILE, finetune, write_json
from spanbert_jax.finetuning.task import Task
from spanbert_jax.training.pretrain import log
from spanbert_jax.training.processes import is_first


def finetune_seeds(config, workdir: Path, kind: type[Task], allowed: Collection[str], number: int) -> int:
    """Fine-tunes with the seeds config.seed, config.seed + 1, ... and writes workdir/results.json; see finetune.

    A signal ends the run that is under way; the same command goes on with it, and with those that are missing.
    """
    seeds = range(config.seed, config.seed + number)
    for seed in seeds:
        one = config.copy_and_resolve_references()
        one.seed = seed
        if code := finetune(one.lock(), workdir / f"seed_{seed}", kind, allowed):
            return code
    if not is_first():  # only the first process has written results
        return 0
    results = [json.loads((workdir / f"seed_{seed}" / RESULTS_FILE).read_text(encoding="utf-8")) for seed in seeds]
    summary: dict = {"seeds": list(seeds), "metric": results[0]["metric"]}
    for split in ("valid", "test"):
        if split in results[0]:
            summary[split] = {
                name: mean_and_deviation([result[split][name] for result in results]) for name in results[0][split]
            }
            shown = (f"{name.replace('_', ' ')} {v['mean']:.4g} ± {v['std']:.2g}" for name, v in summary[split].items())
            log(f"{number} seeds, {split}: {'  '.join(shown)}")
    write_json(workdir / RESULTS_FILE, summary)
    return 0


def mean_and_deviation(values: list[float]) -> dict:
    """Returns {"mean", "std" (of the sample), "values"}."""
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)), "values": values}

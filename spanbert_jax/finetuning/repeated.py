"""A run repeated with several seeds, or on several folds, and the mean and standard deviation of the results."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spanbert_jax.finetuning.finetune import RESULTS_FILE, finetune, write_json
from spanbert_jax.finetuning.task import Task
from spanbert_jax.training.pretrain import log
from spanbert_jax.training.processes import is_first


def finetune_seeds(config, workdir: Path, kind: type[Task], allowed: Collection[str], number: int) -> int:
    """Fine-tunes with the seeds config.seed, config.seed + 1, ... in workdir/seed_N; see finetune_each."""
    seeds = range(config.seed, config.seed + number)
    runs = {f"seed_{seed}": {"seed": seed} for seed in seeds}
    return finetune_each(config, runs, workdir, kind, allowed, f"{number} seeds", {"seeds": list(seeds)})


def finetune_folds(config, workdir: Path, kind: type[Task], allowed: Collection[str], number: int) -> int:
    """Fine-tunes once for each of `number` folds of task.train, in workdir/fold_N; see finetune_each and folds.py."""
    runs = {f"fold_{fold}": {"task.folds": number, "task.fold": fold} for fold in range(1, number + 1)}
    return finetune_each(config, runs, workdir, kind, allowed, f"{number} folds", {"folds": number})


def finetune_each(
    config,
    runs: Mapping[str, Mapping[str, Any]],
    workdir: Path,
    kind: type[Task],
    allowed: Collection[str],
    title: str,
    summary: dict[str, Any],
) -> int:
    """Fine-tunes one run after the other and writes workdir/results.json; see finetune for what is returned and raised.

    A signal ends the run that is under way; the same command goes on with it, and with those that are missing.

    Args:
      config: of all runs.
      runs: changes of the config by the run's folder in `workdir`.
      workdir: of all runs.
      kind: the task.
      allowed: keys of the config that may differ from those of the runs so far.
      title: what the runs are, for the log.
      summary: what results.json is to say of them besides.
    """
    for folder, changes in runs.items():
        one = config.copy_and_resolve_references().unlock()
        one.update_from_flattened_dict(changes)
        if code := finetune(one.lock(), workdir / folder, kind, allowed):
            return code
    if not is_first():  # only the first process has written results
        return 0
    results = [json.loads((workdir / folder / RESULTS_FILE).read_text(encoding="utf-8")) for folder in runs]
    summary = summary | {key: results[0][key] for key in ("metric", "signatures") if key in results[0]}
    for split in ("valid", "test"):
        if split in results[0]:
            summary[split] = {
                name: mean_and_deviation([result[split][name] for result in results]) for name in results[0][split]
            }
            shown = (f"{name.replace('_', ' ')} {v['mean']:.4g} ± {v['std']:.2g}" for name, v in summary[split].items())
            log(f"{title}, {split}: {'  '.join(shown)}")
    write_json(workdir / RESULTS_FILE, summary)
    return 0


def mean_and_deviation(values: list[float]) -> dict:
    """Returns {"mean", "std" (of the sample), "values"}."""
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)), "values": values}

"""A worker of a sweep: runs trials until none is left."""

import json
from collections.abc import Callable
from pathlib import Path

from ml_collections import ConfigDict

from spanbert_jax.errors import DiskFull, Diverged, InputError
from spanbert_jax.experiments.report.records import read_records
from spanbert_jax.experiments.sweeps.plan import Plan, shown
from spanbert_jax.experiments.sweeps.study import CHANGES, FAILURE, Study, Trial
from spanbert_jax.finetuning.finetune import finetune
from spanbert_jax.tasks import TASKS
from spanbert_jax.training.pretrain import pretrain

CACHE = "compiled"  # folder of a sweep


def work(folder: Path, storage: str, plan: Plan, log: Callable[[str], None]) -> int:
    """Runs the trials of a sweep that no other worker runs or has run.

    Args:
      folder: of the sweep.
      storage: see study.Study.
      plan: of the sweep.
      log: called with messages.

    Returns:
      0 at the end; the exit code of a run that a signal ended: the trial goes on with the next worker.

    Raises:
      InputError: the study cannot be used, or no trial could be run.
    """
    study = Study(folder, storage, plan)
    while True:
        with study.next() as trial:
            if trial is None:
                break
            verb = "goes on with" if trial.resumed else "begins"
            log(f"sweep: {verb} trial {trial.number} of {plan.number}: {shown(trial.changes) or 'no changes'}")
            if code := run(trial, plan, log):
                return code
    for line in results(study):
        log(line)
    failed = [each for each in study.trials() if FAILURE in each.user_attrs]
    if failed and len(failed) == len(study.trials()):
        raise InputError(f"every trial failed, the first one with: {failed[0].user_attrs[FAILURE]}")
    return 0


def run(trial: Trial, plan: Plan, log: Callable[[str], None]) -> int:
    """Runs a trial to its end, and records what came out; returns the exit code of a signal, or 0."""
    stopped = False

    def watch(step: int, metrics: dict[str, float]) -> bool:
        nonlocal stopped
        stopped = trial.bad_so_far(step, metrics)
        return stopped

    try:
        config = with_cache(plan.config_of(trial.changes), trial.study.folder)
        if "task" in config:
            code = finetune(config, trial.workdir, TASKS[config.task.name], watch=watch)
        else:
            code = pretrain(config, trial.workdir, watch=watch)
    except DiskFull:
        raise  # which says nothing of the trial
    except (InputError, Diverged) as error:
        trial.finish(None, failure=str(error))
        log(f"sweep: trial {trial.number} failed: {error}")
        return 0
    if code:
        return code
    [record] = [each for each in read_records([trial.workdir]) if each.workdir == trial.workdir]
    value = record.metrics.get(plan.metric)
    if value is None and not stopped:
        known = ", ".join(record.metrics) or "none"
        trial.finish(None, failure=f"it has no metric {plan.metric!r}; its metrics are: {known}")
    else:
        trial.finish(value, pruned=stopped)
    return 0


def with_cache(config: ConfigDict, folder: Path) -> ConfigDict:
    """Returns a config whose compiled programs are kept for the other trials, in the folder of the sweep.

    Trials that differ in seed, rates, weight decay or lengths of the schedule alone have the same programs.
    """
    cached = config.copy_and_resolve_references().unlock()
    cached.compile_cache = config.compile_cache or str((folder / CACHE).resolve())
    return cached.lock()


def results(study: Study) -> list[str]:
    """Returns a line for each trial, the best ones first, and one on how many there are."""
    trials = study.trials()
    finished = [trial for trial in trials if trial.value is not None]
    sign = 1 if study.optuna.direction.name == "MINIMIZE" else -1
    lines = [
        f"trial {trial.number}  {study.plan.metric} {trial.value:.5g}  {_changes(trial)}"
        for trial in sorted(finished, key=lambda trial: sign * trial.value)
    ]
    for trial in trials:
        if trial.value is None:
            reason = f": {trial.user_attrs[FAILURE]}" if FAILURE in trial.user_attrs else ""
            lines.append(f"trial {trial.number}  {trial.state.name.lower()}  {_changes(trial)}{reason}")
    states = ", ".join(
        f"{sum(trial.state.name == state for trial in trials)} {state.lower()}"
        for state in dict.fromkeys(trial.state.name for trial in trials)
    )
    return [*lines, f"{len(trials)} of {study.plan.number} trials: {states or 'none begun'}"]


def _changes(trial) -> str:
    return shown(json.loads(trial.user_attrs.get(CHANGES, "{}")))

"""What runs left in their folders, and which of them are the same experiment with other seeds or folds."""

import dataclasses
import functools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from spanbert_jax import config as config_lib
from spanbert_jax.errors import InputError
from spanbert_jax.provenance import read_provenance
from spanbert_jax.training.metrics import METRICS_FILE, read_metrics
from spanbert_jax.training.pretraining import EXAMPLES_FILE
from spanbert_jax.training.workdir import CONFIG_FILE, read_config

DEPTH = 3  # of folders that are searched for runs
EVALUATION = "eval/"  # prefix of metrics of an evaluation
SPEEDS = ("tokens_per_second", "mfu")  # metrics of training lines
REPEATED = ("seed", "task.fold")  # knobs in which the runs of an arm may differ
NOT_COMPARED = ("count", "unigram_entropy")  # endings of metrics that say how much text there was


@dataclasses.dataclass(frozen=True)
class Record:
    """One run."""

    workdir: Path
    config: ConfigDict
    lines: list[dict]  # of metrics.jsonl

    @property
    def repetition(self) -> tuple[int, int]:
        """Which run of its arm it is: its seed, and the fold that it is validated on, 0 without cross-validation."""
        task = self.config.get("task", {})
        return self.config.seed, task.fold if task.get("folds") else 0

    @property
    def repetition_name(self) -> str:
        """The repetition for people, such as "2", the seed, or "2, fold 1"."""
        seed, fold = self.repetition
        return f"{seed}, fold {fold}" if fold else str(seed)

    @property
    def step(self) -> int:
        """The last step that was logged."""
        return self.lines[-1]["step"]

    @functools.cached_property
    def provenance(self) -> dict[str, Any]:
        """What made the run; empty for runs of earlier releases."""
        return read_provenance(self.workdir)

    @functools.cached_property
    def metrics(self) -> dict[str, float]:
        """The last evaluation; of a fine-tuning run, its results by split, as in "valid/accuracy"."""
        results = self.workdir / "results.json"
        if results.is_file():
            found = json.loads(results.read_text(encoding="utf-8"))
            splits = {split: values for split, values in found.items() if isinstance(values, dict)}
            named = {f"{split}/{name}": value for split, values in splits.items() for name, value in values.items()}
            numbers = {name: value for name, value in named.items() if isinstance(value, int | float)}
            if numbers:
                return numbers
        last: dict[str, float] = {}
        for line in self.lines:
            last |= {key.removeprefix(EVALUATION): value for key, value in line.items() if key.startswith(EVALUATION)}
        return {name: value for name, value in last.items() if value is not None and not name.endswith(NOT_COMPARED)}

    @functools.cached_property
    def examples(self) -> dict[str, np.ndarray]:
        """Metrics of each example in the last evaluation, by name: [examples]."""
        file = self.workdir / EXAMPLES_FILE
        if not file.is_file():
            return {}
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)

    @property
    def speed(self) -> dict[str, float]:
        """The means over the run of tokens per second and of MFU, as far as they were logged."""
        found = {name: [line[name] for line in self.lines if line.get(name)] for name in SPEEDS}
        return {name: sum(values) / len(values) for name, values in found.items() if values}


@dataclasses.dataclass(frozen=True)
class Arm:
    """Runs that differ in nothing but their seeds and folds."""

    name: str
    runs: Sequence[Record]
    settings: dict[str, Any]  # the knobs in which the arms of a report differ


def read_records(paths: Iterable[Path]) -> list[Record]:
    """Returns the runs in folders: of runs, of the seeds of one, or of a sweep.

    Raises:
      InputError: a folder has no run with metrics, or the config of one cannot be read.
    """
    found: dict[Path, Record] = {}
    for path in paths:
        levels = ["/".join(["*"] * depth) for depth in range(1, DEPTH + 1)]
        folders = [path, *(folder for level in levels for folder in sorted(path.glob(level)))]
        here = [folder for folder in folders if (folder / CONFIG_FILE).is_file() and read_metrics(folder)]
        if not here:
            raise InputError(f"{path}: no run with a {CONFIG_FILE} and a {METRICS_FILE} in it: give folders of runs")
        for folder in here:
            found.setdefault(folder.resolve(), Record(folder, read_config(folder), read_metrics(folder)))
    return list(found.values())


def arms_of(records: Sequence[Record]) -> list[Arm]:
    """Returns the runs by config, seeds, folds and execution options apart, in the order of their first runs."""
    known = config_lib.known_knobs()
    flat = [
        {
            key: value
            for key, value in config_lib.flat(record.config)
            if key not in REPEATED and not known[key].execution
        }
        for record in records
    ]
    keys = list(dict.fromkeys(key for settings in flat for key in settings))
    differing = [key for key in keys if any(settings.get(key) != flat[0].get(key) for settings in flat)]
    groups: dict[str, list[Record]] = {}
    settings_of: dict[str, dict[str, Any]] = {}
    for record, settings in zip(records, flat):
        group = repr([settings.get(key) for key in differing])
        groups.setdefault(group, []).append(record)
        settings_of[group] = {key: settings.get(key) for key in differing}
    names = _names(list(groups.values()), list(settings_of.values()))
    return [Arm(name, groups[group], settings_of[group]) for name, group in zip(names, groups)]


def _names(groups: list[list[Record]], settings: list[dict[str, Any]]) -> list[str]:
    """Returns the shortest names that differ: those of the configs, of the settings, or of the folders."""
    by_settings = [", ".join(f"{key.rpartition('.')[2]}={value}" for key, value in s.items()) for s in settings]
    for names in (
        [group[0].config.name for group in groups],
        by_settings if max(map(len, by_settings)) <= 60 else [],
        [group[0].workdir.resolve().name for group in groups],
    ):
        if len(set(names)) == len(groups):
            return names
    return [str(group[0].workdir) for group in groups]

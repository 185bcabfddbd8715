"""The folder of a run: its config, the lock that lets only one process write it, and its trained model.

config.json, vocab.txt, tokenizer.json   what the run is
provenance.json                          what made it: versions, commit, data
metrics.jsonl, tensorboard/              its metrics
checkpoints/                             its states
store/                                   tokenised text, unless data.store names one
"""

import contextlib
import dataclasses
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from spanbert_jax import config as config_lib
from spanbert_jax.data.tokenizer import Tokenizer, restored_tokenizer
from spanbert_jax.errors import DiskFull, DoesNotFit, InputError
from spanbert_jax.folders import replace_file, reporting_full_disk, temporary_folder, try_lock
from spanbert_jax.model.flash import platform_of
from spanbert_jax.model.spec import ModelSpec, model_spec
from spanbert_jax.objectives.pretraining import Objectives, with_heads
from spanbert_jax.phases import config_at
from spanbert_jax.provenance import write_provenance
from spanbert_jax.training.checkpoint import Checkpoints
from spanbert_jax.training.resuming import changes, refuse

CONFIG_FILE = "config.json"
LOCK_FILE = ".lock"
FIT_FILE = "fit.json"  # what --fit chose for the run, and for which machine
BUDGET_FILE = "budget.json"  # the budget that the length of the run follows from, if it was given as one

# What a folder may hold before there is a run in it: a store, and the files of a process that was killed early.
BEGUN = {"store", "store.partial", LOCK_FILE, BUDGET_FILE, FIT_FILE}
BEGUN |= {f".{name}" for name in (CONFIG_FILE, BUDGET_FILE, FIT_FILE)}


def check_workdir(workdir: Path, config, allowed: Collection[str] = ()) -> None:
    """Checks that `workdir` is absent, empty, or the folder of a run that this config continues. Writes nothing.

    Args:
      workdir: the folder.
      config: the whole config.
      allowed: keys that it may change.

    Raises:
      InputError: it is something else.
    """
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"workdir {workdir} is a file: give a folder")
    if not workdir.exists() or not any(workdir.iterdir()):
        return
    if not (workdir / CONFIG_FILE).exists():
        if {entry.name for entry in workdir.iterdir()} <= BEGUN:
            return
        raise InputError(f"workdir {workdir} holds other files and no run: give an empty or new folder")
    before = read_config(workdir)
    if ("task" in before) != ("task" in config):
        kinds = "fine-tuning", "pretraining"
        before_is, now_is = kinds if "task" in before else kinds[::-1]
        raise InputError(f"workdir {workdir} is of {before_is}, and this is {now_is}: give another --workdir")
    refuse(changes(before, config, newest_step(workdir) or 0), before, config, allowed, f"workdir {workdir}")


def read_config(workdir: Path):
    """Returns the config of the run in a folder.

    Raises:
      InputError: there is no run, or its config is damaged.
    """
    path = workdir / CONFIG_FILE
    if not path.is_file():
        raise InputError(f"workdir {workdir} has no {CONFIG_FILE}: give the folder of a pretraining run")
    try:
        return config_lib.from_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} cannot be used ({error}): put it back, or give another --workdir") from None


def write_config(workdir: Path, config, changes: Sequence[dict] = ()) -> None:
    """Writes config.json with what was changed within the run, completely or not at all."""
    with replace_file(workdir / CONFIG_FILE, unique=False) as file:
        file.write(config_lib.to_json(config, changes) + "\n")


def write_run(workdir: Path, config, record: Mapping[str, Any]) -> None:
    """Writes what a run is and what made it, with the record that its checkpoints have."""
    write_config(workdir, config, record["changes"])
    write_provenance(workdir, record["provenance"])


def write_config_if_absent(workdir: Path, config) -> None:
    """Writes config.json if there is none.

    So a run that is killed before its first checkpoint can be continued only with the same config.
    """
    if not (workdir / CONFIG_FILE).exists():
        write_config(workdir, config)


def newest_step(workdir: Path) -> int | None:
    """Returns the step of a run's newest checkpoint, without opening it; None if there is none."""
    folders = (workdir / "checkpoints").glob("step_*")
    return max((int(folder.name[5:]) for folder in folders if folder.name[5:].isdigit()), default=None)


def newest_checkpoint(workdir: Path) -> str:
    """Returns a clause on the newest checkpoint of a run."""
    step = newest_step(workdir)
    return "There is no checkpoint yet" if step is None else f"The newest checkpoint is of step {step:,}"


def check_shared(workdir: Path) -> None:
    """Checks that this process sees the config that the first process has just written.

    Raises:
      InputError: it does not, so the folder is not shared.
    """
    if not (workdir / CONFIG_FILE).exists():
        raise InputError(
            f"workdir {workdir.absolute()} is not the folder that process 0 writes to: "
            "give one on a file system that all processes share"
        )


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Makes the folder and, while entered, locks it.

    If there was no run before, an InputError removes what was written, except a store after DoesNotFit.
    DiskFull removes nothing.

    Raises:
      InputError: another process has locked the folder, or it cannot be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(temporary_folder(workdir))
            lock = stack.enter_context((workdir / LOCK_FILE).open("w"))
        except OSError as error:
            raise InputError(f"workdir {workdir} cannot be written: {error.strerror}") from None
        if not try_lock(lock, f"workdir {workdir}"):
            raise InputError(f"workdir {workdir} is in use by another process: wait for it, or give another --workdir")
        _remove(workdir.glob(".store.*"))  # of a process that was killed while it tokenised
        is_new, before = not (workdir / CONFIG_FILE).exists(), set(workdir.iterdir()) - {workdir / LOCK_FILE}
        try:
            yield
        except InputError as error:
            if is_new and not isinstance(error, DiskFull):
                kept = {workdir / "store"} if isinstance(error, DoesNotFit) else set()
                _remove(set(workdir.iterdir()) - before - kept)
            raise


@contextlib.contextmanager
def occupied(workdir: Path, config) -> Iterator[None]:
    """Locks the folder as `locked` does, reports a full disk with the newest checkpoint, and writes config.json if new.

    Raises:
      InputError: as locked.
      DiskFull: while entered, the disk is full.
    """
    with locked(workdir), reporting_full_disk(workdir, lambda: newest_checkpoint(workdir)):
        write_config_if_absent(workdir, config)
        yield


def _remove(entries: Iterable[Path]) -> None:
    for entry in list(entries):
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


class TrainedModel(NamedTuple):
    """A model for use on one device."""

    config: ConfigDict  # of its run, in the phase of its step
    tokenizer: Tokenizer
    spec: ModelSpec
    objectives: Objectives  # whose heads the model has
    params: dict  # float32, on this process's first device


def restore_run(workdir: Path, step: int | None = None) -> TrainedModel:
    """Returns the model of a run after step `step` (None: at its newest checkpoint), whatever mesh trained it.

    Raises:
      InputError: there is no run or no such checkpoint, or the vocabulary in the folder is not that of the training.
    """
    step = resolve_step(workdir, step)
    config = config_at(read_config(workdir), step)
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    try:
        tokenizer = saved_tokenizer(workdir, checkpoints.record(step)["vocabulary"])
        device = jax.local_devices()[0]
        params = jax.device_put(checkpoints.read_params(step), device)
    finally:
        checkpoints.close()
    heads = tuple(head for head in with_heads(config) if head.name in params)  # fine-tuning keeps the encoder alone
    return TrainedModel(config, tokenizer, one_device_spec(config, tokenizer, device), heads, params)


def one_device_spec(config, tokenizer: Tokenizer, device: jax.Device) -> ModelSpec:
    """Returns the ModelSpec of a config's model for rows of any length on a device."""
    spec = model_spec(config, tokenizer.vocab_size, platform_of(device))
    return dataclasses.replace(spec, attention="xla")  # the implementation that accepts them


def resolve_step(workdir: Path, step: int | None) -> int:
    """Returns `step`, or the step of the run's newest checkpoint if it is None.

    Raises:
      InputError: there is no run, or no such checkpoint.
    """
    read_config(workdir)
    folder = workdir / "checkpoints"
    checkpoints = Checkpoints(folder, read_only=True) if folder.is_dir() else None
    steps = checkpoints.steps() if checkpoints else []
    if checkpoints:
        checkpoints.close()
    if not steps:
        raise InputError(f"workdir {workdir} has no checkpoint yet")
    if step is not None and step not in steps:
        raise InputError(
            f"workdir {workdir} has no checkpoint of step {step}; it has those of {', '.join(map(str, steps))}"
        )
    return steps[-1] if step is None else step


def record_of(workdir: Path, step: int) -> dict:
    """Returns the record in the checkpoint of a step, which exists."""
    with contextlib.closing(Checkpoints(workdir / "checkpoints", read_only=True)) as checkpoints:
        return checkpoints.record(step)


def saved_tokenizer(workdir: Path, fingerprint: str) -> Tokenizer:
    """Returns the tokenizer of a run, from its own copy of the vocabulary; the fingerprint also determines its rules.

    Raises:
      InputError: the vocabulary in the workdir is another one.
    """
    tokenizer = restored_tokenizer(workdir / "vocab.txt", fingerprint)
    if tokenizer:
        return tokenizer
    raise InputError(f"{workdir}/vocab.txt is not the vocabulary that the run was trained with: put that one back")

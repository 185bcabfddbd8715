"""The folder of a run: whose it is, and that one process at a time writes to it.

config.json       of the run      metrics.jsonl  tensorboard/   what it tells
vocab.txt  tokenizer.json         checkpoints/                  its states
store/            tokenised text, unless config.data.store names one elsewhere
"""

import contextlib
import fcntl
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from spanbert_jax import config as config_lib
from spanbert_jax.errors import DoesNotFit, InputError
from spanbert_jax.folders import made_for_now

CONFIG_FILE = "config.json"
LOCK_FILE = ".lock"


def check_workdir(workdir: Path, config) -> None:
    """Raises InputError unless `workdir` is absent, empty, or the folder of a run that this config continues; writes nothing."""
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"workdir {workdir} is a file: give a folder")
    if not workdir.exists() or not any(workdir.iterdir()):
        return
    if not (workdir / CONFIG_FILE).exists():
        if {entry.name for entry in workdir.iterdir()} <= {"store", "store.partial", LOCK_FILE, f".{CONFIG_FILE}"}:
            return  # a store prepared for it, or what a process left that was killed before it began
        raise InputError(f"workdir {workdir} holds other files and no run: give an empty or new folder")
    changed = config_lib.differences(read_config(workdir), config)
    if changed:
        raise InputError(
            f"workdir {workdir} is of a run with another config; give another --workdir, or this run's config. It differs in\n  "
            + "\n  ".join(changed)
        )


def read_config(workdir: Path):
    """The config of the run in a folder.

    Raises:
      InputError: there is no run, or its config is damaged.
    """
    path = workdir / CONFIG_FILE
    if not path.is_file():
        raise InputError(f"workdir {workdir} has no {CONFIG_FILE}: give the folder of a pretraining run")
    try:
        return config_lib.from_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): put it back, or give another --workdir") from None


def write_config(workdir: Path, config) -> None:
    """Writes config.json, whole or not at all."""
    temporary = workdir / f".{CONFIG_FILE}"
    temporary.write_text(config_lib.to_json(config) + "\n", encoding="utf-8")
    temporary.replace(workdir / CONFIG_FILE)


def claim(workdir: Path, config) -> None:
    """Writes config.json if there is none, so that a run killed before its first checkpoint is continued by its own config only."""
    if not (workdir / CONFIG_FILE).exists():
        write_config(workdir, config)


def check_shared(workdir: Path) -> None:
    """Raises InputError unless this process sees the run that the first process has just claimed."""
    if not (workdir / CONFIG_FILE).exists():
        raise InputError(
            f"workdir {workdir.absolute()} is not the folder that process 0 writes to: give one on a file system that all processes share"
        )


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Makes the folder and holds it against other processes. An InputError leaves nothing behind where there was no run before.

    Raises:
      InputError: another process holds it, or it cannot be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(made_for_now(workdir))
            lock = stack.enter_context((workdir / LOCK_FILE).open("w"))
        except OSError as error:
            raise InputError(f"workdir {workdir} cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"workdir {workdir} is in use by another process: wait for it, or give another --workdir"
            ) from None
        _remove(workdir.glob(".store.*"))  # of a process that was killed while it tokenised
        fresh, before = not (workdir / CONFIG_FILE).exists(), set(workdir.iterdir()) - {workdir / LOCK_FILE}
        try:
            yield
        except InputError as error:
            if fresh:
                kept = {workdir / "store"} if isinstance(error, DoesNotFit) else set()
                _remove(set(workdir.iterdir()) - before - kept)
            raise


def _remove(entries: Iterable[Path]) -> None:
    for entry in list(entries):
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()

"""The folder of a run: whose it is, and that one process at a time writes to it.

    config.json       of the run      metrics.jsonl  tensorboard/   what it tells
    vocab.txt  tokenizer.json         checkpoints/                  its states
    store/            tokenised text, unless config.data.store names one elsewhere
"""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from spanbert_jax import config as config_lib
from spanbert_jax.errors import InputError

CONFIG_FILE = "config.json"


def check_workdir(workdir: Path, config) -> None:
    """Raises InputError unless `workdir` is absent, empty, or the folder of a run that this config continues; writes nothing."""
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"workdir {workdir} is a file: give a folder")
    if not workdir.exists() or not any(workdir.iterdir()):
        return
    if not (workdir / CONFIG_FILE).exists():
        if {entry.name for entry in workdir.iterdir()} <= {"store", ".lock"}:
            return  # killed before it began
        raise InputError(f"workdir {workdir} holds other files and no run: give an empty or new folder")
    changed = config_lib.differences(read_config(workdir), config)
    if changed:
        raise InputError(f"workdir {workdir} is of a run with another config; give another --workdir, or this run's config. It differs in\n  "
                         + "\n  ".join(changed))


def read_config(workdir: Path):
    """The config of the run in a folder.

    Raises:
      InputError: there is no run.
    """
    path = workdir / CONFIG_FILE
    if not path.is_file():
        raise InputError(f"workdir {workdir} has no {CONFIG_FILE}: give the folder of a pretraining run")
    return config_lib.from_json(path.read_text(encoding="utf-8"))


def write_config(workdir: Path, config) -> None:
    """Writes config.json, whole or not at all."""
    temporary = workdir / f".{CONFIG_FILE}"
    temporary.write_text(config_lib.to_json(config) + "\n", encoding="utf-8")
    temporary.replace(workdir / CONFIG_FILE)


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Makes the folder and holds it against other processes; a folder that was made here and stayed empty is removed again.

    Raises:
      InputError: another process holds it, or it cannot be made.
    """
    made = not workdir.exists()
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / ".lock").open("w")
    except OSError as error:
        raise InputError(f"workdir {workdir} cannot be written: {error.strerror}") from None
    try:
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise InputError(f"workdir {workdir} is in use by another process: wait for it, or give another --workdir") from None
            yield
    finally:
        if made and {entry.name for entry in workdir.iterdir()} == {".lock"}:
            (workdir / ".lock").unlink()
            workdir.rmdir()

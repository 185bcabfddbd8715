"""Branches of a run: a new run that goes on from a checkpoint of another one, with its optimiser state."""

import os
import shutil
from pathlib import Path

from spanbert_jax.errors import InputError
from spanbert_jax.folders import atomic_folder
from spanbert_jax.training.metrics import METRICS_FILE
from spanbert_jax.training.workdir import CONFIG_FILE, newest_step, resolve_step

FILES = (CONFIG_FILE, "vocab.txt", "tokenizer.json", METRICS_FILE)
FOLDERS = ("store",)


def branch(source: Path, step: int | None, workdir: Path) -> int:
    """Makes `workdir` a copy of a run as it was after a step, which then resumes like any other.

    Files that are never written again, of the checkpoint and the store, are shared by hard links where the file system
    has them. Does nothing if there is a run in `workdir` already: it goes on.

    Args:
      source: folder of the run.
      step: of its checkpoint; None: the newest one.
      workdir: the folder to make.

    Returns:
      The step of the newest checkpoint in `workdir`.

    Raises:
      InputError: there is no such run or checkpoint, or `workdir` holds something else or cannot be written.
    """
    if source.resolve() == workdir.resolve():
        raise InputError(f"--branch={source}: is the workdir itself; give another --workdir")
    there = newest_step(workdir)
    if there is not None:
        return there
    step = resolve_step(source, step)
    with atomic_folder(workdir) as temporary:
        for name in FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, temporary / name)
        for name in (*FOLDERS, f"checkpoints/step_{step}"):
            if (source / name).is_dir():
                shutil.copytree(source / name, temporary / name, copy_function=_linked)
    return step


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(source, target)

"""The folder, beside the future store, in which a store is prepared. Work that is finished in it is not repeated.

<output>.partial/
  lock             held by the process that works here; the kernel releases it when that process dies
  plan.json        what is prepared: settings and units. A different plan is refused
  duplicates/      digests and signatures of each unit's documents, and the documents that are dropped
  vocab.txt        the vocabulary, if one is trained
  units/           00012.json: the summary of unit 12, which is finished; 00012-train.npy: its counts of tokens
  store/           the store's files; renamed to <output> when it is complete
  new/             files that are being written
"""

import contextlib
import itertools
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from spanbert_jax.errors import InputError
from spanbert_jax.folders import refuse_existing, replace_file, reporting_full_disk, temporary_folder, try_lock

PLAN_FILE = "plan.json"
FOLDERS = ("duplicates", "units", "store", "new")


class WorkFolder:
    """The paths in a work folder. Files in it appear complete or not at all."""

    def __init__(self, path: Path):
        self.path = path
        self.duplicates, self.units, self.store, self.new = (path / name for name in FOLDERS)

    def clear(self) -> None:
        """Removes the files that were being written."""
        shutil.rmtree(self.new, ignore_errors=True)

    def make(self) -> None:
        """Creates the folders, without files that were being written before."""
        self.clear()
        for name in FOLDERS:
            (self.path / name).mkdir(exist_ok=True)

    @contextlib.contextmanager
    def new_files(self) -> Iterator[Path]:
        """Creates a temporary folder in which files are written, to be moved to their final paths when complete."""
        folder = self.new / uuid.uuid4().hex
        try:
            folder.mkdir()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def write(self, target: Path, data: bytes) -> None:
        """Writes one file."""
        with self.new_files() as folder:
            (folder / target.name).write_bytes(data)
            os.replace(folder / target.name, target)


def work_path(output: str | Path) -> Path:
    """Returns the path of the work folder of the store at `output`."""
    output = Path(output).absolute()  # "." has no name from which to derive the work folder's
    return output.parent / f"{output.name}.partial"


@contextlib.contextmanager
def work_folder(output: Path, plan: dict) -> Iterator[WorkFolder | None]:
    """Opens the work folder of the store at `output` for this process alone.

    The folder is kept on failure if any work in it is finished.

    Args:
      output: the path of the future store.
      plan: what is prepared, in JSON types.

    Yields:
      The work folder, or None if the store is already finished.

    Raises:
      InputError: `output` exists, the folder cannot be written, another process works in it, or it has another plan.
    """
    output, path = output.absolute(), work_path(output)
    with contextlib.ExitStack() as stack:
        if not (path / PLAN_FILE).exists():  # no preparation was begun
            refuse_existing(output)
            refuse_foreign(path)
        with writing(path):
            stack.enter_context(temporary_folder(output.parent))
            path.mkdir(exist_ok=True)
            lock(stack, path, output)
            check_plan(path, plan)
            stack.callback(remove_if_nothing_finished, path)
        work = WorkFolder(path)
        store_finished = (output / "index.json").exists() and not work.store.exists()
        if store_finished:  # a process was killed while it removed the work folder
            shutil.rmtree(path)
            yield None
            return
        refuse_existing(output)
        with writing(path):
            work.make()
        stack.callback(work.clear)
        yield work


def finish(work: WorkFolder, output: Path) -> None:
    """Moves the finished store to `output` by one rename, and removes the work folder."""
    with writing(output):
        work.store.rename(output)
    for name in FOLDERS:  # plan.json is removed last: it identifies the folder
        shutil.rmtree(work.path / name, ignore_errors=True)
    shutil.rmtree(work.path)


def lock(stack: contextlib.ExitStack, path: Path, output: Path) -> None:
    """Locks the work folder until the stack is closed. Raises InputError if another process has locked it."""
    file = stack.enter_context((path / "lock").open("w"))
    # A file without a link: the process that held the lock has just finished and removed it.
    if try_lock(file, str(path)) and os.fstat(file.fileno()).st_nlink:
        return
    raise InputError(f"{output}: in use by another run, which works in {path}; wait for it, or choose another folder")


def refuse_foreign(path: Path) -> None:
    """Raises InputError if the folder has files that no preparation made."""
    if not path.is_dir():
        return
    foreign = [entry.name for entry in path.iterdir() if entry.name not in ("lock", f".{PLAN_FILE}")]
    if foreign:
        raise InputError(f"{path}: not a folder of an unfinished store, as it has {foreign[0]}; move it away")


def check_plan(path: Path, plan: dict) -> None:
    """Writes plan.json if there is none. Raises InputError if there is a different one."""
    file = path / PLAN_FILE
    if not file.exists():
        with replace_file(file, unique=False) as plan_file:
            plan_file.write(json.dumps(plan, indent=1) + "\n")
        return
    try:
        differences = plan_differences(json.loads(file.read_text(encoding="utf-8")), plan)
    except (ValueError, TypeError, KeyError, AttributeError):
        differences = ["its plan.json is damaged"]
    if differences:
        raise InputError(
            f"{path}: begun with another configuration and not finished: {'; '.join(differences)}; repeat the original"
            " command to continue it, or remove that folder to start again"
        )


def plan_differences(begun: dict, plan: dict) -> list[str]:
    """Returns a description of each difference between the plan that was begun and the present one."""
    differences = setting_differences(begun["settings"], plan["settings"])
    for key in sorted(begun.keys() | plan.keys()):
        if key not in ("settings", "units") and begun.get(key) != plan.get(key):
            differences.append(f"another {key}")
    units_begun, units = dict(begun["units"]), dict(plan["units"])
    changed = sorted(name for name in units_begun.keys() | units.keys() if units_begun.get(name) != units.get(name))
    if changed:
        others = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        differences.append(f"the input has changed ({changed[0]}{others})")
    return differences


def setting_differences(before: dict, now: dict) -> list[str]:
    """Returns a description of each difference between two settings, in JSON types, that has an effect."""
    idle = _without_effect(before) & _without_effect(now)
    return [
        f"{key} was {before.get(key)!r}, now {value!r}"
        for key, value in now.items()
        if before.get(key) != value and key not in idle
    ]


def _without_effect(settings: dict) -> set[str]:
    """Returns the settings of what is not done."""
    idle = set() if settings.get("dedup") == "near" else {"near_threshold"}
    return idle if {"entities", "phrases"} & set(settings.get("tags", ())) else idle | {"spacy_model"}


def remove_if_nothing_finished(path: Path) -> None:
    """Removes the work folder if no work in it is finished."""
    finished = itertools.chain(*(path.glob(pattern) for pattern in ("units/*", "duplicates/*", "vocab.txt")))
    if next(finished, None) is None:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns errors of writing into InputErrors (errors of reading a source are InputErrors already)."""
    try:
        with reporting_full_disk(path, lambda: "What is finished is kept"):
            yield
    except OSError as error:
        raise InputError(f"{path}: cannot write it ({error.strerror or error})") from error

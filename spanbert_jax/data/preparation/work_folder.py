"""The folder in which a store is being made, beside the place where it will be: what is finished there is not done again.

<output>.partial/
  lock             held by the run that works here, freed by the kernel when that dies
  plan.json        what is being made: settings and units. Another plan is refused
  duplicates/      digests and signatures of each unit's documents, and which of them are dropped
  vocab.txt        if one is trained
  units/           00012.json: unit 12 is finished, and what is in it; 00012-train.counts: of its tokens
  store/           the store's files; renamed to <output> when it is complete
  new/             files that are being written
"""

import contextlib
import errno
import fcntl
import itertools
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from spanbert_jax.errors import InputError
from spanbert_jax.folders import made_for_now, refuse_taken

PLAN_FILE = "plan.json"
FOLDERS = ("duplicates", "units", "store", "new")


class WorkFolder:
    """The paths in it, and how files appear in it: whole or not at all."""

    def __init__(self, path: Path):
        self.path = path
        self.duplicates, self.units, self.store, self.new = (path / name for name in FOLDERS)

    def clear(self) -> None:
        """Removes what was being written."""
        shutil.rmtree(self.new, ignore_errors=True)

    def make(self) -> None:
        """Makes it ready."""
        self.clear()
        for name in FOLDERS:
            (self.path / name).mkdir(exist_ok=True)

    @contextlib.contextmanager
    def new_files(self) -> Iterator[Path]:
        """A folder for files that are being written; whoever writes them moves them out of it when they are whole."""
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


@contextlib.contextmanager
def work_folder(output: Path, plan: dict) -> Iterator[WorkFolder | None]:
    """The work folder of the store at `output`, for a plan (of JSON's types) that this run alone works on; None: it is finished already.

    It is left behind when the work does not end well and something is finished in it.

    Raises:
      InputError: `output` is taken, the folder cannot be written, another run works in it, or it was begun with another plan.
    """
    output = output.absolute()  # "." has no name to put another folder beside
    path = output.parent / f"{output.name}.partial"
    with contextlib.ExitStack() as stack:
        if not (path / PLAN_FILE).exists():  # nothing was begun
            refuse_taken(output)
            refuse_foreign(path)
        with writing(path):
            stack.enter_context(made_for_now(output.parent))
            path.mkdir(exist_ok=True)
            hold(stack, path, output)
            check_plan(path, plan)
            stack.callback(remove_useless, path)
        work = WorkFolder(path)
        if (
            output / "index.json"
        ).exists() and not work.store.exists():  # a run was killed when all but the last cleaning was done
            shutil.rmtree(path)
            yield None
            return
        refuse_taken(output)
        with writing(path):
            work.make()
        stack.callback(work.clear)
        yield work


def finish(work: WorkFolder, output: Path) -> None:
    """Makes the finished store appear at `output` by one rename, and removes the work folder."""
    with writing(output):
        work.store.rename(output)
    for name in FOLDERS:  # the plan last: it says of what run the folder is
        shutil.rmtree(work.path / name, ignore_errors=True)
    shutil.rmtree(work.path)


def hold(stack: contextlib.ExitStack, path: Path, output: Path) -> None:
    """Holds the folder's lock until the stack is left. Raises InputError when another run has it."""
    lock = stack.enter_context((path / "lock").open("w"))
    with contextlib.suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock.fileno()).st_nlink:  # else the run that had it has just finished, and removed the file
            return
    raise InputError(f"{output}: in use by another run, which works in {path}; wait for it, or choose another folder")


def refuse_foreign(path: Path) -> None:
    """Raises InputError when there is something at the path that no run has left."""
    others = (
        [entry.name for entry in path.iterdir() if entry.name not in ("lock", f".{PLAN_FILE}")] if path.is_dir() else []
    )
    if others:
        raise InputError(f"{path}: not a folder that a store was begun in, it holds {others[0]}; move it away")


def check_plan(path: Path, plan: dict) -> None:
    """Writes plan.json where there is none yet, and raises InputError where there is another one."""
    file = path / PLAN_FILE
    if not file.exists():
        temporary = path / f".{PLAN_FILE}"
        temporary.write_text(json.dumps(plan, indent=1) + "\n", encoding="utf-8")
        temporary.replace(file)
        return
    try:
        begun = json.loads(file.read_text(encoding="utf-8"))
        differences = [
            f"{key} {begun['settings'].get(key)!r}, now {value!r}"
            for key, value in plan["settings"].items()
            if begun["settings"].get(key) != value
        ]
        before, now = dict(begun["units"]), dict(plan["units"])
        changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        differences += [
            f"another {key}"
            for key in sorted(begun.keys() | plan.keys())
            if key not in ("settings", "units") and begun.get(key) != plan.get(key)
        ]
    except (ValueError, TypeError, KeyError, AttributeError):
        differences, changed = ["a damaged plan.json"], []
    if changed:
        differences.append(
            f"the input has changed ({changed[0]}{f' and {len(changed) - 1} more' if changed[1:] else ''})"
        )
    if differences:
        raise InputError(
            f"{path}: begun otherwise by a run that did not finish: {'; '.join(differences)}; give what it was begun with to"
            " go on with it, or remove that folder to begin anew"
        )


def remove_useless(path: Path) -> None:
    """Removes the work folder if nothing is finished in it."""
    finished = itertools.chain(*(path.glob(pattern) for pattern in ("units/*", "duplicates/*", "vocab.txt")))
    if next(finished, None) is None:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """What goes wrong in writing becomes an InputError (what goes wrong in reading a source is one already)."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "; make room and run the same command again: what is finished is kept" if full else ""
        raise InputError(f"{path}: cannot write it ({error.strerror or error}){advice}") from error

"""Reports a run to the trackers that its config names, and never lets them stop it.

Each tracker has a thread of its own, so that a service that is slow or gone does not make the run wait. What a tracker
raises ends that tracker with a warning. metrics.jsonl has everything in any case.
"""

import contextlib
import importlib.util
import json
import queue
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spanbert_jax import config as config_lib
from spanbert_jax.errors import InputError
from spanbert_jax.folders import replace_file
from spanbert_jax.trackers import TRACKERS
from spanbert_jax.trackers.tracker import FAILED, TrackedRun

ID_FILE = "tracking.json"  # in the workdir: id and name of the run, which it keeps
CLOSE_SECONDS = 60  # that trackers may take at the end of a run to send what is left


def check_trackers(config) -> None:
    """Checks that the trackers of a config exist and that their packages are installed.

    Raises:
      InputError: they are not.
    """
    names = [name for name, _ in _named(config)]
    if unknown := [name for name in names if name not in TRACKERS]:
        raise InputError(f"tracking.trackers must be of {', '.join(TRACKERS)}, not {unknown[0]!r}")
    for name in names:
        if not installed(name):
            raise InputError(
                f"tracking.trackers: {name} is not installed here: pip install 'spanbert_jax[{name}]', or leave it out"
            )


def installed(name: str) -> bool:
    """Returns whether the package of a tracker is installed."""
    return importlib.util.find_spec(TRACKERS[name].package) is not None


def _named(config) -> list[tuple[str, str]]:
    """Returns (name, where) of each tracker of a config: "NAME" or "NAME:WHERE"."""
    parts = [text.partition(":") for text in config.tracking.trackers]
    return [(name, where) for name, _, where in parts]


def track(config, workdir: Path, provenance: Mapping[str, Any]) -> "Tracking":
    """Starts the trackers of a config, which check_trackers has accepted.

    Args:
      config: of the run.
      workdir: of the run, in which its id is kept.
      provenance: what is known of the run besides, by "section.name".
    """
    named = _named(config)
    if not named:
        return Tracking([])
    number, name = _identity(config, workdir)
    settings = dict(config_lib.flat(config)) | dict(provenance)
    runs = [
        TrackedRun(
            id=number,
            name=name,
            group=config.name,
            project=config.tracking.project,
            settings={key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()},
            workdir=workdir,
            where=where,
        )
        for _, where in named
    ]
    return Tracking([_Reporter(tracker, run) for (tracker, _), run in zip(named, runs)])


def _identity(config, workdir: Path) -> tuple[str, str]:
    """Returns id and name of the run in a folder; new ones if it has none."""
    path = workdir / ID_FILE
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        before = json.loads(path.read_text(encoding="utf-8"))
        return str(before["id"]), str(before["name"])
    number = secrets.token_hex(4)
    name = f"{config.name}-{workdir.resolve().name}-{number}"
    with replace_file(path, unique=False) as file:
        file.write(json.dumps({"id": number, "name": name}) + "\n")
    return number, name


class Tracking:
    """The trackers of a run; see the module's docstring. Warnings are returned, for the caller to print."""

    def __init__(self, reporters: Sequence["_Reporter"]):
        self._reporters = list(reporters)

    def write(self, step: int, metrics: Mapping[str, float | None]) -> list[str]:
        """Reports metrics of a step, those without a value left out; returns warnings."""
        known = {name: value for name, value in metrics.items() if value is not None}
        for reporter in self._reporters:
            reporter.queue.put(("write", step, known))
        return self._warnings()

    def close(self, how: str = FAILED) -> list[str]:
        """Waits until everything is sent, for CLOSE_SECONDS at most; returns warnings. Later calls do nothing."""
        for reporter in self._reporters:
            reporter.queue.put(("close", how))
        until = time.monotonic() + CLOSE_SECONDS
        for reporter in self._reporters:
            reporter.thread.join(max(until - time.monotonic(), 0))
            if reporter.thread.is_alive():
                reporter.problem = f"it has not ended within {CLOSE_SECONDS} s, and its last metrics may be missing"
        warnings = self._warnings()
        self._reporters = []
        return warnings

    def _warnings(self) -> list[str]:
        failed = [reporter for reporter in self._reporters if reporter.problem]
        self._reporters = [reporter for reporter in self._reporters if not reporter.problem]
        return [f"warning: the run goes on without {each.name}: {each.problem}" for each in failed]


class _Reporter:
    """The thread of one tracker."""

    def __init__(self, name: str, run: TrackedRun):
        self.name, self.problem = name, ""
        self.queue: queue.SimpleQueue = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._report, args=(run,), name=f"tracker {name}", daemon=True)
        self.thread.start()

    def _report(self, run: TrackedRun) -> None:
        try:
            tracker = TRACKERS[self.name](run)
            while True:
                call, *arguments = self.queue.get()
                getattr(tracker, call)(*arguments)
                if call == "close":
                    return
        except BaseException as error:  # whatever a package does, also if it wants to end the process
            reason = str(error).strip().partition("\n")[0][:200]
            self.problem = f"{type(error).__name__}: {reason}" if reason else type(error).__name__

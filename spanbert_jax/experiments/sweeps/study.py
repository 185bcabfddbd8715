"""The study that workers of a sweep share: which trials there are, who runs them, and what came out.

Optuna keeps it, in a journal file in the folder of the sweep or in a database. Trial n has the folder trials/n, and a
lock beside it, which its worker holds while it lives: a trial that is running without a holder is one whose worker was
killed, and the next worker goes on with it from its checkpoint.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from spanbert_jax.errors import InputError
from spanbert_jax.experiments.report.comparison import lower_is_better
from spanbert_jax.experiments.sweeps.plan import Changes, Plan, Range
from spanbert_jax.folders import try_lock

try:
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
    from optuna.trial import TrialState
except ImportError:
    raise InputError("sweeps need optuna: pip install 'spanbert_jax[sweep]'") from None

IDENTITY, CHANGES, FAILURE = "plan", "changes", "failure"  # attributes of a study and of its trials
JOURNAL, TRIALS = "journal.log", "trials"  # in the folder of a sweep


class Study:
    """A study opened by one worker."""

    def __init__(self, folder: Path, storage: str, plan: Plan):
        """Opens the study of a sweep, or creates it.

        Args:
          folder: of the sweep.
          storage: URL of a database; "": a journal file in the folder.
          plan: of the sweep.

        Raises:
          InputError: the study cannot be opened, or is of another plan.
        """
        self.folder, self.plan = folder, plan
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
        try:
            (folder / TRIALS).mkdir(parents=True, exist_ok=True)
            # Guided search draws from its own seed: workers with one seed would draw the same trials.
            self.optuna = optuna.create_study(
                storage=storage or _journal(folder / JOURNAL),
                study_name=folder.resolve().name,
                sampler=samplers[plan.sampler](),
                pruner=optuna.pruners.MedianPruner(n_startup_trials=3) if plan.prune else optuna.pruners.NopPruner(),
                direction=_direction(plan.metric),
                load_if_exists=True,
            )
        except OSError as error:
            raise InputError(f"--study={folder}: cannot be written ({error.strerror or error})") from None
        except Exception as error:  # databases raise errors of their own
            reason = str(error).strip().partition("\n")[0]
            raise InputError(f"--storage={_without_password(storage)}: the study cannot be opened ({reason})") from None
        known = self.optuna.user_attrs.get(IDENTITY)
        if known is None:
            self.optuna.set_user_attr(IDENTITY, plan.identity())
        elif known != plan.identity():
            raise InputError(f"--study={folder}: is of another config or other trials; give those, or another folder")

    def trials(self) -> list[Any]:
        """Returns the trials that count, by number, as Optuna's FrozenTrials."""
        return [trial for trial in self.optuna.get_trials(deepcopy=False) if trial.number < self.plan.number]

    @contextlib.contextmanager
    def next(self) -> Iterator["Trial | None"]:
        """Yields a trial that this worker alone runs, None if there is none left; see the module's docstring."""
        with contextlib.ExitStack() as stack:
            for frozen in self.trials():
                if frozen.state == TrialState.RUNNING and (lock := self._lock(frozen.number)):
                    stack.enter_context(lock)
                    # It may have ended between the two.
                    if self.optuna.get_trials(deepcopy=False)[frozen.number].state == TrialState.RUNNING:
                        yield Trial(self, optuna.trial.Trial(self.optuna, frozen._trial_id), resumed=True)
                        return
            while len(self.optuna.get_trials(deepcopy=False)) < self.plan.number:
                trial = self.optuna.ask()
                if trial.number >= self.plan.number:  # others were faster
                    self.optuna.tell(trial, state=TrialState.FAIL)
                elif lock := self._lock(trial.number):
                    stack.enter_context(lock)
                    yield Trial(self, trial, resumed=False)
                    return
            yield None

    def _lock(self, number: int) -> IO | None:
        """Returns the open lock file of a trial, None if another worker holds it."""
        lock = (self.folder / TRIALS / f"{number}.lock").open("a")
        if try_lock(lock, str(self.folder)):
            return lock
        lock.close()
        return None


class Trial:
    """A trial in the hands of a worker."""

    def __init__(self, study: Study, trial: Any, resumed: bool):
        self.study, self.trial, self.resumed = study, trial, resumed
        self.number: int = trial.number
        self.workdir = study.folder / TRIALS / str(trial.number)
        self.changes = self._changes()
        trial.set_user_attr(CHANGES, json.dumps(self.changes, default=list))

    def _changes(self) -> Changes:
        plan = self.study.plan
        if not plan.space:
            return dict(plan.trials[self.number])
        return {key: self._suggestion(key, values) for key, values in plan.space.items()}

    def _suggestion(self, key: str, values) -> Any:
        """Returns the value of a key, the same one if the trial has it already."""
        if isinstance(values, Range):
            suggest = self.trial.suggest_int if values.whole else self.trial.suggest_float
            return suggest(key, values.low, values.high, log=values.logarithmic)
        plain = all(isinstance(value, str | int | float | bool) for value in values)
        if plain:
            return self.trial.suggest_categorical(key, list(values))
        return values[self.trial.suggest_categorical(key, list(range(len(values))))]

    def bad_so_far(self, step: int, metrics: dict[str, float]) -> bool:
        """Reports an evaluation; returns whether the trial is to end, since it is worse than others at this step."""
        metric = self.study.plan.metric.removeprefix("valid/")
        if not self.study.plan.prune or metric not in metrics:
            return False
        self.trial.report(metrics[metric], step)
        return bool(self.trial.should_prune())

    def finish(self, value: float | None, pruned: bool = False, failure: str = "") -> None:
        """Records what came out; a trial that failed is not repeated."""
        if failure:
            self.trial.set_user_attr(FAILURE, failure)
            self.study.optuna.tell(self.trial, state=TrialState.FAIL)
        elif pruned:
            self.study.optuna.tell(self.trial, state=TrialState.PRUNED)
        else:
            self.study.optuna.tell(self.trial, value)


def _direction(metric: str) -> Any:
    directions = optuna.study.StudyDirection
    return directions.MINIMIZE if lower_is_better(metric) else directions.MAXIMIZE


def _journal(path: Path) -> Any:
    """Returns the storage in a file; its lock is one that network file systems have."""
    return optuna.storages.JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))


def _without_password(url: str) -> str:
    head, at, tail = url.rpartition("@")
    return f"{head.partition('://')[0]}://...@{tail}" if at else url

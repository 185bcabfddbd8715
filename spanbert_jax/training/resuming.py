"""What may differ between a run and the config that resumes it, and the record of what was changed on purpose.

Execution knobs may differ. So may the length of the run, the shape of its schedule and its phases, if the steps done so
far do not depend on them: the run is then what it would have been with the new values from its start. Other keys are
changed by --allow=KEY, and recorded with their step. Other versions of packages, or of this one, are recorded too.
"""

import dataclasses
from collections.abc import Collection, Mapping

import jax.numpy as jnp
import numpy as np

from spanbert_jax import config as config_lib
from spanbert_jax import provenance
from spanbert_jax.errors import InputError
from spanbert_jax.optimizers import learning_rate
from spanbert_jax.phases import phases_of

# Keys that may change while the rates so far stay what they were.
SCHEDULE = ("total_steps", "optimizer.schedule", "optimizer.decay_steps", "optimizer.decay_shape")


@dataclasses.dataclass(frozen=True)
class Change:
    """A value that is another one from the step after `step` on."""

    step: int
    key: str
    before: object
    now: object

    def __str__(self):
        return f"{self.key}: {self.before!r} in the run, {self.now!r} now"


def check_allowed(keys: Collection[str]) -> None:
    """Checks the keys of --allow.

    Raises:
      InputError: no knob has such a key.
    """
    known = config_lib.known_knobs()
    problems = [f"--allow: {config_lib.unknown_key(key)}" for key in keys if key not in known]
    if problems:
        raise InputError("\n".join(problems))


def changes(before, now, step: int) -> list[Change]:
    """Returns what the config `now` changes after `step` in a run of the config `before`, execution knobs left out."""
    return [Change(step, key, *values) for key, values in config_lib.changed(before, now).items()]


def provenance_changes(before: Mapping, now: Mapping, step: int) -> list[Change]:
    """Returns what else made the run after `step`: other versions of packages, another commit; never refused."""
    old, new = dict(provenance.flat(before)), dict(provenance.flat(now))
    keys = [key for key in {**old, **new} if not key.startswith("data.")]  # which has a check of its own
    return [Change(step, key, old.get(key), new.get(key)) for key in keys if old and old.get(key) != new.get(key)]


def refuse(found: list[Change], before, now, allowed: Collection[str], what: str) -> None:
    """Refuses changes of a run that are neither allowed nor without effect on what was trained so far.

    Args:
      found: the changes.
      before, now: the configs.
      allowed: keys of --allow.
      what: names the run, or its checkpoint.

    Raises:
      InputError: lists them.
    """
    refused = [
        change
        for change in found
        if change.key not in allowed
        and not (change.key in SCHEDULE and _same_rates(before, now, change.step))
        and not (change.key == "phases" and _phases_until(before, change.step) == _phases_until(now, change.step))
    ]
    if refused:
        lines, keys = "\n  ".join(map(str, refused)), ",".join(change.key for change in refused)
        raise InputError(
            f"{what} is of a run with another config; give that one, or another --workdir, or --allow={keys} to change "
            f"it from here on. It differs in\n  {lines}"
        )


def _phases_until(config, step: int) -> list[tuple[int, tuple[str, ...]]]:
    """Returns the beginnings and changes of the phases that began before a step was done."""
    return [(phase.first, phase.changes) for phase in phases_of(config) if phase.first < step]


def _same_rates(before, now, steps: int) -> bool:
    """Returns whether the first `steps` steps have the same rates by both schedules, all else being as it is now."""
    schedules = []
    for config in (before, now):
        mixed = now.copy_and_resolve_references().unlock()
        mixed.update_from_flattened_dict({key: dict(config_lib.flat(config))[key] for key in SCHEDULE})
        schedules.append(np.asarray(learning_rate(mixed.optimizer, mixed.total_steps)(jnp.arange(steps))))
    one, other = schedules
    return np.array_equal(one, other)

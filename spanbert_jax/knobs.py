"""Knobs: what a config key means, its default, the values it allows, and whether a run may change it on resume.

configs/base.py lists the knobs of the project. A module from outside adds its own with `declare` before it loads a
config.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

Check = Callable[[Any], str | None]  # (value) -> what is wrong with it, worded to follow the key's name, or None


@dataclasses.dataclass(frozen=True, init=False)
class Knob:
    """One config key."""

    default: Any  # its type is the type of every value; an int is accepted for a float
    meaning: str  # one line, for people
    checks: tuple[Check, ...]
    item: type  # type of the items, if the value is a tuple
    execution = False  # whether it only affects where and how a run executes, so that a resumed run may change it

    def __init__(self, default: Any, meaning: str, *checks: Check, item: type | None = None):
        item = item or (type(default[0]) if isinstance(default, tuple) and default else type(default))
        for name, value in dict(default=default, meaning=meaning, checks=checks, item=item).items():
            object.__setattr__(self, name, value)

    def problem(self, value: Any) -> str | None:
        """Returns what is wrong with a value, worded to follow the key's name, or None."""
        if not self.accepts(value):
            return f"must be a value like {self.default!r} ({type(self.default).__name__}), not {value!r}"
        return next((problem for check in self.checks if (problem := check(value))), None)

    def accepts(self, value: Any) -> bool:
        """Returns whether a value has the knob's type."""
        if isinstance(self.default, tuple):
            return isinstance(value, tuple) and all(_is_a(item, self.item) for item in value)
        return _is_a(value, type(self.default))


class Execution(Knob):
    """A knob that a resumed run may change: it affects how the run executes and reports, not what it learns."""

    execution = True


def _is_a(value: Any, kind: type) -> bool:
    return type(value) is kind or (kind is float and type(value) is int)


def at_least(least: float) -> Check:
    """Returns a check that allows numbers from `least` on."""
    problem = "must not be negative" if least == 0 else f"must be at least {least}"
    return lambda value: None if value >= least else f"{problem}, not {value}"


def at_most(most: float) -> Check:
    """Returns a check that allows numbers up to `most`."""
    return lambda value: None if value <= most else f"must be at most {most}, not {value}"


def positive(value: float) -> str | None:
    """Allows numbers above 0."""
    return None if value > 0 else f"must be positive, not {value}"


def above(limit: float) -> Check:
    """Returns a check that allows numbers above `limit`."""
    return lambda value: None if value > limit else f"must be above {limit}, not {value}"


def even(value: int) -> str | None:
    """Allows 2, 4, 6, ..."""
    return None if value > 0 and value % 2 == 0 else f"must be positive and even, not {value}"


def fraction(value: float) -> str | None:
    """Allows numbers in [0, 1)."""
    return None if 0 <= value < 1 else f"must be in [0, 1), not {value}"


def below(limit: float, name: str) -> Check:
    """Returns a check that allows numbers below `limit`, which messages call `name`."""
    return lambda value: None if value < limit else f"must be below {name}, not {value}"


def one_of(*choices: str) -> Check:
    """Returns a check that allows the listed values."""
    return lambda value: None if value in choices else f"must be one of {', '.join(choices)}, not {value!r}"


Sections = dict[str, Any]  # {"name": Knob, "section": {"name": Knob}}

DECLARED: dict[str, Knob] = {}


def declare(key: str, knob: Knob) -> None:
    """Adds a knob from outside the project to every config that is loaded from now on.

    Args:
      key: "section.name".
      knob: the new knob.

    Raises:
      ValueError: another knob was declared under this key.
    """
    if DECLARED.setdefault(key, knob) is not knob:
        raise ValueError(f"config key {key!r} is declared twice")


def flat(sections: Sections) -> dict[str, Knob]:
    """Returns {"section.name": knob} of all knobs, including those declared from outside."""
    own: dict[str, Knob] = {}
    for name, entry in sections.items():
        own |= {name: entry} if isinstance(entry, Knob) else {f"{name}.{key}": knob for key, knob in entry.items()}
    return own | DECLARED


def defaults(sections: Sections) -> dict[str, Any]:
    """Returns {"name": default, "section": {"name": default}} of all knobs."""
    values: dict[str, Any] = {}
    for key, knob in flat(sections).items():
        section, _, name = key.rpartition(".")
        (values.setdefault(section, {}) if section else values)[name] = knob.default
    return values

"""The errors that a user can cause or must act on."""

import contextlib
from collections.abc import Callable, Iterator


class InputError(ValueError):
    """A config, path, text or checkpoint that the user must fix.

    The message names what is wrong, where, and what to do, in one line per problem. Scripts print it without a
    traceback and exit with code 2.

    Attributes:
      setting: name of the setting that helps ("field"); "" if none does. How a user gives it depends on the command, so
        the message does not say it: see `settings_named`.
    """

    def __init__(self, message: str = "", setting: str = ""):
        super().__init__(message)
        self.setting = setting


@contextlib.contextmanager
def settings_named(name: Callable[[str], str]) -> Iterator[None]:
    """Adds to each line of an InputError how the setting that helps is given in the command that runs.

    Args:
      name: from a setting ("field") to what the user can give ("--field").
    """
    try:
        yield
    except InputError as error:
        if not error.setting:
            raise
        lines = [f"{line} ({name(error.setting)})" for line in str(error).splitlines()]
        raise InputError("\n".join(lines)) from error


class DoesNotFit(InputError):
    """A train step needs more memory than a device has. A store that was made before is kept for the next attempt.

    Attributes:
      needed_bytes: lower bound of the memory needed per device; None if it is unknown.
    """

    def __init__(self, message: str, needed_bytes: int | None = None):
        super().__init__(message)
        self.needed_bytes = needed_bytes


class DiskFull(InputError):
    """A disk or quota is full. What was written before is kept for the next attempt."""


class BadStep(Exception):
    """A step was bad, and the run is to go back to a checkpoint; see config.optimizer.bad_steps."""

    def __init__(self, step: int, checkpoint: int, bad_steps: int):
        super().__init__(f"step {step} was bad")
        self.step = step
        self.checkpoint = checkpoint  # its step
        self.bad_steps = bad_steps  # so far, with this one


class Diverged(ArithmeticError):
    """The loss or gradient of a run is no longer finite.

    The message names the step and the last good checkpoint. Scripts exit with code 1.
    """

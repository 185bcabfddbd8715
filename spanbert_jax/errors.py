"""The errors that a user can cause or must act on."""


class InputError(ValueError):
    """A config, path, text or checkpoint that the user must fix.

    The message names what is wrong, where, and what to do, in one line per problem. Scripts print it without a
    traceback and exit with code 2.
    """


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


class Diverged(ArithmeticError):
    """The loss or gradient of a run is no longer finite.

    The message names the step and the last good checkpoint. Scripts exit with code 1.
    """

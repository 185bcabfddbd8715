"""The one error for what a user must mend."""


class InputError(ValueError):
    """A config, path, text or checkpoint that the user must mend.

    The message is one clear line (or one a problem) that names what is wrong, where, and what to do. Scripts print it without a traceback and
    exit with code 2.
    """


class DoesNotFit(InputError):
    """A step that needs more memory than a device has. What was made of the text before stays, to be used by the next try.

    needed_bytes: on one device, at the least; None: unknown.
    """

    def __init__(self, message: str, needed_bytes: int | None = None):
        super().__init__(message)
        self.needed_bytes = needed_bytes


class Diverged(ArithmeticError):
    """A run whose loss or gradient is no longer finite; the message names the step and the last good checkpoint. Scripts exit with code 1."""

"""Signals that ask a run to save and stop, in one process or several."""

import signal

import jax

from spanbert_jax.training.sharding import highest_on


class StopSignal:
    """SIGTERM and SIGINT to any process of a run, while entered. A second one kills as usual."""

    def __init__(self, mesh):
        self._code = 0
        self._before = {}
        self._highest = highest_on(mesh) if jax.process_count() > 1 else None
        self._asked = None

    def poll(self) -> int:
        """The exit code that a signal asked for, 0 if none came: the same in all processes, who must all ask equally often.

        Of several processes it is the answer to the call before: asking is a small collective, and nobody waits for it.
        """
        if self._highest is None:
            return self._code
        before, self._asked = self._asked, self._highest(self._code)
        return 0 if before is None else int(jax.device_get(before))

    def _receive(self, number, frame):
        self._code = 128 + number
        signal.signal(number, self._before[number])

    def __enter__(self):
        self._before = {number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

"""A recording of chosen updates by jax.profiler, for TensorBoard's profile plugin, Perfetto or XProf."""

from pathlib import Path

import jax


class Profile:
    """Records updates first .. first + steps - 1 (config.profile; none when steps is 0) into workdir/profile."""

    def __init__(self, config, workdir: Path, start: int):
        self._first = max(config.first, start + 1) if config.steps else None
        self._last = self._first and self._first + config.steps - 1
        self._folder = workdir / "profile"
        self._recording = False

    def before(self, step: int) -> jax.profiler.StepTraceAnnotation:
        """To be called before update `step` is sent off, within the annotation that it returns."""
        if step == self._first:
            jax.profiler.start_trace(str(self._folder))
            self._recording = True
        return jax.profiler.StepTraceAnnotation("train", step_num=step)

    def after(self, step: int, result) -> str | None:
        """To be called after update `step` was sent off; waits for its result if it is the last recorded one, and returns a line on it."""
        if not self._recording or step != self._last:
            return None
        jax.block_until_ready(result)
        return self.close()

    def close(self) -> str | None:
        """Ends a recording that is under way."""
        if not self._recording:
            return None
        self._recording = False
        jax.profiler.stop_trace()
        return f"recorded a profile into {self._folder}"

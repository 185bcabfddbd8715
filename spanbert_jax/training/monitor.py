"""Reports of a run besides its metrics: memory in use, profiles, and the table of its parameters."""

import math
from pathlib import Path

import jax
import rich.box
import rich.table

from spanbert_jax.model.layout import param_path
from spanbert_jax.render import render


def memory_in_use() -> dict[str, int]:
    """Returns "host_memory_bytes", the resident memory of this process.

    For devices with their own memory it also returns the maxima over the devices of this process,
    "device_memory_bytes" and "device_memory_peak_bytes".
    """
    status = Path("/proc/self/status")  # exists on Linux only
    lines = status.read_text().splitlines() if status.exists() else []
    resident = [int(line.split()[1]) for line in lines if line.startswith("VmRSS")]
    found = {"host_memory_bytes": resident[0] * 1024} if resident else {}
    devices = [stats for device in jax.local_devices() if (stats := device.memory_stats())]
    for name, key in (("device_memory_bytes", "bytes_in_use"), ("device_memory_peak_bytes", "peak_bytes_in_use")):
        if devices and key in devices[0]:
            found[name] = max(stats[key] for stats in devices)
    return found


def parameter_table(params) -> str:
    """Returns a table of parameters (arrays or their shapes): path, shape, number and PartitionSpec, with the total."""
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, show_footer=True)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    total = sum(math.prod(leaf.shape) for _, leaf in leaves)
    table.add_column("parameter", footer="total")
    table.add_column("shape")
    table.add_column("number", justify="right", footer=f"{total:,}")
    table.add_column("sharding")
    for path, leaf in leaves:
        layout = ", ".join(str(axis) for axis in leaf.sharding.spec) or "replicated"
        table.add_row(param_path(path), " x ".join(map(str, leaf.shape)), f"{math.prod(leaf.shape):,}", layout)
    return render(table, width=140)


class Profile:
    """Records a profile of steps first .. first + steps - 1 into workdir/profile; see config.profile.

    TensorBoard's profile plugin, Perfetto and XProf can read it. Nothing is recorded if `steps` is 0.
    """

    def __init__(self, config, workdir: Path, start: int):
        self._first = max(config.first, start + 1) if config.steps else None
        self._last = self._first + config.steps - 1 if self._first else None
        self._folder = workdir / "profile"
        self._recording = False

    def before(self, step: int) -> jax.profiler.StepTraceAnnotation:
        """Starts the recording if it is due. Returns the annotation within which step `step` is to be dispatched."""
        if step == self._first:
            jax.profiler.start_trace(str(self._folder))
            self._recording = True
        return jax.profiler.StepTraceAnnotation("train", step_num=step)

    def after(self, step: int, result) -> str | None:
        """Ends the recording after its last step, once that step is done, and returns a line on it, else None.

        It is to be called after step `step` was dispatched.
        """
        if not self._recording or step != self._last:
            return None
        jax.block_until_ready(result)
        return self.close()

    def close(self) -> str | None:
        """Ends a recording that is in progress, and returns a line on it, else None."""
        if not self._recording:
            return None
        self._recording = False
        jax.profiler.stop_trace()
        return f"recorded a profile into {self._folder}"

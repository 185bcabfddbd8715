"""Metrics of a run: metrics.jsonl, and the same as TensorBoard events, to trackers, and as a progress line."""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import tensorflow as tf
from tensorflow.core.util import event_pb2

from spanbert_jax.folders import replace_file
from spanbert_jax.trackers.tracker import FINISHED, STOPPED
from spanbert_jax.trackers.tracking import Tracking

METRICS_FILE = "metrics.jsonl"


def read_metrics(workdir: Path) -> list[dict]:
    """Returns the lines of a workdir's metrics.jsonl, without a truncated last line of a killed run."""
    path = workdir / METRICS_FILE
    lines: list[dict] = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


class MetricsWriter:
    """Appends to the metrics of a run that continues at `step` and ends at `total_steps`.

    Lines beyond `step`, which an interrupted run wrote, are dropped: they will be written again.
    """

    def __init__(self, workdir: Path, step: int, total_steps: int, tracking: Tracking | None = None):
        self._total_steps, self._tracking = total_steps, tracking or Tracking([])
        kept = [line for line in read_metrics(workdir) if line["step"] <= step]
        path = workdir / METRICS_FILE
        with replace_file(path, unique=False) as file:
            file.writelines(json.dumps(line) + "\n" for line in kept)
        self._jsonl = path.open("a", encoding="utf-8")
        self._events = EventWriter(workdir / "tensorboard", step)
        self._start = (step, time.perf_counter())
        self._live = sys.stdout.isatty()

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Writes and flushes a line of metrics.jsonl, and the same as TensorBoard scalars and to the trackers."""
        self._jsonl.write(json.dumps({"step": step} | metrics) + "\n")
        self._jsonl.flush()
        self._events.scalars(step, metrics)
        for warning in self._tracking.write(step, metrics):
            self.log(warning)

    def show(self, step: int, metrics: dict[str, float]) -> None:
        """Prints the progress: in a terminal the next output overwrites it, elsewhere it is a line."""
        first, began = self._start
        eta = (time.perf_counter() - began) / max(step - first, 1) * (self._total_steps - step)
        parts = [f"step {step:,}/{self._total_steps:,}", f"loss {metrics['loss']:.3f}"]
        if "phase" in metrics:
            parts.insert(1, f"phase {metrics['phase']}")
        losses = [name for name in metrics if name.endswith("_loss")]
        parts += [f"{name.removesuffix('_loss')} {metrics[name]:.3f}" for name in losses if len(losses) > 1]
        parts += [f"lr {metrics['learning_rate']:.1e}", f"{metrics['tokens_per_second']:,.0f} tokens/s"]
        if metrics.get("mfu") is not None:
            parts.append(f"mfu {metrics['mfu']:.0%}")
        self._print("  ".join([*parts, f"eta {duration(eta)}"]), passing=True)

    def log(self, message: str) -> None:
        """Prints a line that is not overwritten."""
        self._print(message, passing=False)

    def _print(self, text: str, passing: bool) -> None:
        if not self._live:
            print(text, flush=True)
            return
        width = shutil.get_terminal_size().columns - 1
        print("\r\x1b[K" + (text[:width] if passing else text + "\n"), end="", flush=True)

    def close(self, stopped: bool = False) -> None:
        """Closes the files, ends the progress line, and waits for the trackers; `stopped`: the run is to go on."""
        if self._live:
            print(flush=True)
        for warning in self._tracking.close(STOPPED if stopped else FINISHED):
            self.log(warning)
        self._jsonl.close()
        self._events.close()


class NoMetrics:
    """A MetricsWriter that writes nothing, for all processes of a run but the first."""

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Does nothing."""

    def show(self, step: int, metrics: dict[str, float]) -> None:
        """Does nothing."""

    def log(self, message: str) -> None:
        """Does nothing."""

    def close(self, stopped: bool = False) -> None:
        """Does nothing."""


def duration(seconds: float) -> str:
    """Returns seconds as "42s", "3m07s", "5h02m" or "12d03h"."""
    seconds = int(seconds)
    for unit, upper, low, lower in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if seconds >= unit:
            return f"{seconds // unit}{upper}{seconds % unit // low:02d}{lower}"
    return f"{seconds}s"


class EventWriter:
    """Writes TensorBoard's event file, TFRecords of Event messages. (tf.summary would need the tensorboard package.)"""

    def __init__(self, folder: Path, step: int):
        folder.mkdir(exist_ok=True)
        self._writer = tf.io.TFRecordWriter(str(folder / f"events.out.tfevents.{time.time():.6f}.{os.getpid()}"))
        self._write(file_version="brain.Event:2")
        # Makes TensorBoard discard what an interrupted run wrote from this step on.
        self._write(step=step, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))

    def _write(self, **fields) -> None:
        self._writer.write(event_pb2.Event(wall_time=time.time(), **fields).SerializeToString())

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes one event with a scalar per name."""
        event = event_pb2.Event(wall_time=time.time(), step=step)
        for name, value in values.items():
            if value is not None:
                event.summary.value.add(tag=name, simple_value=value)
        self._writer.write(event.SerializeToString())
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()

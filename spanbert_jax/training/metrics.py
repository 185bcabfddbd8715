"""What a run tells: metrics.jsonl, which is the truth, TensorBoard events and a progress line beside it."""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import tensorflow as tf
from tensorflow.core.util import event_pb2

METRICS_FILE = "metrics.jsonl"


def read_metrics(workdir: Path) -> list[dict]:
    """The lines of a workdir's metrics.jsonl; a last one cut short by a kill is left out."""
    path = workdir / METRICS_FILE
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return lines


class MetricsWriter:
    """Appends to a workdir's metrics as a run that stands at `step` and will end at `total_steps`.

    What an interrupted run wrote beyond `step` is dropped: it will be written again.
    """

    def __init__(self, workdir: Path, step: int, total_steps: int):
        self._total_steps = total_steps
        kept = [line for line in read_metrics(workdir) if line["step"] <= step]
        path = workdir / METRICS_FILE
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        temporary.replace(path)
        self._jsonl = path.open("a", encoding="utf-8")
        self._events = EventWriter(workdir / "tensorboard", step)
        self._start = (step, time.perf_counter())
        self._live = sys.stdout.isatty()

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """One line of metrics.jsonl, flushed, and the same as TensorBoard scalars."""
        self._jsonl.write(json.dumps({"step": step} | metrics) + "\n")
        self._jsonl.flush()
        self._events.scalars(step, metrics)

    def show(self, step: int, metrics: dict[str, float]) -> None:
        """The progress line: overwritten in a terminal, a line of its own elsewhere."""
        first, began = self._start
        eta = (time.perf_counter() - began) / max(step - first, 1) * (self._total_steps - step)
        parts = [f"step {step:,}/{self._total_steps:,}", f"loss {metrics['loss']:.3f}"]
        parts += [
            f"{name} {metrics[f'{name}_loss']:.3f}" for name in ("mlm", "sbo", "nsp") if f"{name}_loss" in metrics
        ]
        parts += [f"lr {metrics['learning_rate']:.1e}", f"{metrics['tokens_per_second']:,.0f} tokens/s"]
        if metrics.get("mfu") is not None:
            parts.append(f"mfu {metrics['mfu']:.0%}")
        self._print("  ".join([*parts, f"eta {duration(eta)}"]), passing=True)

    def tell(self, message: str) -> None:
        """A line that stays."""
        self._print(message, passing=False)

    def _print(self, text: str, passing: bool) -> None:
        if not self._live:
            print(text, flush=True)
            return
        width = shutil.get_terminal_size().columns - 1
        print("\r\x1b[K" + (text[:width] if passing else text + "\n"), end="", flush=True)

    def close(self) -> None:
        """Ends the files and the progress line."""
        if self._live:
            print(flush=True)
        self._jsonl.close()
        self._events.close()


class Silence:
    """A MetricsWriter that tells nothing: of all processes of a run but the first."""

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Nothing."""

    def show(self, step: int, metrics: dict[str, float]) -> None:
        """Nothing."""

    def tell(self, message: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def duration(seconds: float) -> str:
    """Seconds as "42s", "3m07s", "5h02m" or "12d03h"."""
    seconds = int(seconds)
    for unit, upper, low, lower in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if seconds >= unit:
            return f"{seconds // unit}{upper}{seconds % unit // low:02d}{lower}"
    return f"{seconds}s"


class EventWriter:
    """TensorBoard's event file: TFRecords of Event messages. Written here because tf.summary needs the tensorboard package."""

    def __init__(self, folder: Path, step: int):
        folder.mkdir(exist_ok=True)
        self._writer = tf.io.TFRecordWriter(str(folder / f"events.out.tfevents.{time.time():.6f}.{os.getpid()}"))
        self._write(file_version="brain.Event:2")
        # Tells TensorBoard to forget what an interrupted run wrote from here on.
        self._write(step=step, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))

    def _write(self, **fields) -> None:
        self._writer.write(event_pb2.Event(wall_time=time.time(), **fields).SerializeToString())

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """One event with a scalar a name."""
        event = event_pb2.Event(wall_time=time.time(), step=step)
        for name, value in values.items():
            if value is not None:
                event.summary.value.add(tag=name, simple_value=value)
        self._writer.write(event.SerializeToString())
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()

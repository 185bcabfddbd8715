"""Evaluation of a task: predictions for all examples, their scores, and the best checkpoint so far."""

from collections.abc import Callable, Iterable
from pathlib import Path

import jax
import numpy as np

from spanbert_jax.finetuning.feed import Planned, evaluation_batches
from spanbert_jax.finetuning.task import Output, Row, Task, collate
from spanbert_jax.training import sharding
from spanbert_jax.training.checkpoint import Checkpoints
from spanbert_jax.training.program import Program
from spanbert_jax.training.run import Evaluation

BEST = "best"  # folder in the workdir


class Predictions:
    """The predictions of a program for fixed examples."""

    def __init__(
        self, task: Task, program: Program, examples: list, rows: list[Row], sizes: list[int], batch_size: int
    ):
        self.task, self.program, self.examples, self.rows = task, program, examples, rows
        self.batch_size = batch_size
        self.batches = evaluation_batches(task, rows, batch_size, sizes)

    def __call__(self, params, interrupted: Callable[[], int] = lambda: 0) -> list | None:
        """Returns a prediction for each example; None as soon as `interrupted` does not return 0."""
        part = sharding.rows_here(self.program.mesh, self.batch_size)

        def step(batch: Planned) -> dict[str, jax.Array]:
            arrays = collate(self.task, rows_of(self.rows, batch.rows[part]), batch.size)
            return self.program.eval_step(params, self.program.put(arrays, self.batch_size))

        outputs = outputs_of(self.rows, self.batches, step, interrupted)
        return None if outputs is None else self.task.decode(self.examples, outputs)

    def scores(self, params, interrupted: Callable[[], int] = lambda: 0) -> dict[str, float] | None:
        """Returns the metrics of the predictions; None as soon as `interrupted` does not return 0."""
        predictions = self(params, interrupted)
        return None if predictions is None else self.task.score(self.examples, predictions)


def outputs_of(
    rows: list[Row],
    batches: Iterable[Planned],
    step: Callable[[Planned], dict[str, jax.Array]],
    interrupted: Callable[[], int] = lambda: 0,
) -> list[Output] | None:
    """Returns what a step predicts of each row; None as soon as `interrupted` does not return 0.

    Args:
      rows: all of them.
      batches: that contain each row once.
      step: batch -> arrays [B, ...] by name.
      interrupted: called once per batch.
    """
    outputs: list[Output | None] = [None] * len(rows)
    pending: list = []  # the batch before the current one: reading it does not make the devices wait
    for batch in batches:
        pending.append((batch.rows, step(batch)))
        if len(pending) > 1:
            place(outputs, rows, *pending.pop(0))
        if interrupted():
            return None
    for numbers, arrays in pending:
        place(outputs, rows, numbers, arrays)
    return [output for output in outputs if output is not None]


def rows_of(rows: list[Row], numbers: np.ndarray) -> list[Row | None]:
    """Returns the rows with these numbers, None for -1."""
    return [rows[number] if number >= 0 else None for number in numbers]


def place(outputs: list[Output | None], rows: list[Row], numbers: np.ndarray, arrays: dict[str, jax.Array]) -> None:
    """Puts the outputs of a batch where they belong.

    Args:
      outputs: of all rows.
      rows: all of them.
      numbers: int64 [B] of the batch's rows, -1 for an empty one.
      arrays: [B, ...] by name.
    """
    values = jax.device_get(arrays)
    for index, number in enumerate(numbers):
        if number >= 0:
            outputs[number] = Output(rows[number], {name: value[index] for name, value in values.items()})


def saved_params(checkpoints: Checkpoints, step: int, like):
    """Returns the parameters in a checkpoint, laid out as `like`, a tree of jax.ShapeDtypeStruct."""
    return jax.tree.map(
        lambda array, leaf: jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda index: array[index]),
        checkpoints.read_params(step),
        like,
    )


class TaskEvaluation(Evaluation):
    """Scores the validation examples, and keeps the parameters of the best checkpoint in workdir/best."""

    title = "validation"

    def __init__(self, predictions: Predictions, workdir: Path, patience: int, every: int):
        """Prepares the evaluation.

        Args:
          predictions: of the validation examples.
          workdir: of the run.
          patience: evaluations without improvement after which the run is over; 0: never.
          every: steps between evaluations.
        """
        self.predictions, self.patience, self.every = predictions, patience, every
        self.metric = predictions.task.metric
        self.best = Checkpoints(workdir / BEST, keep_last=1)

    def __call__(self, params, interrupted: Callable[[], int]) -> dict[str, float] | None:
        """Returns the metrics of Task.score."""
        return self.predictions.scores(params, interrupted)

    def keep(self, step: int, params, metrics: dict[str, float]) -> None:
        """Saves the parameters if their metric is higher than those of all steps before."""
        before = self.best.latest()
        if before is not None:
            now, best = (
                np.nan_to_num(of[self.metric], nan=-np.inf) for of in (metrics, self.best.record(before)["metrics"])
            )
            if now <= best:
                return
        self.best.save(step, {"params": params}, {"metrics": metrics})
        self.best.wait()  # before the evaluation is logged, after which it would not be repeated

    def over(self, step: int) -> bool:
        """Returns whether the last `patience` evaluations brought no improvement."""
        best = self.best.latest()
        return bool(self.patience) and best is not None and step - best >= self.patience * self.every

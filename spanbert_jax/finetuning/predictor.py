"""Predictions of a fine-tuned model on one device, for files and for Python."""

import dataclasses
import functools
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.errors import InputError
from spanbert_jax.finetuning.evaluation import BEST, outputs_of, rows_of
from spanbert_jax.finetuning.feed import evaluation_batches
from spanbert_jax.finetuning.finetune import TASK_FILE
from spanbert_jax.finetuning.task import Row, Task, collate
from spanbert_jax.folders import refuse_existing, reporting_full_disk
from spanbert_jax.model.layout import ONE_DEVICE
from spanbert_jax.training.checkpoint import Checkpoints
from spanbert_jax.training.workdir import one_device_spec, read_config, saved_tokenizer


@dataclasses.dataclass(frozen=True)
class FineTuned:
    """A fine-tuned model as its run left it."""

    config: ConfigDict
    task: Task
    tokenizer: Tokenizer
    params: dict  # float32, numpy
    step: int
    provenance: Mapping = dataclasses.field(default_factory=dict)  # of the run


def restore(workdir: Path, kinds: Mapping[str, type[Task]]) -> FineTuned:
    """Returns the best model of a fine-tuning run; its newest one, if the run had no validation data.

    Args:
      workdir: of the run.
      kinds: the tasks by name.

    Raises:
      InputError: it is not the folder of a fine-tuning run, or the run has no checkpoint yet.
    """
    config = read_config(workdir)
    if "task" not in config:
        raise InputError(f"workdir {workdir} is of pretraining: fine-tune it with scripts/finetune.py --init={workdir}")
    if config.task.name not in kinds:
        raise InputError(f"workdir {workdir}: its task {config.task.name!r} is not one of {', '.join(kinds)}")
    folder = next((workdir / name for name in (BEST, "checkpoints") if any((workdir / name).glob("step_*"))), None)
    if folder is None:
        raise InputError(f"workdir {workdir} has no checkpoint yet")
    best, newest = Checkpoints(folder, read_only=True), Checkpoints(workdir / "checkpoints", read_only=True)
    try:
        step = best.latest()
        trained = newest.latest()
        if step is None or trained is None:
            raise InputError(f"workdir {workdir} has no complete checkpoint yet")
        record = newest.record(trained)
        tokenizer = saved_tokenizer(workdir, record["vocabulary"])
        tuned = best.record(step).get("metrics", {})  # on the validation data, if the run had any
        params = best.read_params(step)
    finally:
        best.close()
        newest.close()
    labels = json.loads((workdir / TASK_FILE).read_text(encoding="utf-8"))["labels"]
    task = kinds[config.task.name](config, tokenizer, labels)
    task.tuned = tuned
    return FineTuned(config, task, tokenizer, params, step, record.get("provenance", {}))


class Predictor:
    """Predicts with a fine-tuned model. Lengths are padded to powers of two, so few programs are compiled."""

    def __init__(self, model: FineTuned):
        device = jax.local_devices()[0]
        self.task, self.config = model.task, model.config
        self._params = jax.device_put(model.params, device)
        spec = one_device_spec(model.config, model.tokenizer, device)
        module = model.task.model(spec, ONE_DEVICE)

        @jax.jit
        def step(params, batch):
            with spec.exact_products():
                return model.task.inference(module, params, batch)

        self._step = step

    def predict(self, inputs: Sequence[Any], batch_size: int = 32) -> list:
        """Returns a prediction for each input, which Task.parse describes: texts, pairs of them, questions, ..."""
        return self.predictions(self.task.parse(self.config, inputs), batch_size)

    def predictions(self, examples: list, batch_size: int = 32) -> list:
        """Returns a prediction for each example, as Task.decode describes them."""
        if not examples:
            return []
        rows = self.task.features(examples, training=False)
        sizes = sorted({self._padded(row) for row in rows})
        batches = evaluation_batches(self.task, rows, min(batch_size, _power(len(rows))), sizes)
        step = functools.partial(self._predicted, rows)
        outputs = outputs_of(rows, batches, step)
        assert outputs is not None
        return self.task.decode(examples, outputs)

    def score(self, examples: list, predictions: list) -> dict[str, float]:
        """Returns the metrics of predictions for labelled examples."""
        return self.task.score(examples, predictions)

    def _predicted(self, rows: list[Row], batch) -> dict[str, jax.Array]:
        return self._step(self._params, collate(self.task, rows_of(rows, batch.rows), batch.size))

    def _padded(self, row: Row) -> int:
        """Returns the size of a row, rounded up to a power of two; one of positions at most to the longest row."""
        size = max(self.task.size(row), 1)
        padded = self.task.multiple * _power(-(-size // self.task.multiple))
        return max(size, min(padded, self.task.longest())) if self.task.bucketed == "L" else padded


def _power(number: int) -> int:
    return 1 << (number - 1).bit_length()


def write_predictions(path: Path, task: Task, examples: list, predictions: list) -> None:
    """Writes predictions in the task's format, which may be several files whose names begin with that of `path`.

    Raises:
      InputError: there is a file already, or it cannot be written.
    """
    refuse_existing(path)
    try:
        with reporting_full_disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
                task.write(Path(folder) / path.name, examples, predictions)
                written = sorted(Path(folder).iterdir(), key=lambda file: file.name == path.name)  # that one last
                for file in written:
                    refuse_existing(path.parent / file.name)
                for file in written:
                    file.rename(path.parent / file.name)
    except OSError as error:
        raise InputError(f"{path}: cannot write it ({error.strerror or error})") from error

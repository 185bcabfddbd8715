"""The definition of a downstream task: all that the loop, evaluation, prediction and export read of it.

    file --read--> examples --features--> rows of arrays --feed--> batches --model--> outputs --predictions--> arrays
    arrays, examples --decode--> predictions --score--> metrics;  predictions --write--> the task's official format

Losses are sums, to be divided by counts over the whole global batch, as in pretraining.
"""

import abc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.finetuning.folds import Belonging
from spanbert_jax.model.encoder import FIELDS, Encoder
from spanbert_jax.model.layout import Layout
from spanbert_jax.model.parts import Layouts
from spanbert_jax.model.spec import ModelSpec
from spanbert_jax.objectives.objective import Batch, Field
from spanbert_jax.training.step import Counts, Sums

Arrays = dict[str, np.ndarray]


class Row(NamedTuple):
    """One row of a batch: an example, or a part of one."""

    example: int  # number of the example
    arrays: Arrays  # by name, without the axis of rows; those of the encoder, and of Task.fields
    more: Any = None  # what `decode` needs besides


class Output(NamedTuple):
    """What the model predicts of a row."""

    row: Row
    arrays: Arrays  # by name as Task.predictions names them, of this row; padded sizes as in the batch


class Task(abc.ABC):
    """A downstream task of one run.

    An example is any object that `read` returns. Letters of array dimensions are B rows, L positions, and those of
    `sizes`. `bucketed` is the letter in which rows differ; they are padded to one of a few sizes of it.
    """

    name: ClassVar[str]  # of its entry in TASKS, its section of the config, its head and its loss
    metric: str  # key of `score` by which the best checkpoint is chosen; higher is better
    bucketed: ClassVar[str] = "L"
    multiple: ClassVar[int] = 8  # to which sizes of the bucketed letter are rounded up
    fields: Mapping[str, Field] = {}  # batch arrays besides the encoder's
    layouts: Layouts = ((r"(?!(.+/)?norm).*", ()),)  # of the head's parameters, by path; norms have theirs
    # Modules of the head that start from other modules of the pretrained model, given by whole paths, if it has them.
    starts_from: Mapping[str, str] = {}
    # Export: class of transformers with the same head, its names of modules of the head, keys of its config.json that
    # follow from the labels, and the name of the task on the Hugging Face hub.
    transformers_class: str = ""
    exported: Mapping[str, str] = {}
    transformers_config: Mapping[str, Any] = {}
    pipeline: ClassVar[str] = "feature-extraction"
    program_outputs: str = ""  # what the model returns, for people; "": it reads more than the encoder's arrays
    takes_pairs: bool = False  # whether a row has two texts

    def __init__(self, config, tokenizer: Tokenizer, labels: Mapping[str, Any]):
        """Prepares the task.

        Args:
          config: of the run.
          tokenizer: of the run.
          labels: what `labels_of` returned for the training examples.
        """
        self.config, self.options, self.tokenizer, self.labels = config, config.get(self.name), tokenizer, labels
        self.tuned: Mapping[str, float] = {}  # metrics of the best checkpoint on the validation data, for `decode`

    # Data

    @classmethod
    def problems(cls, config) -> list[str]:
        """Returns what prevents the task with this config, one line each."""
        return []

    @classmethod
    @abc.abstractmethod
    def read(cls, config, source: str) -> tuple[list, list[str]]:
        """Returns the examples of files or a TFDS data set, and notes for the user.

        Raises:
          InputError: they cannot be read; names file and line.
        """

    @classmethod
    def read_unlabelled(cls, config, source: str) -> tuple[list, list[str]]:
        """Returns the examples of files that may lack labels, and notes; see read."""
        return cls.read(config, source)

    @classmethod
    @abc.abstractmethod
    def parse(cls, config, inputs: Sequence[Any]) -> list:
        """Returns the examples of unlabelled inputs of the Python API, such as texts.

        Raises:
          InputError: an input is not of the task's form.
        """

    @classmethod
    def labels_of(cls, config, examples: list) -> dict[str, Any]:
        """Returns what must be the same in training and prediction: the set of labels, ..., in JSON types.

        Raises:
          InputError: the examples lack labels.
        """
        return {}

    @classmethod
    def belonging(cls, examples: list) -> list[Belonging]:
        """Returns the group and the label ("": none) of each example, for the folds of cross-validation.

        Examples of a group are not independent of each other, so they stay together; by default each is its own.
        """
        return [(number, "") for number in range(len(examples))]

    @abc.abstractmethod
    def features(self, examples: list, training: bool) -> list[Row]:
        """Returns the rows of examples.

        Args:
          examples: any number of them.
          training: whether the rows are trained on: those without targets can be left out then.
        """

    def sizes(self, size: int) -> dict[str, int]:
        """Returns the sizes of letters in `fields` other than B and the bucketed one, in batches of a size of that."""
        return {}

    def size(self, row: Row) -> int:
        """Returns a row's size of the bucketed letter."""
        return len(row.arrays["tokens"])

    def longest(self) -> int:
        """Returns the tokens of the longest row that prediction meets, to which it pads at most."""
        return self.config.seq_len

    def varied(self, row: Row, random: np.random.Generator) -> Row:
        """Returns the row as it is trained on in one epoch, such as a random part of it, no larger."""
        return row

    # Model

    @abc.abstractmethod
    def model(self, spec: ModelSpec, layout: Layout) -> nn.Module:
        """Returns a module called with (batch, seeds uint32 [B] of dropout or None), which returns outputs.

        Its submodules are "encoder", the Encoder, and one with the task's name, the head.
        """

    @abc.abstractmethod
    def counts(self, batch: Batch) -> Counts:
        """Returns what losses are divided by, for a whole batch: float32 scalars by loss, at least 1."""

    @abc.abstractmethod
    def loss(self, outputs: Any, batch: Batch, counts: Counts) -> tuple[jax.Array, Sums]:
        """Returns the contribution of a (micro)batch to the loss, and sums by loss: {"loss": ..., other metrics}."""

    def predictions(self, outputs: Any, batch: Batch) -> dict[str, jax.Array]:
        """Returns what `decode` needs, arrays [B, ...]; small, since they leave the device."""
        return outputs

    def inference(self, model: nn.Module, params: Any, batch: Batch) -> dict[str, jax.Array]:
        """Returns the predictions for a batch by a model with parameters; one that generates does so here."""
        return self.predictions(model.apply({"params": params}, batch, None), batch)

    # Predictions

    @abc.abstractmethod
    def decode(self, examples: list, outputs: list[Output]) -> list:
        """Returns a prediction for each example, in JSON types. The outputs are in the order of `features`."""

    @abc.abstractmethod
    def score(self, examples: list, predictions: list) -> dict[str, float]:
        """Returns the metrics of predictions, as the official scorer computes them."""

    def signatures(self, examples: list) -> dict[str, str]:
        """Returns by metric what is to be reported with it: the scorer's version and settings, if it has a string."""
        return {}

    @abc.abstractmethod
    def write(self, path: Path, examples: list, predictions: list) -> None:
        """Writes predictions in the official format."""


def encoder_states(spec: ModelSpec, layout: Layout, batch: Batch, seeds: jax.Array | None) -> jax.Array:
    """Returns the encoder's output [B, L, D]; to be called in a compact module, whose submodule "encoder" it makes."""
    return Encoder(spec, layout, name="encoder")(**{name: batch[name] for name in FIELDS}, seeds=seeds)


def batch_shapes(task: Task, rows: int, size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shapes and types of a batch of B = `rows` rows of a size of the bucketed letter."""
    sizes = task.sizes(size) | {"B": rows, task.bucketed: size}
    fields = encoder_fields(task) | dict(task.fields)
    return {name: field.shape(sizes) for name, field in fields.items()}


def encoder_fields(task: Task) -> dict[str, Field]:
    """Returns the encoder's arrays; a task that divides a row into several sequences declares its own."""
    return {name: Field("BL", "int32") for name in FIELDS if name not in task.fields}


def collate(task: Task, rows: Sequence[Row | None], size: int) -> Arrays:
    """Returns the arrays of a batch; rows are padded to a size of the bucketed letter, None is an empty row.

    Padding is 0: segment 0, targets without weight. Padded tokens are [PAD].
    """
    batch = {}
    for name, shape in batch_shapes(task, len(rows), size).items():
        array = np.full(shape.shape, task.tokenizer.pad_id if name == "tokens" else 0, shape.dtype)
        for number, row in enumerate(rows):
            if row is not None:
                value = np.asarray(row.arrays[name])
                place: tuple = (number, *(slice(length) for length in value.shape))
                array[place] = value
        batch[name] = array
    return batch


def single_sequence(tokenizer: Tokenizer, *parts: Sequence[int]) -> Arrays:
    """Returns the encoder's arrays of [CLS] part [SEP] (part [SEP]), int32 [L]: one block, one token type a part."""
    tokens, types = [tokenizer.cls_id], [0]
    for number, part in enumerate(parts):
        tokens += [*part, tokenizer.sep_id]
        types += [min(number, 1)] * (len(part) + 1)
    length = len(tokens)
    return {
        "tokens": np.array(tokens, np.int32),
        "segments": np.ones(length, np.int32),
        "positions": np.arange(length, dtype=np.int32),
        "token_types": np.array(types, np.int32),
    }


def weighted_mean_count(weights: jax.Array) -> jax.Array:
    """Returns the sum of the weights, at least 1."""
    return jnp.maximum(jnp.sum(weights), 1.0)


def class_names(names: Sequence[str]) -> dict[str, Any]:
    """Returns the keys of transformers' config.json that name classes."""
    return {"id2label": {str(number): name for number, name in enumerate(names)}} | {
        "label2id": {name: number for number, name in enumerate(names)}
    }

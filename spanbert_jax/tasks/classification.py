"""Classification and regression of a text or a pair of texts: GLUE, sentiment, any table.

A text longer than a row can be divided into windows (windows.py), whose vectors are averaged.
Parameters of the head: pooler/{kernel [D, D], bias [D]} (pooling "cls"), output/{kernel [D, C], bias [C]} for C
classes, or C = 1 for a number; [2D, C] for pooling "entities". Source: Devlin et al. 2019, section 4.1.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.errors import InputError
from spanbert_jax.finetuning.task import Output, Task, class_names, encoder_states, single_sequence, weighted_mean_count
from spanbert_jax.finetuning.task import Row as BatchRow
from spanbert_jax.labelled.table import GLUE, Row, read_glue, read_label_files, read_table
from spanbert_jax.labelled.tfds import PREFIX, name_and_split, read_tfds_rows
from spanbert_jax.model.dropout import dropout, fold_in
from spanbert_jax.model.layout import Layout
from spanbert_jax.model.linear import Linear
from spanbert_jax.model.spec import ModelSpec
from spanbert_jax.objectives.objective import Field, cross_entropy_sum, gather_positions
from spanbert_jax.scorers import classification as scorers
from spanbert_jax.tasks.windows import in_windows, window_problems

NAME = "classification"


class Classifier(nn.Module):
    """An encoder with a head for C classes, or for a number (C = 1)."""

    spec: ModelSpec
    layout: Layout
    classes: int
    pooling: str
    task: str  # the name of the head

    @nn.compact
    def __call__(self, batch, seeds):
        """Returns float32 [B, C]."""
        states = encoder_states(self.spec, self.layout, batch, seeds)
        return ClassificationHead(self.spec, self.classes, self.pooling, name=self.task)(states, batch, seeds)


class ClassificationHead(nn.Module):
    """Classifies rows by one vector each.

    Poolings are cls, mean (of all states), windows (the mean of the states of [CLS] of all windows), and entities (the
    states at "subject" and "object" of the batch).
    """

    spec: ModelSpec
    classes: int
    pooling: str

    @nn.compact
    def __call__(self, states, batch, seeds):
        """Returns float32 [B, C] from states [B, L, D] of a batch."""
        spec, width = self.spec, self.spec.width
        if self.pooling in ("cls", "windows"):
            first = (
                states[:, 0] if self.pooling == "cls" else mean_at(states, _inside(batch) & (batch["positions"] == 0))
            )
            pooled = jnp.tanh(Linear(spec, "BD,DE->BE", (width, width), name="pooler")(first))
        elif self.pooling == "entities":
            marks = jnp.stack([batch["subject"], batch["object"]], axis=1)  # [B, 2]
            pooled = gather_positions(states, marks).reshape(len(states), 2 * width)
        else:
            pooled = mean_at(states, _inside(batch))
        pooled = dropout(pooled, spec.dropout, None if seeds is None else fold_in(seeds, 100))
        return Linear(spec, "BD,DC->BC", (pooled.shape[1], self.classes), dtype=jnp.float32, name="output")(pooled)


def _inside(batch) -> jax.Array:
    """Returns which positions are no padding, bool [B, L]."""
    return batch["segments"] > 0


def mean_at(states: jax.Array, chosen: jax.Array) -> jax.Array:
    """Returns the mean, float32 [B, D], of the states [B, L, D] at the chosen positions, bool [B, L]; 0 for none."""
    weights = chosen.astype(jnp.float32)[..., None]  # [B, L, 1]
    return jnp.sum(states.astype(jnp.float32) * weights, axis=1) / jnp.maximum(jnp.sum(weights, axis=1), 1.0)


class OneLabel(Task):
    """A task that assigns one of labels["labels"] to each row, or, if there are none, a number."""

    fields: Mapping[str, Field] = {"label": Field("B", "int32"), "weight": Field("B", "float32")}
    exported: Mapping[str, str] = {"pooler": "bert.pooler.dense", "output": "classifier"}
    pipeline = "text-classification"
    starts_from: Mapping[str, str] = {"pooler": "nsp/pooler"}  # as BERT's classification does

    def __init__(self, config, tokenizer: Tokenizer, labels):
        super().__init__(config, tokenizer, labels)
        names = labels["labels"] or ["score"]
        self.pooling = pooling = self.options.pooling
        self.transformers_class = "BertForSequenceClassification" if pooling == "cls" else ""
        kind = "single_label_classification" if labels["labels"] else "regression"
        self.transformers_config = class_names(names) | {"problem_type": kind}
        self.program_outputs = f"for each text {', '.join(names)}" if pooling in ("cls", "mean") else ""

    def model(self, spec: ModelSpec, layout: Layout) -> nn.Module:
        """Returns the classifier."""
        return Classifier(spec, layout, max(len(self.labels["labels"]), 1), self.pooling, self.name)

    def counts(self, batch):
        """Returns the number of labelled rows."""
        return {self.name: weighted_mean_count(batch["weight"])}

    def loss(self, outputs: jax.Array, batch, counts):
        """Returns the cross-entropy."""
        total, correct = cross_entropy_sum(outputs[:, None], batch["label"][:, None], batch["weight"][:, None])
        return total / counts[self.name], {self.name: {"loss": total, "accuracy": correct}}

    def predictions(self, outputs: jax.Array, batch):
        """Returns probabilities [B, C]."""
        return {"scores": jax.nn.softmax(outputs)}

    def decode(self, examples: list, outputs: list[Output]) -> list:
        """Returns {"label": ..., "scores": {label: probability}} for each example."""
        labels = self.labels["labels"]
        return [
            {"label": labels[int(scores.argmax())], "scores": dict(zip(labels, map(float, scores)))}
            for scores in (output.arrays["scores"] for output in outputs)
        ]


class Classification(OneLabel):
    """Assigns a label, or a number, to one or two texts."""

    name = NAME

    def __init__(self, config, tokenizer: Tokenizer, labels):
        super().__init__(config, tokenizer, labels)
        self.metric = self.options.metric
        self.regression = not labels["labels"]
        if self.regression:
            self.fields = {**OneLabel.fields, "label": Field("B", "float32")}
        self.takes_pairs = len(self.options.text) == 2
        if self.options.windows > 1 and self.pooling == "cls":
            self.pooling = "windows"

    @classmethod
    def problems(cls, config):
        """Returns what is wrong with config.classification, one line each."""
        options, problems = config.classification, []
        kind, _, name = options.format.partition(":")
        if kind not in ("table", "labels", "glue") or (kind == "glue" and name not in GLUE):
            problems.append(
                f"classification.format {options.format!r} must be table, labels, or glue: and one of {', '.join(GLUE)}"
            )
        if len(options.text) not in (1, 2):
            problems.append("classification.text must name one or two columns")
        if len(options.text) > 1 and options.windows > 1:
            problems.append("classification.windows divide one text, not a pair: give classification.windows 1")
        return problems + window_problems(NAME, options, config.seq_len)

    @classmethod
    def read(cls, config, source):
        """Reads a table, files of labels, FOLDER/SPLIT of a GLUE task, or tfds:glue/TASK/SPLIT."""
        options = config.classification
        kind, _, name = options.format.partition(":")
        if source.startswith(PREFIX):
            return read_tfds_rows(*name_and_split(source)), []
        if kind == "glue":
            path = Path(source)
            return read_glue(name, path.parent, path.name)
        if kind == "labels":
            return read_label_files(source)
        *text, label = columns_of(*options.text, options.label)
        return read_table(source, text, label, labels_are_numbers=options.regression), []

    @classmethod
    def read_unlabelled(cls, config, source):
        """Reads a table without the column of labels; a split of GLUE as `read` does."""
        options = config.classification
        if options.format.startswith("glue:") or source.startswith(PREFIX):
            return cls.read(config, source)
        return read_table(source, columns_of(*options.text), None), []

    @classmethod
    def parse(cls, config, inputs: Sequence[Any]):
        """Takes a text or a pair of texts each."""
        for number, texts in enumerate(inputs):
            if not isinstance(texts, str) and not (len(texts) == 2 and all(isinstance(text, str) for text in texts)):
                raise InputError(f"input {number}: {texts!r} is neither a text nor a pair of texts")
        return [
            Row(str(number), (texts,) if isinstance(texts, str) else tuple(texts), None)
            for number, texts in enumerate(inputs)
        ]

    @classmethod
    def labels_of(cls, config, examples: list[Row]):
        """Returns {"labels": the classes in the order of their numbers; [] for regression}."""
        kind, _, name = config.classification.format.partition(":")
        if kind == "glue":
            return {"labels": list(GLUE[name].labels)}
        if config.classification.regression:
            return {"labels": []}
        labels = sorted({str(row.label) for row in examples if row.label is not None})
        if len(labels) < 2:
            raise InputError(f"task.train {config.task.train}: its labels are {labels}; two or more are needed")
        return {"labels": labels}

    @classmethod
    def belonging(cls, examples: list[Row]):
        """Each example is its own group; folds have the same share of each class."""
        return [(number, row.label if isinstance(row.label, str) else "") for number, row in enumerate(examples)]

    def features(self, examples: list[Row], training: bool) -> list[BatchRow]:
        """Returns a row for each example; of a pair, the longer text is cut first, and one text is in windows."""
        encoded = [
            self.tokenizer.encode([row.texts[part] for row in examples]) for part in range(self._parts(examples))
        ]
        numbers = {label: number for number, label in enumerate(self.labels["labels"])}
        rows = []
        for number, (example, *parts) in enumerate(zip(examples, *encoded)):
            label = example.label if self.regression else numbers.get(str(example.label))
            if training and label is None:
                raise InputError(f"task.train: example {example.id} has no label")
            if len(parts) == 1:
                arrays, _ = in_windows(
                    self.tokenizer, parts[0], self.config.seq_len, self.options.windows, self.options.overlap
                )
            else:
                arrays = single_sequence(self.tokenizer, *cut(parts, self.config.seq_len - 1 - len(parts)))
            arrays |= {"label": np.asarray(0 if label is None else label), "weight": np.asarray(label is not None)}
            rows.append(BatchRow(number, arrays))
        return rows

    def longest(self):
        """Returns the tokens of all windows."""
        return self.options.windows * self.config.seq_len

    @staticmethod
    def _parts(examples: list[Row]) -> int:
        numbers = {len(row.texts) for row in examples}
        if len(numbers) != 1:
            raise InputError("some examples have one text, others two: give all of them the same number")
        return numbers.pop()

    def loss(self, outputs: jax.Array, batch, counts):
        """Returns the cross-entropy, or the squared error."""
        if not self.regression:
            return super().loss(outputs, batch, counts)
        total = jnp.sum(batch["weight"] * (outputs[:, 0] - batch["label"]) ** 2)
        return total / counts[NAME], {NAME: {"loss": total}}

    def predictions(self, outputs: jax.Array, batch):
        """Returns probabilities [B, C], or the number [B, 1]."""
        return {"scores": outputs} if self.regression else super().predictions(outputs, batch)

    def decode(self, examples: list[Row], outputs: list[Output]):
        """Returns {"label": ..., "scores": {label: probability}}, or {"score": number}."""
        if self.regression:
            return [{"score": float(output.arrays["scores"][0])} for output in outputs]
        return super().decode(examples, outputs)

    def score(self, examples: list[Row], predictions):
        """Returns accuracy, F1, macro F1 and Matthews correlation, or Pearson's and Spearman's correlation."""
        labelled = [(row.label, given) for row, given in zip(examples, predictions) if row.label is not None]
        gold = [label for label, _ in labelled]
        if self.regression:
            numbers = [given["score"] for _, given in labelled]
            exact = [float(label) for label in gold]
            both = {"pearson": scorers.pearson(exact, numbers), "spearman": scorers.spearman(exact, numbers)}
            return both | {"mean_correlation": (both["pearson"] + both["spearman"]) / 2}
        found = [given["label"] for _, given in labelled]
        positive = self.options.positive
        return {
            "accuracy": scorers.accuracy(gold, found),
            "macro_f1": scorers.macro_f1(gold, found),
            "matthews": scorers.matthews(gold, found),
        } | ({"f1": scorers.f1(gold, found, positive)} if positive in self.labels["labels"] else {})

    def write(self, path: Path, examples: list[Row], predictions):
        """Writes JSON Lines, or, to a .tsv, GLUE's table of index and prediction."""
        if path.suffix != ".tsv":
            write_records(path, examples, predictions)
            return
        with path.open("w", encoding="utf-8") as file:
            file.write("index\tprediction\n")
            for number, given in enumerate(predictions):
                file.write(f"{number}\t{given.get('label', given.get('score'))}\n")


def write_records(path: Path, examples: Sequence, predictions: Sequence[Mapping]) -> None:
    """Writes predictions as JSON Lines, each with the "id" of its example."""
    with path.open("w", encoding="utf-8") as file:
        for example, given in zip(examples, predictions):
            file.write(json.dumps({"id": example.id, **given}, ensure_ascii=False) + "\n")


def columns_of(*names: str) -> list[str | int]:
    """Returns columns by name, or by number where the name is one."""
    return [int(name) if name.lstrip("-").isdigit() else name for name in names]


def cut(parts: Sequence[list[int]], length: int) -> list[list[int]]:
    """Returns the parts, of which the longer one is cut until they have `length` tokens together."""
    sizes = [len(part) for part in parts]
    while sum(sizes) > length:
        sizes[sizes.index(max(sizes))] -= 1
    return [part[:size] for part, size in zip(parts, sizes)]

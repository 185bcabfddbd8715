"""Downstream tasks: filling spans with a pretrained model, and the registry of those that are fine-tuned.

A task is one file and one entry; its options are a section of configs/tasks/base.py.
"""

from pathlib import Path

from spanbert_jax.finetuning.predictor import Predictor, restore
from spanbert_jax.finetuning.task import Task
from spanbert_jax.tasks.classification import Classification
from spanbert_jax.tasks.coref import Coreference
from spanbert_jax.tasks.qa import QuestionAnswering
from spanbert_jax.tasks.relations import RelationExtraction
from spanbert_jax.tasks.seq2seq import SequenceToSequence
from spanbert_jax.tasks.tagging import Tagging

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (Classification, Coreference, QuestionAnswering, RelationExtraction, SequenceToSequence, Tagging)
}


def load(workdir: str | Path) -> Predictor:
    """Returns the predictor of a fine-tuning run: `load("runs/rte").predict([("One text.", "Another."), ...])`."""
    return Predictor(restore(Path(workdir), TASKS))

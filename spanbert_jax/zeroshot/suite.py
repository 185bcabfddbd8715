"""What an evaluation without fine-tuning is: batches of texts with hidden tokens, and metrics of their prediction.

Batches have few shapes, so that few programs are compiled, and nothing in them depends on the mesh.
"""

import abc
from collections.abc import Iterator, Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from spanbert_jax.model.encoder import FIELDS
from spanbert_jax.model.layout import Layout
from spanbert_jax.model.spec import ModelSpec
from spanbert_jax.objectives import MLM, SBO, pretraining
from spanbert_jax.objectives.pretraining import Objectives

BOTH = "both"  # of the two heads
SLOT_FIELDS = ("mlm_positions", "sbo_left", "sbo_right", "sbo_offset", "targets")

Arrays = dict[str, np.ndarray]
# By head: log-probabilities of the targets in nats float32 [B, M], and whether they are the most probable bool [B, M].
Scores = dict[str, tuple[np.ndarray, np.ndarray]]


class Suite(abc.ABC):
    """An evaluation of one kind on one set of texts.

    Attributes:
      label: of its metrics.
      heads: that predict.
    """

    title: ClassVar[str]

    def __init__(self, label: str, heads: Objectives):
        self.label, self.heads = label, heads

    @abc.abstractmethod
    def batches(self, rows: int) -> Iterator[Arrays]:
        """Yields batches, always in the same order.

        Each has FIELDS int32 [B, L] and SLOT_FIELDS int32 [B, M]: slot m of row b is a hidden token, its true id
        targets[b, m]. Unused rows and slots have zeros.

        Args:
          rows: B is a multiple of it.
        """

    @abc.abstractmethod
    def count(self, rows: int) -> int:
        """Returns the number of batches."""

    @abc.abstractmethod
    def examples(self, scores: Sequence[Scores], rows: int) -> dict[str, np.ndarray]:
        """Returns metrics of each example, given the scores of batches(rows): "LABEL_...", float32 [examples]."""

    @abc.abstractmethod
    def groups(self) -> dict[str, np.ndarray]:
        """Returns groups of examples, by name: bool [examples]."""

    def metrics(self, examples: dict[str, np.ndarray]) -> dict[str, float]:
        """Returns the means of metrics of examples: "LABEL_..."; those of groups are "LABEL/GROUP/..."."""
        found = {name: float(values.mean()) for name, values in examples.items()}
        for group, members in self.groups().items():
            for name, values in examples.items():
                found[f"{self.label}/{group}/{name.removeprefix(self.label + '_')}"] = float(values[members].mean())
        return found


def empty_batch(rows: int, length: int, slots: int, pad_id: int) -> Arrays:
    """Returns a batch of B = rows of padding, L = length, M = slots."""
    batch = {name: np.zeros((rows, length), np.int32) for name in FIELDS}
    batch["tokens"][:] = pad_id
    return batch | {name: np.zeros((rows, slots), np.int32) for name in SLOT_FIELDS}


def log_probabilities(logits: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns the logarithms of the probabilities of tokens by head, float32 [B, M, V], of logits [B, M, V].

    With two heads there is also BOTH, their normalised geometric mean, p ~ sqrt(p_mlm * p_sbo): they read the same
    encoder, so their product would count twice what they share.
    """
    log_p = {head: jax.nn.log_softmax(of_head) for head, of_head in logits.items()}
    if {MLM.name, SBO.name} <= log_p.keys():
        log_p[BOTH] = jax.nn.log_softmax((log_p[MLM.name] + log_p[SBO.name]) / 2)
    return log_p


def slot_scores(spec: ModelSpec, layout: Layout, heads: Objectives, params, batch: dict[str, jax.Array]) -> dict:
    """Returns the Scores of a batch; a pure function, to be jitted.

    Args:
      spec, layout, params: of the model.
      heads: that predict, MLM and possibly SBO.
      batch: see Suite.batches.
    """
    targets = batch["targets"]
    log_p = log_probabilities(pretraining.apply(spec, layout, heads, params, batch))

    def score(log_p: jax.Array) -> tuple[jax.Array, jax.Array]:
        true = jnp.take_along_axis(log_p, targets[..., None], axis=-1)[..., 0]
        return true, jnp.argmax(log_p, axis=-1) == targets

    return {head: score(of_head) for head, of_head in log_p.items()}

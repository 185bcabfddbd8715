"""The definition of an objective: one record that batches, model, loss, metrics, sharding, plans and exports read.

Losses are sums, to be divided by counts over the whole global batch, never means of means. So they do not depend on how
rows are distributed over devices, processes and microbatches.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from spanbert_jax.model.encoder import FIELDS, Encoder
from spanbert_jax.model.parts import Layouts
from spanbert_jax.model.spec import ModelSpec

Batch = dict[str, jax.Array]


class Field(NamedTuple):
    """A batch array that an objective reads."""

    dims: str  # one letter (B rows, L positions, M slots; others by Objective.sizes) or digit per dimension, as in "BM"
    dtype: str  # "int32" or "float32"

    def shape(self, sizes: Mapping[str, int]) -> jax.ShapeDtypeStruct:
        """Returns the array's shape and type for the sizes of its letters."""
        return jax.ShapeDtypeStruct([int(dim) if dim.isdigit() else sizes[dim] for dim in self.dims], self.dtype)


class TokenFeatures(NamedTuple):
    """The output of a head that predicts tokens; the model multiplies the features with the word embeddings."""

    features: jax.Array  # [B, M, D]
    bias: jax.Array  # float32 [V]


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
    """An objective of pretraining, switched on by a positive config.objectives.<name>_weight."""

    name: str
    title: str  # for people, such as "masked language model"
    fields: Mapping[str, Field]  # batch arrays that it reads besides the encoder's; made by spanbert_jax.data.targets

    # Head: a module (spec, layout), called with (EncoderStates, batch). It returns TokenFeatures, or any arrays for
    # `loss`.
    head: type[nn.Module]
    # (output of the head, with logits [B, M, V] in place of TokenFeatures; batch) -> loss sum in nats, and sums of
    # other metrics by name. Sums are over this batch; both are reported divided by `count`.
    loss: Callable[[Any, Batch], tuple[jax.Array, dict[str, jax.Array]]]
    count: Callable[[Batch], jax.Array]  # batch -> number of targets, from the batch alone

    flops: Callable[[ModelSpec, int, int], int]  # (spec, L, M) -> FLOPs of a forward pass of the head over one row
    layouts: Layouts  # of the head's parameters, by path within the head; norms and encoders already have theirs
    # As `loss`, but returns the sum of what objectives.z_loss multiplies; None: that does not apply to the head.
    squares: Callable[[Any, Batch], jax.Array] | None = None
    # Names in PyTorch's formats of modules of the head and of parameters outside modules. Empty: the formats have none.
    exported: Mapping[str, str] = dataclasses.field(default_factory=dict)
    # Class of BERT in transformers that has this head and those of the objectives before it in the registry, or "".
    transformers_class: str = ""
    # config -> how to use the exported head if no class of transformers has it, in Markdown.
    usage: Callable[[Any], str] = lambda config: ""
    # Key of an exported config.json -> key of the config whose value it has.
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    # Config key of a size -> a parameter of the head, and the axis that has this size.
    sizes_of: Mapping[str, tuple[str, int]] = dataclasses.field(default_factory=dict)
    # Key of config.objectives whose value is added to the count that the training loss is divided by.
    count_offset_key: str | None = None
    permanent: bool = False  # whether every model has the head, whatever the weight of the objective
    reads_layers: bool = False  # whether the head reads EncoderStates.layers
    whole_batch: bool = False  # whether the loss compares rows with each other, which excludes microbatches
    sizes: Callable[[Any], dict[str, int]] = lambda config: {}  # config -> sizes of other letters in `fields`
    # config with this objective on -> what it lacks, one line each.
    problems: Callable[[Any], list[str]] = lambda config: []

    @property
    def weight_key(self) -> str:
        """The key of the weight in config.objectives."""
        return f"{self.name}_weight"


class EncoderStates:
    """The outputs of the encoder that heads may read: its last states, those of all layers, or of a second pass."""

    def __init__(self, encoder: Encoder, batch: Batch, seeds: jax.Array | None, every_layer: bool):
        self.encoder = encoder
        self.batch = batch
        self.seeds = seeds  # uint32 [B] of dropout and sampling, None outside training
        self._every_layer = every_layer

    @functools.cached_property
    def _outputs(self):
        fields = {name: self.batch[name] for name in FIELDS}
        outputs = self.encoder(**fields, seeds=self.seeds, every_layer=self._every_layer)
        return outputs if self._every_layer else (outputs, None)

    @property
    def last(self) -> jax.Array:
        """The output of the encoder, [B, L, D]."""
        return self._outputs[0]

    @property
    def layers(self) -> jax.Array:
        """The outputs of all layers, [layers, B, L, D]; only if an objective has `reads_layers`."""
        return self._outputs[1]

    def encode(self, tokens: jax.Array, seeds: jax.Array | None) -> jax.Array:
        """Returns the encoder's output [B, L, D] for other tokens [B, L] of the same rows: a second forward pass."""
        fields = {name: self.batch[name] for name in FIELDS} | {"tokens": tokens}
        return self.encoder(**fields, seeds=seeds)


def gather_positions(hidden: jax.Array, positions: jax.Array) -> jax.Array:
    """Returns hidden [B, L, D] at positions [B, M]: [B, M, D]."""
    return jnp.take_along_axis(hidden, positions[:, :, None], axis=1)


def cross_entropy_sum(logits: jax.Array, targets: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the sums over slots of weight * -log softmax(logits)[target], and of weight * (argmax == target).

    Args:
      logits: float32 [B, M, V].
      targets: int [B, M].
      weights: float32 [B, M].

    Returns:
      Two float32 scalars: the loss in nats, and the number of correct predictions.
    """
    highest = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    log_normaliser = jnp.log(jnp.sum(jnp.exp(logits - highest), axis=-1)) + highest[..., 0]  # [B, M]
    # A comparison instead of a gather fuses, has no scatter into [B, M, V] as its gradient, and needs no communication
    # when V is sharded.
    is_target = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 2) == targets[..., None]  # [B, M, V]
    target_logits = jnp.sum(jnp.where(is_target, logits, 0.0), axis=-1)  # [B, M]
    correct = (target_logits >= highest[..., 0]).astype(jnp.float32)
    return jnp.sum(weights * (log_normaliser - target_logits)), jnp.sum(weights * correct)


def slot_fields(name: str, *others: str, slots: str = "M") -> dict[str, Field]:
    """Returns the fields of an objective with targets in slots: <name>_targets, <name>_weights and <name>_<other>."""
    return {
        **{f"{name}_{other}": Field(f"B{slots}", "int32") for other in (*others, "targets")},
        f"{name}_weights": Field(f"B{slots}", "float32"),
    }


def slot_loss(name: str) -> Callable[[jax.Array, Batch], tuple[jax.Array, dict[str, jax.Array]]]:
    """Returns the loss function of an objective that classifies slots: cross-entropy, with the metric "accuracy"."""

    def loss(logits: jax.Array, batch: Batch):
        total, correct = cross_entropy_sum(logits, batch[f"{name}_targets"], batch[f"{name}_weights"])
        return total, {"accuracy": correct}

    return loss


def slot_squares(name: str) -> Callable[[jax.Array, Batch], jax.Array]:
    """Returns the function that sums log(sum(exp(logits)))^2 over slots (Chowdhery et al. 2022, section 5)."""

    def squares(logits: jax.Array, batch: Batch) -> jax.Array:
        return jnp.sum(batch[f"{name}_weights"] * jax.nn.logsumexp(logits, axis=-1) ** 2)

    return squares


def slot_count(name: str) -> Callable[[Batch], jax.Array]:
    """Returns the count function of an objective that classifies slots."""
    return lambda batch: jnp.sum(batch[f"{name}_weights"])

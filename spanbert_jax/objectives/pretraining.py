"""The pretraining model (an encoder with the heads of its objectives) and its loss, derived from their records."""

import dataclasses
import difflib
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from spanbert_jax.model.encoder import FIELDS, Encoder, parameter_layouts
from spanbert_jax.model.flops import encoder_flops
from spanbert_jax.model.layout import ONE_DEVICE, Layout
from spanbert_jax.model.parts import Layouts
from spanbert_jax.model.spec import ModelSpec
from spanbert_jax.objectives import OBJECTIVES
from spanbert_jax.objectives.mlm import MLM
from spanbert_jax.objectives.objective import Batch, EncoderStates, Objective, TokenFeatures

Objectives = tuple[Objective, ...]


def objective_problems(config) -> list[str]:
    """Returns what prevents training with config.objectives, one line each."""
    weights = {key: value for key, value in config.objectives.items() if key.endswith("_weight")}
    known = [objective.weight_key for objective in OBJECTIVES.values()]
    problems = [
        f"objectives.{key}: no objective has this weight; the registry has {', '.join(known)}"
        + "".join(f"; did you mean {near}?" for near in difflib.get_close_matches(key, known, n=1))
        for key in weights
        if key not in known
    ]
    enabled = [objective for objective in OBJECTIVES.values() if weights.get(objective.weight_key)]
    if not enabled:
        problems.append("objectives: give at least one of them a weight")
    problems += [problem for objective in enabled for problem in objective.problems(config)]
    problems += [
        f"objectives.{objective.weight_key}: {objective.name} compares rows with each other: give accumulation=1"
        for objective in enabled
        if objective.whole_batch and config.accumulation > 1
    ]
    if config.optimizer.divide_by_targets and MLM not in enabled:
        problems.append(
            f"optimizer.divide_by_targets divides by the MLM targets: give objectives.{MLM.weight_key} a value"
        )
    return problems


def trained(config) -> Objectives:
    """Returns the objectives with a weight that is not 0."""
    return tuple(o for o in OBJECTIVES.values() if config.objectives.get(o.weight_key, 0) != 0)


def with_heads(config) -> Objectives:
    """Returns the objectives whose heads the model of a config has: those with a weight, and the permanent ones."""
    return tuple(o for o in OBJECTIVES.values() if o.permanent or o in trained(config))


def batch_shapes(config, slots: int, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shapes and types of the arrays that model and loss read, for a batch of B = rows and M = slots."""
    sizes = {"B": rows, "L": config.seq_len, "M": slots}
    shapes = {name: jax.ShapeDtypeStruct((rows, config.seq_len), jnp.int32) for name in FIELDS}
    for objective in with_heads(config):
        own = sizes | objective.sizes(config)
        shapes |= {name: field.shape(own) for name, field in objective.fields.items()}
    return shapes


def layouts(spec: ModelSpec, objectives: Objectives) -> Layouts:
    """Returns the layouts of all parameters, by regular expressions of their whole path."""
    heads = ((f"{o.name}/({pattern})", axes) for o in objectives for pattern, axes in o.layouts)
    return (*parameter_layouts(spec), *heads)


def forward_flops(spec: ModelSpec, objectives: Objectives, rows: int, seq_len: int, slots: int) -> int:
    """Returns the FLOPs of a forward pass: B rows of L positions and M slots."""
    return rows * (encoder_flops(spec, seq_len) + sum(o.flops(spec, seq_len, slots) for o in objectives))


class PretrainingModel(nn.Module):
    """An encoder with heads. Only slots (masked positions) go through the vocabulary projection, to save work."""

    spec: ModelSpec
    layout: Layout
    objectives: Objectives  # whose heads it has

    @nn.compact
    def __call__(self, batch: Batch, seeds: jax.Array | None = None) -> dict[str, jax.Array]:
        """Returns the outputs of the heads, by objective; see apply."""
        encoder = Encoder(self.spec, self.layout, name="encoder")
        states = EncoderStates(encoder, batch, seeds, any(o.reads_layers for o in self.objectives))
        outputs = {o.name: o.head(self.spec, self.layout, name=o.name)(states, batch) for o in self.objectives}
        token_features = {name: output for name, output in outputs.items() if isinstance(output, TokenFeatures)}
        if not token_features:
            return outputs
        # One product with the vocabulary for all heads costs less than one each, on a CPU and in its gradient.
        slots = [output.features.shape[1] for output in token_features.values()]
        joined = jnp.concatenate([output.features for output in token_features.values()], axis=1)  # [B, sum of M, D]
        parts = jnp.split(encoder.logits(joined), np.cumsum(slots)[:-1], axis=1)
        padding = parts[0].shape[-1] - self.spec.vocab_size
        return outputs | {
            name: part + jnp.pad(output.bias, (0, padding))
            for (name, output), part in zip(token_features.items(), parts)
        }


def init_params(spec: ModelSpec, objectives: Objectives, key: jax.Array, shapes: dict | None = None) -> dict:
    """Returns random parameters, float32. They depend only on spec, objectives and key.

    Args:
      spec: of the model.
      objectives: whose heads the model has.
      key: a JAX key.
      shapes: of a batch, by name; None: of one short row, which suffices for heads that accept any length.
    """
    spec = dataclasses.replace(spec, attention="xla")  # the implementation that accepts rows of any length
    if shapes is None:
        dims = {"B": 1, "L": 2, "M": 2}
        shapes = dict.fromkeys(FIELDS, jax.ShapeDtypeStruct((1, 2), jnp.int32))
        shapes |= {name: field.shape(dims) for objective in objectives for name, field in objective.fields.items()}
    batch = {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in shapes.items()}
    return PretrainingModel(spec, ONE_DEVICE, objectives).init(key, batch)["params"]


def apply(
    spec: ModelSpec, layout: Layout, objectives: Objectives, params: dict, batch: Batch, seeds: jax.Array | None = None
) -> dict[str, jax.Array]:
    """Computes the outputs of the heads.

    Args:
      spec, layout: of the model.
      objectives: whose heads the model has.
      params: of init_params.
      batch: the arrays of batch_shapes; others are not read.
      seeds: uint32 [B] of dropout, None outside training.

    Returns:
      By objective: logits float32 [B, M, V] of a head that predicts tokens (V as in Encoder.logits), else its output.
    """
    with spec.exact_products():
        outputs = PretrainingModel(spec, layout, objectives).apply({"params": params}, batch, seeds)
    return cast(dict[str, jax.Array], outputs)


def with_token_bias(params: dict, bias: jax.Array) -> dict:
    """Returns the parameters with float32 [V] as the initial vocabulary bias of every head that has one."""
    heads = {
        name: head | {"bias": bias}
        for name, head in params.items()
        if getattr(head.get("bias"), "shape", None) == bias.shape
    }
    return params | heads


def batch_counts(batch: Batch, objectives: Objectives, options) -> dict[str, jax.Array]:
    """Returns the denominators of a whole batch, float32 scalars by objective: the number of its targets, at least 1.

    The original counts one SBO target too many (docs/original.md 2.4), as does config.objectives.sbo_count_offset = 1.
    """
    offsets = {o.name: options[o.count_offset_key] if o.count_offset_key else 0 for o in objectives}
    return {o.name: jnp.maximum(o.count(batch) + offsets[o.name], 1.0) for o in objectives}


def loss_and_sums(outputs: dict, batch: Batch, counts: dict[str, jax.Array], objectives: Objectives, options):
    """Computes the contribution of a (micro)batch to the loss (paper 3.2, docs/original.md 2.4).

    Args:
      outputs: of the heads, by objective.
      batch: the arrays of batch_shapes.
      counts: of the whole batch that this microbatch belongs to; see batch_counts.
      objectives: those with a weight.
      options: config.objectives.

    Returns:
      (sum over objectives of weight * loss sum / count, {objective: {"loss": sum, metric: sum}}). The results of
      microbatches add up to those of the whole batch. With options.z_loss, the sum includes that penalty, which is
      also a metric; "loss" does not.
    """
    loss, sums = jnp.zeros(()), {}
    for o in objectives:
        total, metrics = o.loss(outputs[o.name], batch)
        loss += options[o.weight_key] * total / counts[o.name]
        sums[o.name] = {"loss": total, **metrics}
        if options.z_loss and o.squares is not None:
            penalty = options.z_loss * o.squares(outputs[o.name], batch)
            loss += options[o.weight_key] * penalty / counts[o.name]
            sums[o.name]["z_loss"] = penalty
    return loss, sums

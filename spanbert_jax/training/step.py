"""The train state, and one update and one evaluation as pure functions of it and a batch."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from spanbert_jax import objectives as objectives_lib
from spanbert_jax.model import spanbert
from spanbert_jax.model.dropout import row_seeds
from spanbert_jax.model.spec import ModelSpec

Batch = dict[str, jax.Array]


@flax.struct.dataclass
class TrainState:
    """All that changes from update to update, and the key that all of a run's randomness comes from."""

    step: jax.Array  # int32 []: updates done
    params: Any
    opt_state: Any
    key: jax.Array  # never changes; update n uses fold_in(key, n)


def init_state(
    spec: ModelSpec, tx: optax.GradientTransformation, seed: int, output_bias: jax.Array | None
) -> TrainState:
    """A fresh state. output_bias, float32 [V], replaces the zeros that the heads' vocabulary biases start from."""
    init_key, key = jax.random.split(jax.random.key(seed))
    params = spanbert.init_params(spec, init_key)
    if output_bias is not None:
        params = params | {head: params[head] | {"bias": output_bias} for head in ("mlm", "sbo") if head in params}
    return TrainState(step=jnp.zeros((), jnp.int32), params=params, opt_state=tx.init(params), key=key)


def microbatches(batch: Batch, number: int) -> Batch:
    """[B, ...] -> [number, B / number, ...], row r into microbatch r % number, so that rows stay on the devices they are on."""
    return {name: array.reshape(-1, number, *array.shape[1:]).swapaxes(0, 1) for name, array in batch.items()}


def make_train_step(
    spec: ModelSpec, tx: optax.GradientTransformation, rate: Callable, config, lay_out: Callable = lambda grads: grads
) -> Callable:
    """The function (state, batch) -> (next state, metrics), to be jitted, of a whole config.

    The batch is the whole global one. With accumulation > 1 its rows go through the model in so many microbatches; counts are those of the
    whole batch, fixed before, so gradients just add up and the result is that of one pass. lay_out gives gradients the parameters' layout: as
    soon as they are there, so that they are added up and used in it.
    """
    objectives, accumulation = config.objectives, config.accumulation

    def loss_fn(params, batch, counts):
        logits = spanbert.apply(spec, params, batch, batch["dropout_seeds"])
        return objectives_lib.loss_and_sums(logits, batch, counts, objectives)

    def value_and_grad(params, batch, counts):
        value, grads = jax.value_and_grad(loss_fn, has_aux=True)(params, batch, counts)
        return value, lay_out(grads)

    def accumulate(params, batch, counts):
        def add(total, part):
            return jax.tree.map(jnp.add, total, value_and_grad(params, part, counts)), None

        parts = microbatches(batch, accumulation)
        first = jax.tree.map(lambda x: x[0], parts)
        zeros = jax.tree.map(
            lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(value_and_grad, params, first, counts)
        )
        return jax.lax.scan(add, zeros, parts)[0]

    def train_step(state: TrainState, batch: Batch):
        counts = objectives_lib.batch_counts(batch, objectives)
        seeds = row_seeds(jax.random.fold_in(state.key, state.step), len(batch["tokens"]))
        batch = batch | {"dropout_seeds": seeds}
        (loss, sums), grads = (accumulate if accumulation > 1 else value_and_grad)(state.params, batch, counts)
        metrics = {"loss": loss, "learning_rate": rate(state.step), "gradient_norm": optax.global_norm(grads)}
        if config.optimizer.divide_by_targets:
            grads = jax.tree.map(lambda grad: grad / counts["mlm"], grads)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        metrics |= averages(sums, counts) | {"tokens": jnp.count_nonzero(batch["segments"])}
        return state.replace(
            step=state.step + 1, params=optax.apply_updates(state.params, updates), opt_state=opt_state
        ), metrics

    return train_step


def make_eval_step(spec: ModelSpec, objectives) -> Callable:
    """The function (params, batch) -> {"mlm_sum", "mlm_correct", "mlm_count", ...}, to be jitted and added up over batches."""

    def eval_step(params, batch: Batch):
        ones = dict.fromkeys(objectives_lib.enabled(objectives), 1.0)
        _, sums = objectives_lib.loss_and_sums(spanbert.apply(spec, params, batch), batch, ones, objectives)
        return sums | {f"{name}_count": jnp.sum(batch[f"{name}_weights"]) for name in ones}

    return eval_step


def averages(sums: dict, counts: dict) -> dict:
    """{"mlm_loss" (nats a target), "mlm_accuracy", ...} of sums and counts by objective."""
    return {
        f"{name}_{metric}": sums[f"{name}_{part}"] / counts[name]
        for name in counts
        for metric, part in (("loss", "sum"), ("accuracy", "correct"))
    }

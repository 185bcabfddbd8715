"""What the loop trains, its state, and one train step as a pure function."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from spanbert_jax.model.dropout import row_seeds
from spanbert_jax.model.parts import Layouts
from spanbert_jax.model.spec import ModelSpec
from spanbert_jax.optimizers import Scalars
from spanbert_jax.optimizers.guard import guard_metrics

Batch = dict[str, jax.Array]
Counts = dict[str, jax.Array]  # float32 scalars by loss
Sums = dict[str, dict[str, jax.Array]]  # by loss: {"loss": sum in nats, other metrics: sums}

OPTIMIZER = "optimizer"  # what the names of its operations contain, between slashes, in a compiled step


@dataclasses.dataclass(frozen=True)
class Trainable:
    """A model with its losses: all that a train step needs; training/pretraining.py makes that of pretraining.

    Losses are sums over targets. Counts are those of the whole global batch and depend only on the batch. So loss and
    gradient do not depend on mesh and microbatches.
    """

    spec: ModelSpec
    init: Callable[[jax.Array, Any], Any]  # (key, what else they depend on, or None) -> parameters
    counts: Callable[[Batch], Counts]  # of a whole batch, never 0
    # (params, batch, counts, seeds of dropout [B]) -> loss, sums
    loss: Callable[[Any, Batch, Counts, jax.Array], tuple[jax.Array, Sums]]
    evaluate: Callable[[Any, Batch], Any]  # (params, batch) -> what the evaluation needs of a batch
    # rows -> the arrays that are read of a batch; of each size that batches may have, the largest first
    batch_shapes: Callable[[int], tuple[dict[str, jax.ShapeDtypeStruct], ...]]
    layouts: Layouts  # of the parameters, by their whole path
    flops: int | None  # of a forward pass over one row; None if rows differ in size
    # counts -> what gradients are divided by, before they are clipped; None: nothing
    divisor: Callable[[Counts], jax.Array] | None = None
    # As batch_shapes, of the batches of the evaluation; None: batch_shapes.
    eval_shapes: Callable[[int], tuple[dict[str, jax.ShapeDtypeStruct], ...]] | None = None


@flax.struct.dataclass
class TrainState:
    """All that changes from step to step, and the random key of a run."""

    step: jax.Array  # int32 []: steps done
    params: Any
    opt_state: Any
    key: jax.Array  # never changes; step n uses fold_in(key, n)


def init_state(trainable: Trainable, tx: optax.GradientTransformation, seed: int | jax.Array, start: Any) -> TrainState:
    """Returns the state of step 0; `start` goes to trainable.init."""
    init_key, key = jax.random.split(jax.random.key(seed))
    params = trainable.init(init_key, start)
    return TrainState(step=jnp.zeros((), jnp.int32), params=params, opt_state=tx.init(params), key=key)


def microbatches(batch: Batch, number: int) -> Batch:
    """Reshapes [B, ...] to [number, B / number, ...].

    Row r goes into microbatch r % number, so that rows stay on their devices.
    """
    return {name: array.reshape(-1, number, *array.shape[1:]).swapaxes(0, 1) for name, array in batch.items()}


def make_train_step(
    trainable: Trainable,
    optimizer_with: Callable[[Scalars], optax.GradientTransformation],
    accumulation: int,
    lay_out: Callable = lambda grads: grads,
) -> Callable:
    """Returns the function (state, batch, scalars of the step) -> (next state, metrics), to be jitted.

    Args:
      trainable: what is trained.
      optimizer_with: scalars of a step -> the optimiser.
      accumulation: number of microbatches of a batch. Counts are those of the whole batch, so gradients add up, and the
        result is that of one pass.
      lay_out: gives gradients the layout of the parameters as soon as they exist, so that they are summed in it.
    """

    def value_and_grad(params, batch, counts):
        def loss_of(params):
            return trainable.loss(params, batch, counts, batch["dropout_seeds"])

        value, grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        return value, lay_out(grads)

    def accumulate(params, batch, counts):
        def add(total, microbatch):
            return jax.tree.map(jnp.add, total, value_and_grad(params, microbatch, counts)), None

        split = microbatches(batch, accumulation)
        first = jax.tree.map(lambda x: x[0], split)
        shapes = jax.eval_shape(value_and_grad, params, first, counts)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return jax.lax.scan(add, zeros, split)[0]

    def train_step(state: TrainState, batch: Batch, scalars: Scalars):
        optimizer = optax.with_extra_args_support(optimizer_with(scalars))
        counts = trainable.counts(batch)
        seeds = row_seeds(jax.random.fold_in(state.key, state.step), len(batch["tokens"]))
        compute = accumulate if accumulation > 1 else value_and_grad
        (loss, sums), grads = compute(state.params, batch | {"dropout_seeds": seeds}, counts)
        norm = optax.global_norm(grads)
        metrics = {"loss": loss, "learning_rate": scalars.learning_rate, "gradient_norm": norm}
        if trainable.divisor is not None:
            divisor = trainable.divisor(counts)
            grads = jax.tree.map(lambda grad: grad / divisor, grads)
        with jax.named_scope(OPTIMIZER):
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params, loss=loss, gradient_norm=norm)
            params = optax.apply_updates(state.params, updates)
        metrics |= guard_metrics(opt_state)
        metrics |= averages(sums, counts) | {"tokens": jnp.count_nonzero(batch["segments"])}
        return TrainState(step=state.step + 1, params=params, opt_state=opt_state, key=state.key), metrics

    return train_step


def averages(sums: Mapping[str, Mapping[str, Any]], counts: Mapping[str, Any]) -> dict[str, Any]:
    """Returns {"mlm_loss" (nats per target), "mlm_accuracy", ...} from sums and counts by loss."""
    return {
        f"{name}_{metric}": total / counts[name] for name, metrics in sums.items() for metric, total in metrics.items()
    }

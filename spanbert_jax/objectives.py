"""Pretraining objectives (paper 3; mlm, sbo, and the baselines' nsp): logits and a batch -> sums of losses, to be divided by counts over the whole global batch.

Sums and counts, never means of means: so the loss does not depend on how rows are spread over devices, processes and microbatches.
"""

import jax
import jax.numpy as jnp


def cross_entropy_sum(logits: jax.Array, targets: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sum over slots of weight * -log softmax(logits)[target], and of weight * (argmax == target).

    Args:
      logits: float32 [B, M, V].
      targets: int [B, M].
      weights: float32 [B, M].

    Returns:
      Two float32 scalars: nats, and correct predictions.
    """
    highest = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    log_normaliser = jnp.log(jnp.sum(jnp.exp(logits - highest), axis=-1)) + highest[..., 0]  # [B, M]
    # A comparison, not a gather: it fuses, its gradient is no scatter into [B, M, V], and it stays local when V is sharded.
    is_target = jax.lax.broadcasted_iota(jnp.int32, logits.shape, 2) == targets[..., None]  # [B, M, V]
    at_target = jnp.sum(jnp.where(is_target, logits, 0.0), axis=-1)  # [B, M]
    correct = (at_target >= highest[..., 0]).astype(jnp.float32)
    return jnp.sum(weights * (log_normaliser - at_target)), jnp.sum(weights * correct)


def batch_counts(batch: dict[str, jax.Array], objectives) -> dict[str, jax.Array]:
    """Denominators of a whole batch, float32 scalars by objective, never 0: the number of its targets.

    The original counts one SBO target too many (reference 2.4); `objectives.sbo_count_offset = 1` does so too.
    """
    offset = {"mlm": 0, "sbo": objectives.sbo_count_offset, "nsp": 0}
    return {name: jnp.maximum(jnp.sum(batch[f"{name}_weights"]) + offset[name], 1.0) for name in enabled(objectives)}


def enabled(objectives) -> tuple[str, ...]:
    """Names of the objectives with a weight."""
    return tuple(name for name in ("mlm", "sbo", "nsp") if objectives[f"{name}_weight"] != 0)


def loss_and_sums(logits: dict[str, jax.Array], batch: dict[str, jax.Array], counts: dict[str, jax.Array], objectives):
    """This (micro)batch's part of the loss: sum over objectives of weight * loss sum / whole batch's count (paper 3.3, reference 2.4).

    Args:
      logits: by objective, [B, M, V]; of nsp [B, 1, 2].
      batch: `<objective>_targets` and `<objective>_weights` [B, M]; of nsp [B, 1].
      counts: of the whole batch this is a part of; see batch_counts.
      objectives: config.objectives.

    Returns:
      (loss, {"mlm_sum", "mlm_correct", ...}); parts of one batch add up to the batch's own.
    """
    loss, sums = jnp.zeros(()), {}
    for name in enabled(objectives):
        total, correct = cross_entropy_sum(logits[name], batch[f"{name}_targets"], batch[f"{name}_weights"])
        loss += objectives[f"{name}_weight"] * total / counts[name]
        sums |= {f"{name}_sum": total, f"{name}_correct": correct}
    return loss, sums

"""AdamW, its learning-rate schedule, and which parameters decay."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

Schedule = Callable[[jax.Array], jax.Array]


def learning_rate(optimizer, total_steps: int) -> Schedule:
    """Rate of update n = 0, 1, ...: linear warm-up to the peak at update `warmup_steps` - 1, then down to (almost) 0 at the last one.

    Args:
      optimizer: config.optimizer.
      total_steps: updates of the whole run.
    """
    peak, warmup = optimizer.learning_rate, optimizer.warmup_steps
    if optimizer.schedule == "original":
        return original_learning_rate(peak, warmup, total_steps, optimizer.updates_per_epoch)

    def rate(n):
        n = jnp.asarray(n, jnp.float32)
        left = jnp.clip((total_steps - n) / (total_steps - warmup), 0.0, 1.0)  # 1 at the end of warm-up, 1 / decay steps at the last update
        down = {"linear": left, "cosine": 0.5 - 0.5 * jnp.cos(jnp.pi * left), "constant": jnp.ones_like(left)}[optimizer.schedule]
        return peak * jnp.where(n < warmup, (n + 1) / max(warmup, 1), down)

    return rate


def original_learning_rate(peak: float, warmup: int, total_steps: int, updates_per_epoch: int) -> Schedule:
    """The rate that the original really used at update n = 0, 1, ... (reference 4.4).

    Linear up to the peak at n = warmup, then peak * (1 - n / total_steps): it falls from step 0 on, so it jumps after warm-up. Quirk 11: the
    very first update, and the first of each epoch, use the peak.
    """
    def rate(n):
        n = jnp.asarray(n, jnp.float32)
        regular = peak * jnp.where(n <= warmup, n / max(warmup, 1), 1 - n / total_steps)
        first = n % updates_per_epoch == 0 if updates_per_epoch else n == 0
        return jnp.where(first, peak, regular)

    return rate


def decays(path, _) -> bool:
    """Whether a parameter decays: kernels and embeddings do, biases and LayerNorms do not."""
    return path[-1].key not in ("bias", "scale")


def make_optimizer(optimizer, total_steps: int) -> optax.GradientTransformation:
    """Clipping by global norm, Adam with bias correction, decoupled weight decay (Loshchilov and Hutter 2019), schedule."""
    def decay_mask(params):
        return jax.tree_util.tree_map_with_path(lambda *leaf: optimizer.decay_biases_and_norms or decays(*leaf), params)

    clip = [optax.clip_by_global_norm(optimizer.clip_norm)] if optimizer.clip_norm else []
    return optax.chain(
        *clip,
        optax.scale_by_adam(b1=optimizer.beta1, b2=optimizer.beta2, eps=optimizer.eps),
        optax.add_decayed_weights(optimizer.weight_decay, mask=decay_mask),
        optax.scale_by_learning_rate(learning_rate(optimizer, total_steps)),
    )

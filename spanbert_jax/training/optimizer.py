"""AdamW, its learning-rate schedule, and which parameters decay."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from spanbert_jax.model.dropout import element_bits, fold_in

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
        left = jnp.clip(
            (total_steps - n) / (total_steps - warmup), 0.0, 1.0
        )  # 1 at the end of warm-up, 1 / decay steps at the last update
        down = {"linear": left, "cosine": 0.5 - 0.5 * jnp.cos(jnp.pi * left), "constant": jnp.ones_like(left)}[
            optimizer.schedule
        ]
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
    adam = optax.scale_by_adam(b1=optimizer.beta1, b2=optimizer.beta2, eps=optimizer.eps)
    return optax.chain(
        *clip,
        kept_in_bfloat16(adam) if optimizer.state_dtype == "bfloat16" else adam,
        optax.add_decayed_weights(optimizer.weight_decay, mask=decay_mask),
        optax.scale_by_learning_rate(learning_rate(optimizer, total_steps)),
    )


def kept_in_bfloat16(adam: optax.GradientTransformation) -> optax.GradientTransformation:
    """optax.scale_by_adam with moments that lie in bfloat16 between updates; it computes in float32.

    They are rounded up or down at random, by how near either is: rounded to the nearest, an average that moves by a thousandth of itself
    (beta2 = 0.999) would never move, since bfloat16 has 8 bits. The random bits are a hash of update, parameter and element: the same on any mesh.
    """

    def rounded(moments, seed):
        leaves, tree = jax.tree.flatten(moments)
        return jax.tree.unflatten(
            tree, [stochastically_rounded(leaf, fold_in(seed, number)) for number, leaf in enumerate(leaves)]
        )

    def init(params):
        state = adam.init(params)
        return state._replace(mu=optax.tree.cast(state.mu, jnp.bfloat16), nu=optax.tree.cast(state.nu, jnp.bfloat16))

    def update(grads, state, params=None):
        state = state._replace(mu=optax.tree.cast(state.mu, jnp.float32), nu=optax.tree.cast(state.nu, jnp.float32))
        updates, state = adam.update(grads, state, params)
        seed = fold_in(state.count[None].astype(jnp.uint32), 0)
        return updates, state._replace(mu=rounded(state.mu, fold_in(seed, 0)), nu=rounded(state.nu, fold_in(seed, 1)))

    return optax.GradientTransformation(init, update)


def stochastically_rounded(x: jax.Array, seed: jax.Array) -> jax.Array:
    """float32 x -> bfloat16, up or down with odds by distance, so that it is x on average. seed: uint32 [1]."""
    below = element_bits(seed, x.shape)[0] & np.uint32(0xFFFF)  # as random as the 16 bits that bfloat16 leaves out
    bits = (jax.lax.bitcast_convert_type(x, jnp.uint32) + below) & np.uint32(0xFFFF0000)
    return jax.lax.bitcast_convert_type(bits, jnp.float32).astype(jnp.bfloat16)

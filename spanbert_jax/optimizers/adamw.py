"""Adam with bias correction and decoupled weight decay (Loshchilov and Hutter 2019); moments float32 or bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from spanbert_jax.model.dropout import element_bits, fold_in


def adamw(optimizer, rate: optax.Schedule, decay: optax.GradientTransformation) -> tuple:
    """Returns the transformations of AdamW; see spanbert_jax.optimizers.OPTIMIZERS."""
    adam = optax.scale_by_adam(b1=optimizer.beta1, b2=optimizer.beta2, eps=optimizer.eps)
    adam = stored_in_bfloat16(adam) if optimizer.state_dtype == "bfloat16" else adam
    return adam, decay, optax.scale_by_learning_rate(rate)


def stored_in_bfloat16(adam: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns `adam`, an optax.scale_by_adam, with moments that are bfloat16 between steps; it computes in float32.

    The moments are rounded stochastically. With rounding to nearest, an average that changes by a thousandth of itself
    (beta2 = 0.999) would never change, since bfloat16 has 8 bits of precision. The random bits are a hash of step,
    parameter and element, so they are the same on any mesh.
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
    """Rounds float32 x to bfloat16, up or down at random such that the mean is x. seed: uint32 [1]."""
    below = element_bits(seed, x.shape)[0] & np.uint32(0xFFFF)  # as random as the 16 bits that bfloat16 leaves out
    bits = (jax.lax.bitcast_convert_type(x, jnp.uint32) + below) & np.uint32(0xFFFF0000)
    return jax.lax.bitcast_convert_type(bits, jnp.float32).astype(jnp.bfloat16)

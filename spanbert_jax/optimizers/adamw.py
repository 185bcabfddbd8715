"""Adam with bias correction and decoupled weight decay (Loshchilov and Hutter 2019); moments float32 or bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from spanbert_jax.model.dropout import element_bits, fold_in
from spanbert_jax.model.layout import Layout


def adamw(optimizer, rate: optax.Schedule, decay: optax.GradientTransformation, layout: Layout) -> tuple:
    """Returns the transformations of AdamW; see spanbert_jax.optimizers.OPTIMIZERS."""
    del layout
    return adam(optimizer), decay, optax.scale_by_learning_rate(rate)


def adam(optimizer) -> optax.GradientTransformation:
    """Returns the transformation from gradients to Adam's updates, before the learning rate."""
    if optimizer.average == "schedule_free":  # which replaces the first moment
        chosen = optax.scale_by_rms(optimizer.beta2, optimizer.eps, eps_in_sqrt=False, bias_correction=True)
    else:
        chosen = optax.scale_by_adam(b1=optimizer.beta1, b2=optimizer.beta2, eps=optimizer.eps)
    return stored_in_bfloat16(chosen) if optimizer.state_dtype == "bfloat16" else chosen


def stored_in_bfloat16(transformation: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns a transformation whose moments are bfloat16 between steps; it computes in float32.

    Its state is a named tuple, as of optax.scale_by_adam, with the number of steps `count` and the moments `mu`, `nu`
    or both.

    The moments are rounded stochastically. With rounding to nearest, an average that changes by a thousandth of itself
    (beta2 = 0.999) would never change, since bfloat16 has 8 bits of precision. The random bits are a hash of step,
    parameter and element, so they are the same on any mesh.
    """

    def rounded(moments, seed):
        leaves, tree = jax.tree.flatten(moments)
        return jax.tree.unflatten(
            tree, [stochastically_rounded(leaf, fold_in(seed, number)) for number, leaf in enumerate(leaves)]
        )

    def moments(state) -> list[str]:
        return [name for name in ("mu", "nu") if name in state._fields]

    def cast(state, dtype):
        return state._replace(**{name: optax.tree.cast(getattr(state, name), dtype) for name in moments(state)})

    def init(params):
        return cast(transformation.init(params), jnp.bfloat16)

    def update(grads, state, params=None):
        updates, state = transformation.update(grads, cast(state, jnp.float32), params)
        seed = fold_in(state.count[None].astype(jnp.uint32), 0)
        stored = {
            name: rounded(getattr(state, name), fold_in(seed, number)) for number, name in enumerate(moments(state))
        }
        return updates, state._replace(**stored)

    return optax.GradientTransformation(init, update)


def stochastically_rounded(x: jax.Array, seed: jax.Array) -> jax.Array:
    """Rounds float32 x to bfloat16, up or down at random such that the mean is x. seed: uint32 [1]."""
    below = element_bits(seed, x.shape)[0] & np.uint32(0xFFFF)  # as random as the 16 bits that bfloat16 leaves out
    bits = (jax.lax.bitcast_convert_type(x, jnp.uint32) + below) & np.uint32(0xFFFF0000)
    return jax.lax.bitcast_convert_type(bits, jnp.float32).astype(jnp.bfloat16)

"""LAMB: Adam with decay, whose updates are scaled, tensor by tensor, to the norm of the parameters.

Source: You et al. 2020 (arXiv:1904.00962, algorithm 2, with phi the identity). The ratio of a tensor is 1 where its
parameters or updates are all 0, and, as in the authors' program, for biases and norms.
"""

import jax
import jax.numpy as jnp
import optax

from spanbert_jax.model.layout import Layout, param_path
from spanbert_jax.optimizers.adamw import adam
from spanbert_jax.optimizers.groups import axes_of_tensor, decays


def lamb(optimizer, rate: optax.Schedule, decay: optax.GradientTransformation, layout: Layout) -> tuple:
    """Returns the transformations of LAMB; see spanbert_jax.optimizers.OPTIMIZERS."""
    del layout
    ratios = optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(scaled, updates, params))
    return adam(optimizer), decay, ratios, optax.scale_by_learning_rate(rate)


def scaled(path, update: jax.Array, param: jax.Array) -> jax.Array:
    """Returns the update of a parameter, scaled to the norm of the parameter."""
    path = param_path(path)
    if not decays(path):
        return update
    of_param, of_update = (
        jnp.sqrt(jnp.sum(x**2, axis=axes_of_tensor(path, x), keepdims=True)) for x in (param, update)
    )
    usable = (of_param > 0) & (of_update > 0)
    return update * jnp.where(usable, of_param / jnp.where(usable, of_update, 1.0), 1.0)

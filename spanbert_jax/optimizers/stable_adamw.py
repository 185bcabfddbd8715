"""StableAdamW: AdamW whose rate falls, tensor by tensor, where gradients outgrow their second moment.

Source: Wortsman et al. 2023 (arXiv:2304.13013, algorithm 2). With g the gradient and v its bias-corrected second
moment, the rate of a tensor, and with it its decay, is divided by max(1, sqrt(mean(g^2 / max(v, eps^2)))).
"""

import jax
import jax.numpy as jnp
import optax

from spanbert_jax.model.layout import Layout, param_path
from spanbert_jax.optimizers.adamw import stored_in_bfloat16
from spanbert_jax.optimizers.groups import axes_of_tensor


def stable_adamw(optimizer, rate: optax.Schedule, decay: optax.GradientTransformation, layout: Layout) -> tuple:
    """Returns the transformations of StableAdamW; see spanbert_jax.optimizers.OPTIMIZERS."""
    del layout
    stable = scale_by_stable_adam(optimizer.beta1, optimizer.beta2, optimizer.eps, decay)
    stable = stored_in_bfloat16(stable) if optimizer.state_dtype == "bfloat16" else stable
    return stable, optax.scale_by_learning_rate(rate)


def scale_by_stable_adam(
    beta1: float, beta2: float, eps: float, decay: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Returns the transformation from gradients to Adam's updates with weight decay, both divided as above."""
    adam = optax.scale_by_adam(beta1, beta2, eps)

    def update(grads, state, params):
        updates, state = adam.update(grads, state, params)
        updates, _ = decay.update(updates, decay.init(params), params)  # decay has no state
        second = optax.tree.bias_correction(state.nu, beta2, state.count)

        def divided(path, update, grad, v):
            axes = axes_of_tensor(param_path(path), grad)
            size = jnp.sqrt(jnp.mean(grad**2 / jnp.maximum(v, eps**2), axis=axes, keepdims=True))
            return update / jnp.maximum(1.0, size)

        return jax.tree_util.tree_map_with_path(divided, updates, grads, second), state

    return optax.GradientTransformation(adam.init, update)

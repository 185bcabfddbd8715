"""Averages of the parameters over steps, which evaluation and export use in place of the parameters.

An average is the last transformation of an optimiser: it sees what would be added to the parameters. Its state is
opt_state["average"], and the average itself is its field `params`.

ema            decay * average + (1 - decay) * parameters; decay rises to optimizer.average_decay over the first steps
schedule_free  Defazio et al. 2024 (arXiv:2405.15682): updates move z from where it was, x is the average of all z, and
               the parameters, of which gradients are taken, are y = (1 - beta1) z + beta1 x. For AdamW, whose first
               moment this replaces, at a constant rate.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

AVERAGE = "average"  # key of opt_state


class EmaState(NamedTuple):
    """The state of an exponential moving average."""

    steps: jax.Array  # int32 []: averaged
    params: Any  # the average


def ema(optimizer, rate: optax.Schedule) -> optax.GradientTransformation:
    """Returns the exponential moving average of the parameters; see AVERAGES."""
    del rate

    def init(params):
        return EmaState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def update(updates, state, params):
        # 0, 1/10, 2/11, ...: the first steps soon weigh little.
        decay = jnp.minimum(optimizer.average_decay, state.steps / (state.steps + 9.0))
        moved = optax.apply_updates(params, updates)
        average = jax.tree.map(lambda mean, now: mean + (1 - decay) * (now - mean), state.params, moved)
        return updates, EmaState(state.steps + 1, average)

    return optax.GradientTransformation(init, update)


class ScheduleFreeState(NamedTuple):
    """The state of schedule-free learning."""

    steps: jax.Array  # int32 []: averaged
    largest: jax.Array  # float32 []: learning rate so far
    total: jax.Array  # float32 []: of the weights so far
    z: Any
    params: Any  # x, the average


def schedule_free(optimizer, rate: optax.Schedule) -> optax.GradientTransformation:
    """Returns schedule-free learning; see AVERAGES. z is weighted by the square of the largest rate so far."""

    def init(params):
        zeros, number = jax.tree.map(jnp.zeros_like, params), jnp.zeros(())
        return ScheduleFreeState(jnp.zeros((), jnp.int32), number, number, zeros, zeros)

    def update(updates, state, params):
        largest = jnp.maximum(state.largest, rate(state.steps))
        total = state.total + largest**2
        share = jnp.where(total > 0, largest**2 / jnp.where(total > 0, total, 1.0), 1.0)  # 1 at the first step
        z = jax.tree.map(
            lambda z, param, update: jnp.where(state.steps == 0, param, z) + update, state.z, params, updates
        )
        x = jax.tree.map(lambda x, z: x + share * (z - x), state.params, z)
        to_y = jax.tree.map(lambda x, z, y: z + optimizer.beta1 * (x - z) - y, x, z, params)
        return to_y, ScheduleFreeState(state.steps + 1, largest, total, z, x)

    return optax.GradientTransformation(init, update)


# (config.optimizer, rate) -> transformation; see above.
AVERAGES: dict[str, Callable[..., optax.GradientTransformation]] = {"ema": ema, "schedule_free": schedule_free}


def average_problems(optimizer) -> list[str]:
    """Returns what prevents averaging as config.optimizer says, one line each."""
    if optimizer.average not in ("none", *AVERAGES):
        return [f"optimizer.average must be one of none, {', '.join(AVERAGES)}, not {optimizer.average!r}"]
    if optimizer.average != "schedule_free":
        return []
    needed = {"name": "adamw", "schedule": "constant"}
    return [
        f"optimizer.average 'schedule_free' replaces AdamW's first moment and the decay of the rate: "
        f"give optimizer.{key} {value!r}, not {optimizer[key]!r}"
        for key, value in needed.items()
        if optimizer[key] != value
    ] + ([] if optimizer.beta1 > 0 else ["optimizer.average 'schedule_free' needs optimizer.beta1 above 0"])


def averaged(params, opt_state):
    """Returns the parameters to evaluate: their average if the optimiser has one."""
    return opt_state[AVERAGE].params if isinstance(opt_state, dict) and AVERAGE in opt_state else params

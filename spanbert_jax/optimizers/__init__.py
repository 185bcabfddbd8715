"""Registries of optimisers and learning-rate schedules, and the transformation that a config describes."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from spanbert_jax.model.layout import ONE_DEVICE, Layout
from spanbert_jax.optimizers.adamw import adamw
from spanbert_jax.optimizers.averages import AVERAGE, AVERAGES, average_problems
from spanbert_jax.optimizers.groups import group_decays, group_problems, group_rates, weight_decay
from spanbert_jax.optimizers.guard import guard_problems, guarded
from spanbert_jax.optimizers.lamb import lamb
from spanbert_jax.optimizers.muon import muon
from spanbert_jax.optimizers.schedules import DECAYS, SCHEDULES, Rate
from spanbert_jax.optimizers.stable_adamw import stable_adamw

# (config.optimizer, rate, weight decay, layout on the mesh) -> transformations from clipped gradients to what is added
# to the parameters. Each applies decay and rate itself, since optimisers differ in where they apply them. States may
# have any shape. In training, `rate` returns the rate of the step under way, whatever it is called with.
Optimizer = Callable[..., tuple[optax.GradientTransformation, ...]]

OPTIMIZERS: dict[str, Optimizer] = {"adamw": adamw, "stable_adamw": stable_adamw, "lamb": lamb, "muon": muon}


def optimizer_problems(optimizer) -> list[str]:
    """Returns what prevents building config.optimizer, one line each."""
    registries = (("name", OPTIMIZERS), ("schedule", SCHEDULES), ("decay_shape", DECAYS))
    problems = [
        f"optimizer.{key} must be one of {', '.join(registry)}, not {optimizer[key]!r}"
        for key, registry in registries
        if optimizer[key] not in registry
    ]
    return problems + average_problems(optimizer) + guard_problems(optimizer) + group_problems(optimizer.groups)


def learning_rate(optimizer, total_steps: int) -> Rate:
    """Returns the function from step n = 0, 1, ... to its learning rate, for a run of total_steps."""
    return SCHEDULES[optimizer.schedule](optimizer, total_steps)


class Scalars(NamedTuple):
    """Numbers of a step that are arguments of the compiled step, so that runs which differ in them can share it."""

    learning_rate: jax.Array  # float32 []
    weight_decay: jax.Array  # float32 [groups + 1], as groups.group_decays


def step_scalars(optimizer, total_steps: int) -> Callable[[jax.Array], Scalars]:
    """Returns the function from a step n = 0, 1, ... (int32 []) to its Scalars, to be jitted."""
    rate, decays = learning_rate(optimizer, total_steps), np.array(group_decays(optimizer), np.float32)
    return lambda n: Scalars(jnp.asarray(rate(n), jnp.float32), jnp.asarray(decays))


def make_optimizer(
    optimizer, total_steps: int, layout: Layout = ONE_DEVICE, scalars: Scalars | None = None
) -> optax.GradientTransformation:
    """Returns clipping by global norm, the optimiser that config.optimizer names, and the rates of groups, chained.

    If parameters are averaged or bad steps left out, the state is a dict: that of this chain under "optimizer", and
    "average" and "guard".

    Args:
      optimizer: config.optimizer.
      total_steps: of the run.
      layout: on the mesh.
      scalars: of the step under way; None: the optimiser counts steps, and its numbers are constants.
    """
    clip = [optax.clip_by_global_norm(optimizer.clip_norm)] if optimizer.clip_norm else []
    if scalars is None:
        rate, decay = learning_rate(optimizer, total_steps), weight_decay(optimizer, group_decays(optimizer))
    else:
        rate, decay = lambda n: scalars.learning_rate, weight_decay(optimizer, scalars.weight_decay)
    chosen = OPTIMIZERS[optimizer.name](optimizer, rate, decay, layout)
    chain = optax.chain(*clip, *chosen, *group_rates(optimizer))
    average = [] if optimizer.average == "none" else [(AVERAGE, AVERAGES[optimizer.average](optimizer, rate))]
    named = optax.named_chain(("optimizer", chain), *average)
    if optimizer.bad_steps != "stop":
        return guarded(named, optimizer.spike)
    return named if average else chain

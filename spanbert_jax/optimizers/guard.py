"""Bad steps: those whose loss or gradient is not finite, or whose gradient spikes. An optimiser leaves them out.

A gradient spikes if its global norm is above optimizer.spike times the moving average of that of the good steps before.
A bad step changes neither parameters nor the state of the optimiser, except that its counts of steps go on, and with
them the learning rate. Chowdhery et al. (2022, section 5.1) met spikes by going back to a checkpoint and leaving out
the batches around them: training/run.py does that with bad_steps="rewind".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

GUARD = "guard"  # key of opt_state
DECAY = 0.98  # of the moving average of gradient norms
FIRST = 20  # good steps before a gradient can spike: those of a new model vary


class Guard(NamedTuple):
    """What is known of the steps so far."""

    norm: jax.Array  # float32 []: moving average of the gradient norms of good steps, from 0
    good_steps: jax.Array  # int32 []
    bad_steps: jax.Array  # int32 []
    bad_in_a_row: jax.Array  # int32 []: bad steps since the last good one


def guarded(tx: optax.GradientTransformation, spike: float) -> optax.GradientTransformationExtraArgs:
    """Returns an optimiser that leaves out bad steps.

    Args:
      tx: the optimiser, whose state is a dict; the Guard is added to it.
      spike: see above; 0: only loss and gradients that are not finite are bad.

    Returns:
      A transformation whose update needs the arguments `loss` and `gradient_norm`, float32 [].
    """

    def init(params):
        number = jnp.zeros((), jnp.int32)
        return dict(tx.init(params)) | {GUARD: Guard(jnp.zeros(()), number, number, number)}

    def update(grads, state, params=None, *, loss, gradient_norm, **extra):
        del extra
        guard, inner = state[GUARD], {name: part for name, part in state.items() if name != GUARD}
        good = jnp.isfinite(loss) & jnp.isfinite(gradient_norm)
        if spike:
            usual = guard.norm / (1 - DECAY ** guard.good_steps.astype(jnp.float32))
            good &= (guard.good_steps < FIRST) | (gradient_norm <= spike * usual)

        def kept(path, before, now):
            return now if getattr(path[-1], "name", None) == "count" else jnp.where(good, now, before)

        updates, moved = tx.update(grads, inner, params)
        updates = jax.tree.map(lambda each: jnp.where(good, each, 0), updates)
        moved = jax.tree_util.tree_map_with_path(kept, inner, dict(moved))
        return updates, moved | {GUARD: after(guard, good, gradient_norm)}

    return optax.GradientTransformationExtraArgs(init, update)


def after(guard: Guard, good: jax.Array, gradient_norm: jax.Array) -> Guard:
    """Returns the guard after a step."""
    one = good.astype(jnp.int32)
    return Guard(
        norm=jnp.where(good, DECAY * guard.norm + (1 - DECAY) * gradient_norm, guard.norm),
        good_steps=guard.good_steps + one,
        bad_steps=guard.bad_steps + 1 - one,
        bad_in_a_row=(guard.bad_in_a_row + 1) * (1 - one),
    )


def guard_metrics(opt_state) -> dict[str, jax.Array]:
    """Returns "bad_steps" (so far) and "bad_in_a_row" (up to this one), if the optimiser leaves out bad steps."""
    if not (isinstance(opt_state, dict) and GUARD in opt_state):
        return {}
    return {name: getattr(opt_state[GUARD], name) for name in ("bad_steps", "bad_in_a_row")}


def moved_on(opt_state: dict, steps: int, bad_steps: int) -> dict:
    """Returns a guarded optimiser's state with its counts of steps raised by `steps`, and that of bad steps set."""

    def moved(path, leaf):
        return leaf + steps if getattr(path[-1], "name", None) == "count" else leaf

    guard = opt_state[GUARD]
    guard = guard._replace(bad_steps=jnp.zeros_like(guard.bad_steps) + bad_steps)
    return jax.tree_util.tree_map_with_path(moved, opt_state) | {GUARD: guard}


def guard_problems(optimizer) -> list[str]:
    """Returns what is wrong with the settings of bad steps, one line each."""
    if optimizer.spike and optimizer.bad_steps == "stop":
        return [
            "optimizer.spike says which steps are bad, and 'stop' ends at none of them: give bad_steps skip or rewind"
        ]
    return []

"""Learning-rate schedules, and their registry.

A schedule is a function (config.optimizer, total_steps) -> (step number n = 0, 1, ... -> rate of that step).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Rate = Callable[[jax.Array], jax.Array]
Schedule = Callable[..., Rate]


def after_warmup(shape: Callable[[jax.Array], jax.Array]) -> Schedule:
    """Returns a schedule: linear warm-up to the peak at step `warmup_steps` - 1, then peak * shape(left).

    `left` falls linearly from 1 at the end of the warm-up. At the last step it is 1 / (steps after the warm-up).
    """

    def schedule(optimizer, total_steps: int) -> Rate:
        peak, warmup = optimizer.learning_rate, optimizer.warmup_steps

        def rate(n):
            n = jnp.asarray(n, jnp.float32)
            left = jnp.clip((total_steps - n) / (total_steps - warmup), 0.0, 1.0)
            return peak * jnp.where(n < warmup, (n + 1) / max(warmup, 1), shape(left))

        return rate

    return schedule


def wsd(optimizer, total_steps: int) -> Rate:
    """Returns warm-up, stable, decay (Hu et al. 2024): the peak until the last optimizer.decay_steps steps.

    There it falls with the elapsed share e of the decay, to peak * (1 - e) or peak * (1 - sqrt(e)) (Haegele et al.
    2024), and would reach 0 at step total_steps. No rate before the decay depends on total_steps, so a decay can branch
    off any checkpoint of the stable part.
    """
    peak, warmup, decay = optimizer.learning_rate, optimizer.warmup_steps, optimizer.decay_steps
    shape = DECAYS[optimizer.decay_shape]

    def rate(n):
        n = jnp.asarray(n, jnp.float32)
        elapsed = jnp.clip((n - (total_steps - decay)) / max(decay, 1), 0.0, 1.0)
        return peak * jnp.where(n < warmup, (n + 1) / max(warmup, 1), shape(elapsed))

    return rate


DECAYS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "linear": lambda elapsed: 1 - elapsed,
    "1-sqrt": lambda elapsed: 1 - jnp.sqrt(elapsed),
}


def original(optimizer, total_steps: int) -> Rate:
    """Returns the schedule that the original actually used (docs/original.md 4.4).

    It is linear up to the peak at n = warmup_steps, then peak * (1 - n / total_steps). That decay counts from step 0,
    so the rate drops after the warm-up. The first step of the run, and of each epoch of `steps_per_epoch` steps, uses
    the peak (docs/original.md, quirk 11).
    """
    peak, warmup, steps_per_epoch = optimizer.learning_rate, optimizer.warmup_steps, optimizer.steps_per_epoch

    def rate(n):
        n = jnp.asarray(n, jnp.float32)
        regular = peak * jnp.where(n <= warmup, n / max(warmup, 1), 1 - n / total_steps)
        first = n % steps_per_epoch == 0 if steps_per_epoch else n == 0
        return jnp.where(first, peak, regular)

    return rate


SCHEDULES: dict[str, Schedule] = {
    "linear": after_warmup(lambda left: left),
    "cosine": after_warmup(lambda left: 0.5 - 0.5 * jnp.cos(jnp.pi * left)),
    "constant": after_warmup(jnp.ones_like),
    "wsd": wsd,
    "original": original,
}

"""Phases of a run: from given steps on, some keys of its config have other values, as config.phases says.

BERT's rows of 128 and then 512 tokens are two phases, and so are a change of the mask rate or the rotary base, other
weights of corpora, or a ramp of the batch size. A phase has a config of its own: that of the run with the changes of
this phase and of those before. A batch stays a function of config, seed and step.
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from spanbert_jax.config import overridden, tokens_per_step
from spanbert_jax.errors import InputError

# The parameters and the state of the optimiser depend on none of these.
PHASED = (
    *("seq_len", "batch_size", "accumulation", "data.weights", "data.temperature", "data.max_blocks_per_row"),
    *("masking.schemes", "masking.weights", "masking.rate", "masking.geometric_p", "masking.min_span"),
    *("masking.max_span", "masking.fixed_span", "masking.tagged_fraction", "masking.mask_fraction"),
    *("masking.random_fraction", "model.rope_base", "model.local_rope_base"),
)

EXAMPLE = '"90000: seq_len=512 batch_size=64"'


class Phase(NamedTuple):
    """A part of a run in which nothing changes."""

    number: int  # from 1
    first: int  # steps done before it
    last: int  # steps done at its end
    changes: tuple[str, ...]  # "key=value" each
    config: ConfigDict  # without phases

    def __str__(self):
        return " ".join([f"phase {self.number}, from step {self.first + 1:,} to {self.last:,}:", *self.changes])


def phases_of(config: ConfigDict) -> list[Phase]:
    """Returns the phases of a config in their order: one, if it names none.

    Raises:
      InputError: lists what is wrong with config.phases, one per line.
    """
    problems: list[str] = []
    parsed: list[tuple[int, tuple[str, ...], ConfigDict]] = [(0, (), overridden(config, ("phases=",)))]
    for text in config.phases:
        try:
            first, changes = _parsed(text)
            parsed.append((first, changes, overridden(parsed[-1][-1], changes)))
        except InputError as error:
            problems += [f"phases {text!r}: {line}" for line in str(error).splitlines()]
    ends = [*(first for first, *_ in parsed[1:]), config.total_steps]
    for (first, *_), end in zip(parsed, ends):
        if first >= end and config.phases:
            other = "the end, total_steps" if end is ends[-1] else "the next phase, which begins after step"
            problems.append(f"phases: the one after step {first:,} has no step before {other} {end:,}")
    if problems:
        raise InputError("\n".join(problems))
    return [
        Phase(number, first, end, changes, in_phase)
        for number, ((first, changes, in_phase), end) in enumerate(zip(parsed, ends), 1)
    ]


def _parsed(text: str) -> tuple[int, tuple[str, ...]]:
    """Returns (steps before a phase, its changes).

    Raises:
      InputError: the text is not that of a phase, or changes what cannot change.
    """
    step, colon, rest = text.partition(":")
    changes = tuple(rest.split())
    if not step.strip().isdigit() or not colon or not changes:
        raise InputError(f"give the number of steps before it and what changes, as in {EXAMPLE}")
    if fixed := [key for key in (change.partition("=")[0] for change in changes) if key not in PHASED]:
        raise InputError(f"{', '.join(fixed)} cannot change within a run; what can: {', '.join(PHASED)}")
    return int(step), changes


def config_at(config: ConfigDict, step: int) -> ConfigDict:
    """Returns the config of the phase that a step, counted from 1, belongs to; 0: of the first one."""
    return next(phase.config for phase in phases_of(config) if step <= phase.last or phase.last == config.total_steps)


def tokens_until(config: ConfigDict, step: int) -> int:
    """Returns the number of positions in the first `step` steps, padding included."""
    return sum(
        tokens_per_step(phase.config) * max(min(step, phase.last) - phase.first, 0) for phase in phases_of(config)
    )

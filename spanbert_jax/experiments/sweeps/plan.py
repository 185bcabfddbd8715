"""What a sweep tries: a list of changes of a config, or a space of them to be searched."""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from spanbert_jax import config as config_lib
from spanbert_jax.errors import InputError

Changes = dict[str, Any]  # key of the config -> value


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers to search between two others, which are included."""

    low: float
    high: float
    logarithmic: bool
    whole: bool  # whether they are integers


Space = Mapping[str, Range | Sequence[Any]]  # key of the config -> range or choices


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a sweep tries. Trial n of a list has the changes trials[n]; those of a search are suggested one by one."""

    config: ConfigDict  # what all trials have in common
    trials: Sequence[Changes]  # of a list; empty for a search
    space: Space  # of a search; empty for a list
    number: int  # of trials
    metric: str  # that decides which trial is better; of the last evaluation, or of results.json
    sampler: str  # of a search: "tpe" or "random"
    prune: bool  # whether trials end early whose metric is worse than the median at the same step

    def identity(self) -> str:
        """Returns a text that is the same exactly for the same plan, but for execution options and the number."""
        known = config_lib.known_knobs()
        config = {key: value for key, value in config_lib.flat(self.config) if not known[key].execution}
        space = {
            key: dataclasses.asdict(values) if isinstance(values, Range) else list(values)
            for key, values in self.space.items()
        }
        return json.dumps([config, list(self.trials), space, self.metric], sort_keys=True, default=list)

    def config_of(self, changes: Changes) -> ConfigDict:
        """Returns the config of a trial."""
        return config_lib.with_changes(self.config, changes)


def listed(grid: Iterable[str], zipped: Iterable[str], seeds: int, config: ConfigDict) -> list[Changes]:
    """Returns the trials of --grid, --zip and --seeds: every combination of them.

    Args:
      grid: "KEY=V1,V2" each; all combinations.
      zipped: "KEY=V1,V2" each, of the same length; first values together, second ones together, ...
      seeds: number of seeds of each, from config.seed on.
      config: of the sweep.

    Raises:
      InputError: keys are unknown, values of a wrong type, or lengths differ.
    """
    axes: list[list[Changes]] = []
    for text in grid:
        key, values = choices(text, "--grid", config)
        axes.append([{key: value} for value in values])
    together = [choices(text, "--zip", config) for text in zipped]
    if together:
        lengths = {key: len(values) for key, values in together}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{key} has {length}" for key, length in lengths.items())
            raise InputError(f"--zip needs as many values of each key: {counts}")
        axes.append([dict(zip(lengths, values)) for values in zip(*(values for _, values in together))])
    if seeds > 1:
        axes.append([{"seed": config.seed + number} for number in range(seeds)])
    return [{key: value for part in parts for key, value in part.items()} for parts in itertools.product(*axes)]


def choices(text: str, flag: str, config: ConfigDict) -> tuple[str, list[Any]]:
    """Parses "KEY=V1,V2"; values of a key that holds a tuple are separated by semicolons.

    Raises:
      InputError: it is not that, or the key is unknown, or a value has a wrong type.
    """
    key, equals, values = text.partition("=")
    if not equals or not values:
        raise InputError(f"{flag} {text!r}: give values, as in optimizer.learning_rate=1e-3,3e-3")
    separator = ";" if isinstance(dict(config_lib.flat(config)).get(key), tuple) else ","
    return key, [config_lib.parsed(config, key, value.strip()) for value in values.split(separator)]


def searched(texts: Iterable[str], config: ConfigDict) -> dict[str, Range | Sequence[Any]]:
    """Parses the space of --search: "KEY=LOW:HIGH", "KEY=LOW:HIGH:log" or "KEY=V1,V2" each.

    Raises:
      InputError: one is not that, its key is unknown, or a value has a wrong type.
    """
    space: dict[str, Range | Sequence[Any]] = {}
    for text in texts:
        key, _, values = text.partition("=")
        bounds = values.split(":")
        if len(bounds) == 1:
            space[key] = choices(text, "--search", config)[1]
            continue
        low, high = (config_lib.parsed(config, key, bound) for bound in bounds[:2])
        numbers = all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in (low, high))
        logarithmic = bounds[2:] == ["log"]
        if not numbers or (bounds[2:] and not logarithmic) or low >= high or (logarithmic and low <= 0):
            raise InputError(f"--search {text!r}: a range is LOW:HIGH or LOW:HIGH:log of numbers, LOW below HIGH")
        space[key] = Range(low, high, logarithmic, isinstance(low, int))
    return space


def check(plan: Plan) -> None:
    """Checks every trial of a list, and the keys of a space.

    Raises:
      InputError: lists what is wrong, one line per problem.
    """
    problems: dict[str, None] = {}
    for changes in plan.trials or [{}]:
        try:
            found = config_lib.config_problems(plan.config_of(changes))
        except InputError as error:
            found = str(error).splitlines()
        problems |= dict.fromkeys(f"{shown(changes)}: {problem}" if changes else problem for problem in found)
    if problems:
        raise InputError("\n".join(problems))


def shown(changes: Changes) -> str:
    """Returns changes as "key=value, key=value"."""
    return ", ".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in changes.items()
    )

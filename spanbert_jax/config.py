"""Configs: loading with overrides, validation of all problems at once, and JSON that later releases can read."""

import ast
import difflib
import importlib
import importlib.util
import inspect
import json
import traceback
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from spanbert_jax import knobs
from spanbert_jax.configs import base
from spanbert_jax.configs.tasks import base as tasks
from spanbert_jax.errors import InputError

VERSION = 2  # of config.json; a file without a version is of version 1, which release 0.1 wrote
RENAMED_KEYS = {"optimizer.updates_per_epoch": "optimizer.steps_per_epoch"}  # version 1 -> 2
RENAMED_VALUES: dict[tuple[str, Any], Any] = {("masking.replacement", "piece"): "token"}
# Left out attention dropout where a flash kernel was used, which depends on the hardware: now always.
SKIP_ATTENTION_DROPOUT = "model.skip_attention_dropout"


def known_knobs() -> dict[str, knobs.Knob]:
    """Returns every knob by its key, "section.name"."""
    return knobs.flat(base.KNOBS | tasks.KNOBS)


def sections_of(config: Mapping) -> knobs.Sections:
    """Returns the sections that a config must have: those of every config, and those of tasks that it has."""
    return base.KNOBS | {name: section for name, section in tasks.KNOBS.items() if name in config}


def load_config(spec: str, overrides: Iterable[str] = ()) -> ConfigDict:
    """Returns the locked config that a name or file describes, with overrides.

    Args:
      spec: "NAME:VARIANT" of a config that comes with the package ("spanbert:base"); "path/to/file.py:VARIANT" of a
        file that defines get_config(variant) -> ConfigDict; or the config.json of a run. After the variant,
        ",key=value" overrides a key.
      overrides: "a.b=value" each; the value is a Python literal or a bare word, a tuple may be written "x,y".

    Raises:
      InputError: there is no such file or variant, or keys are unknown or values of a wrong type, one per line.
    """
    source, _, variant = spec.partition(":")
    variant, *more = variant.split(",")
    config = _from_run(Path(source)) if source.endswith(".json") else _from_python(source, variant)
    problems = type_problems(config)
    if not problems:
        problems = [problem for override in [*more, *overrides] if (problem := _override(config, override))]
    if problems:
        raise InputError("\n".join(problems))
    return config.lock()


def _from_run(path: Path) -> ConfigDict:
    try:
        return from_json(path.read_text(encoding="utf-8")).unlock()
    except (OSError, ValueError) as error:
        raise InputError(f"config file {path}: cannot be read ({error})") from None


def _from_python(source: str, variant: str) -> ConfigDict:
    """Returns get_config(variant) of a file, or of a module of spanbert_jax.configs; without a variant, its default."""
    try:
        module = _module_of(source)
        if not hasattr(module, "get_config"):
            raise InputError(f"config file {source!r} must be Python (.py) and define get_config(variant)")
        parameters = inspect.signature(module.get_config).parameters
        variants = bool(parameters)
        is_optional = all(parameter.default is not parameter.empty for parameter in parameters.values())
        if variant and not variants:
            raise InputError(
                f"config file {source!r} has no variants, as get_config() takes none: leave out :{variant}"
            )
        config = module.get_config(variant) if variant or not is_optional else module.get_config()
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"config {source}: {error}") from error
    except Exception as error:  # whatever a file of the user's does wrong: a value of another type, an unknown name
        raise InputError(f"config file {source!r}{_line(error, source)}: {type(error).__name__}: {error}") from error
    if not isinstance(config, ConfigDict):
        raise InputError(f"config file {source!r}: get_config must return a ConfigDict, not {type(config).__name__}")
    return config


def _module_of(source: str) -> types.ModuleType:
    """Returns the module of a file, or of a name in spanbert_jax.configs.

    Raises:
      InputError: there is none.
    """
    embedded = source.isidentifier()
    if embedded and importlib.util.find_spec(f"spanbert_jax.configs.{source}") is None:
        raise InputError(f"config {source!r} does not exist: give a name such as spanbert:base, or a file")
    if not embedded and not Path(source).is_file():
        raise InputError(f"config file {source!r} does not exist")
    return importlib.import_module(f"spanbert_jax.configs.{source}") if embedded else _executed(source)


def _executed(source: str) -> types.ModuleType:
    """Returns the module of a Python file. Raises InputError for a file of another kind."""
    module_spec = importlib.util.spec_from_file_location("spanbert_config", source)
    if module_spec is None or module_spec.loader is None:
        raise InputError(f"config file {source!r} must be Python (.py) and define get_config(variant)")
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module


def _line(error: Exception, source: str) -> str:
    """Returns ", line N" of a file where an exception arose, or "" if it was not raised there."""
    path = Path(source).absolute()
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).absolute() == path]
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).absolute() == path:
        lines = [error.lineno]
    return f", line {lines[-1]}" if lines else ""


def type_problems(config: ConfigDict) -> list[str]:
    """Returns a line for every key of a config that no knob has, that is missing, or whose value has a wrong type."""
    known, values = known_knobs(), dict(flat(config))
    missing = [key for key in knobs.flat(sections_of(config)) if key not in values]
    problems = [unknown_key(key) for key in values if key not in known]
    problems += [f"config has no value for {key!r}: start from base.get_config()" for key in missing]
    wrong = [key for key in values if key in known and not known[key].accepts(values[key])]
    return problems + [f"config key {key!r} {known[key].problem(values[key])}" for key in wrong]


def unknown_key(key: str) -> str:
    """Returns what to say of a key that no knob has."""
    near = difflib.get_close_matches(key, known_knobs(), n=1)
    return f"config has no key {key!r}" + (f"; did you mean {near[0]!r}?" if near else "; see configs/base.py")


def _override(config: ConfigDict, override: str) -> str | None:
    """Applies one "a.b=value" in place, or returns what is wrong with it."""
    key, equals, text = override.partition("=")
    if not equals:
        return f"--config.{override}: give a value, as in --config.{key}=VALUE"
    knob = knobs.flat(sections_of(config)).get(key)
    if knob is None:
        return unknown_key(key)
    value = _parse(text, type(knob.default), knob.item)
    if value is None:
        return f"config key {key!r} needs a value like {knob.default!r} ({type(knob.default).__name__}), not {text!r}"
    config.update_from_flattened_dict({key: value})
    return None


def with_changes(config: ConfigDict, changes: Mapping[str, Any]) -> ConfigDict:
    """Returns a config with other values of some keys, "section.name" each, locked.

    Raises:
      InputError: keys are unknown, or values have a wrong type, one per line.
    """
    changed, known = config.copy_and_resolve_references().unlock(), known_knobs()
    problems = [unknown_key(key) for key in changes if key not in known]
    if not problems:
        changed.update_from_flattened_dict(changes)
        problems = type_problems(changed)
    if problems:
        raise InputError("\n".join(problems))
    return changed.lock()


def overridden(config: ConfigDict, overrides: Iterable[str]) -> ConfigDict:
    """Returns a config with overrides, "a.b=value" each, locked.

    Raises:
      InputError: keys are unknown, or a text is no value of the key's type, one per line.
    """
    changed = config.copy_and_resolve_references().unlock()
    if problems := [problem for override in overrides if (problem := _override(changed, override))]:
        raise InputError("\n".join(problems))
    return changed.lock()


def parsed(config: ConfigDict, key: str, text: str) -> Any:
    """Returns the value of a key that a text stands for, as in "--config.KEY=TEXT".

    Raises:
      InputError: there is no such key, or the text is no value of its type.
    """
    changed = config.copy_and_resolve_references()
    if problem := _override(changed, f"{key}={text}"):
        raise InputError(problem)
    return dict(flat(changed))[key]


def sweep_of(spec: str) -> list[dict[str, Any]] | None:
    """Returns the runs that sweep(add) of a config's file adds, {key: value} each; None if it has no such function.

    Args:
      spec: as of load_config; a function sweep(add, variant) gets the variant.

    Raises:
      InputError: the function raises an error, or adds nothing.
    """
    source, _, variant = spec.partition(":")
    if source.endswith(".json"):
        return None
    module = _module_of(source)
    if not hasattr(module, "sweep"):
        return None
    runs: list[dict[str, Any]] = []

    def add(changes: Mapping[str, Any] = types.MappingProxyType({}), /, **more: Any) -> None:
        runs.append(dict(changes) | more)

    try:
        takes_variant = len(inspect.signature(module.sweep).parameters) > 1
        module.sweep(add, variant.partition(",")[0]) if takes_variant else module.sweep(add)
    except Exception as error:  # whatever a file of the user's does wrong
        raise InputError(f"config file {source!r}{_line(error, source)}: sweep: {error}") from error
    if not runs:
        raise InputError(f"config file {source!r}: sweep(add) adds no run")
    return runs


def evaluation_config(config: ConfigDict) -> ConfigDict:
    """Returns the config by which held-out text is masked: with the changes of eval.masking.

    Raises:
      InputError: they cannot be made.
    """
    try:
        return overridden(config, [f"masking.{change}" for change in config.eval.masking])
    except InputError as error:
        raise InputError("\n".join(f"eval.masking: {problem}" for problem in str(error).splitlines())) from None


def _parse(text: str, kind: type, item: type) -> Any:
    """Returns the value of type `kind` (items of a tuple: `item`) that a text stands for, or None."""
    if kind is str:
        return text
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower())
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    if kind is tuple:
        parts = value if isinstance(value, (tuple, list)) else text.split(",") if text else []
        items = tuple(_parse(part if isinstance(part, str) else repr(part), item, item) for part in parts)
        return None if None in items else items
    if kind is float and type(value) is int:
        value = float(value)
    return value if type(value) is kind else None


def flat(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields ("a.b", value) of every leaf, in the order of the config."""
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def to_json(config: ConfigDict, changes: Sequence[dict] = ()) -> str:
    """Returns the config as JSON text, which from_json reads back to an equal one.

    Args:
      config: the config.
      changes: what was changed within the run, for the reader's information.
    """
    record = {"version": VERSION} | ({"changes": list(changes)} if changes else {})
    return json.dumps(record | config.to_dict(), indent=2, default=list)


def from_json(text: str) -> ConfigDict:
    """Returns the config that to_json of this or an earlier release wrote, locked.

    Lists become tuples again. Knobs that did not exist yet take their defaults, which change nothing.

    Raises:
      ValueError: the text is not a config, or is of a later release.
    """
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise ValueError("it is no JSON object")
    version = fields.pop("version", 1)
    fields.pop("changes", None)
    if not isinstance(version, int) or version > VERSION:
        raise ValueError(
            f"it is of version {version}, and this release of spanbert_jax reads up to {VERSION}: install a newer one"
        )
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in flat(ConfigDict(fields))}
    if version == 1:
        values = {RENAMED_KEYS.get(key, key): RENAMED_VALUES.get((key, value), value) for key, value in values.items()}
        if values.pop(SKIP_ATTENTION_DROPOUT, False):
            values["model.attention_dropout"] = 0.0
    known = known_knobs()
    if unknown := [key for key in values if key not in known]:
        raise ValueError(f"it has the unknown key {unknown[0]!r}: import the module that declares it first")
    config = ConfigDict(knobs.defaults(sections_of(fields)))
    config.update_from_flattened_dict(values)
    return config.lock()


def changed(before: ConfigDict, now: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Returns {key: (value before, value now)} of the knobs that differ, execution knobs left out."""
    old, new, known = dict(flat(before)), dict(flat(now)), known_knobs()
    keys = sorted(key for key in old.keys() | new.keys() if not known[key].execution)
    return {key: (old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}


def tokens_per_step(config: ConfigDict) -> int:
    """Returns the number of positions in one step, padding included."""
    return config.batch_size * config.seq_len


def knob_problems(config: ConfigDict, prefix: str = "") -> list[str]:
    """Returns a line for each key that starts with `prefix` and whose value its knob does not allow."""
    known = known_knobs()
    return [
        f"{key} {problem}"
        for key, value in flat(config)
        if key.startswith(prefix) and (problem := known[key].problem(value))
    ]


def config_problems(config: ConfigDict) -> list[str]:
    """Returns every problem of a config that can be found without data or devices, one line each.

    What depends on another module (registries, the devices of a mesh, the size of a vocabulary) is checked there.
    """
    c, problems = config, knob_problems(config)
    longest = c.model.max_positions

    def demand(holds: bool, problem: str):
        if not holds:
            problems.append(problem)

    demand(
        c.seq_len <= longest,
        f"seq_len {c.seq_len} is longer than the position table: give seq_len <= model.max_positions = {longest}",
    )
    demand(
        c.batch_size % max(c.accumulation, 1) == 0,
        f"batch_size {c.batch_size} must be a multiple of accumulation {c.accumulation}",
    )
    demand(
        c.model.width % max(c.model.heads, 1) == 0,
        f"model.width {c.model.width} must be a multiple of model.heads {c.model.heads}",
    )
    demand(
        c.optimizer.frozen_layers <= c.model.layers,
        f"optimizer.frozen_layers {c.optimizer.frozen_layers} is more than model.layers {c.model.layers}",
    )
    demand(
        c.optimizer.warmup_steps < c.total_steps,
        f"optimizer.warmup_steps {c.optimizer.warmup_steps} must be less than total_steps {c.total_steps}",
    )
    stable = c.total_steps - c.optimizer.warmup_steps
    demand(
        c.optimizer.decay_steps <= max(stable, 0),
        f"optimizer.decay_steps {c.optimizer.decay_steps} is more than the {stable} steps after the warm-up",
    )
    demand(
        c.optimizer.decay_steps > 0 or c.optimizer.schedule != "wsd",
        "optimizer.decay_steps: give the number of last steps in which the schedule wsd decays; constant never does",
    )
    return problems

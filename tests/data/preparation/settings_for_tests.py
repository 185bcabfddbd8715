"""Settings of a preparation for tests, and shorthands."""

import hashlib
from pathlib import Path

from spanbert_jax.data.preparation.prepare import prepare
from spanbert_jax.data.preparation.settings import Means, Settings

PLAIN = dict(
    documents="blank",
    field="text",
    split="train",
    data_dir="",
    vocab="tiny",
    lowercase="auto",
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
FLAGS = [
    f"--{key}={value}" for key, value in PLAIN.items() if key not in ("tags", "spacy_model")
]  # the same for scripts/prepare_data.py


def made(source, folder, workers=1, runner="", beam_options=(), watch=lambda steps, what, number: steps, **changes):
    """A store made of the files that `source` names."""
    return prepare(
        Settings(**PLAIN | {"input": str(source)} | changes), Path(folder), Means(workers, runner, beam_options), watch
    )


def content(folder) -> dict[str, str]:
    """Relative path -> sha256 of all files in a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }

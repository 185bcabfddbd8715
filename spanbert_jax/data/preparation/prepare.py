"""The story of a store, from its source on.

Whoever runs it, with any number of processes, on one machine or on Beam, killed and begun again or not: the store has the same bytes.
"""

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from spanbert_jax.data import vocabulary
from spanbert_jax.data.preparation import duplicates
from spanbert_jax.data.preparation.cleaning import make_cleaner
from spanbert_jax.data.preparation.job import Job, Task
from spanbert_jax.data.preparation.report import make_report, write_report
from spanbert_jax.data.preparation.settings import Means, Settings
from spanbert_jax.data.preparation.work_folder import finish, work_folder, writing
from spanbert_jax.data.preparation.workers import run
from spanbert_jax.data.shard import Shard
from spanbert_jax.data.sources import Unit, find_units
from spanbert_jax.data.sources.paths import is_remote
from spanbert_jax.data.store import FORMAT, SPLITS, Store, open_store, write_index
from spanbert_jax.data.tagging import Tagger
from spanbert_jax.data.tokenizer import Tokenizer, load_tokenizer
from spanbert_jax.errors import InputError

VOCABULARY_CHARACTERS = (
    1 << 28
)  # of text at most that a vocabulary is trained on: an even share of each unit, from its beginning

Watch = Callable[
    [Iterable, str, int], Iterable
]  # takes steps, what they do, and their number; gives the steps back: to show progress


def prepare(settings: Settings, output, means: Means, watch: Watch) -> Store:
    """Makes a store at `output`, a path, of what `settings` say, or goes on with what a killed run has left beside it.

    Raises:
      InputError: settings, text, vocabulary or folder must be mended, or the disk is full. There is no store then, but what is finished of
        it is kept beside `output` for the same call again.
    """
    settings.check()
    if is_remote(str(output)):
        raise InputError(
            f"{output}: a store is made in a folder that all workers can rename files in; give one, and copy the store there"
        )
    make_cleaner(settings)
    units = find_units(settings.input, settings.field, settings.split, settings.data_dir, settings.documents)
    tokenizer = None if settings.train_vocab else load_tokenizer(settings.vocab, settings.lowercase)
    tagger = make_tagger(settings, tokenizer)
    with work_folder(Path(output), make_plan(settings, units, tokenizer, tagger)) as work:
        if work:
            job = Job(settings, str(work.path), tokenizer, tagger)
            tasks = [Task(number, unit, 0) for number, unit in enumerate(units)]
            if settings.dedup != "none":
                tasks = find_duplicates(job, tasks, means, watch)
            if settings.train_vocab:
                job = dataclasses.replace(job, tokenizer=train_tokenizer(job, tasks, watch))
            do(job, "make", tasks, means, watch, "tokenising")
            merge(job, tasks)
            finish(work, Path(output))
    return open_store(output)


def do(job: Job, step: str, tasks: list[Task], means: Means, watch: Watch, what: str) -> None:
    """One step for all units. On leaving, also by Ctrl-C, no worker is left."""
    with contextlib.closing(run(job, step, tasks, means)) as steps:
        for _ in watch(steps, what, len(tasks)):
            pass


def make_tagger(settings: Settings, tokenizer: Tokenizer | None) -> Tagger | None:
    """The tagger of the kinds that are wanted, None if none are. Raises InputError as Tagger does."""
    if not settings.tags:
        return None
    lowercase = tokenizer.lowercase if tokenizer else settings.lowercase == "yes"
    return Tagger(settings.tags, settings.spacy_model, settings.ngrams, lowercase)


def make_plan(settings: Settings, units: list[Unit], tokenizer: Tokenizer | None, tagger: Tagger | None) -> dict:
    """All that decides the bytes of a store, in JSON's types."""
    return {
        "format": FORMAT,
        "settings": dataclasses.asdict(settings) | {"tags": list(settings.tags)},
        "vocabulary": tokenizer.fingerprint if tokenizer else None,
        "tagger": tagger.describe() if tagger else None,
        "units": [[unit.name, unit.fingerprint] for unit in units],
    }


def find_duplicates(job: Job, tasks: list[Task], means: Means, watch: Watch) -> list[Task]:
    """Signs all documents and writes which are to be dropped. Returns the tasks with the documents before them."""
    do(job, "sign", tasks, means, watch, "looking for duplicates")
    with writing(job.work.path):
        counts = [job.signed(task.number).stat().st_size // duplicates.DIGEST_BYTES for task in tasks]
        if not job.dropped.exists():
            with job.work.new_files() as folder:
                digests = joined(folder / "digests", [job.signed(task.number) for task in tasks], np.dtype("<u8"), 2)
                signatures = None
                if job.settings.dedup == "near":
                    files = [job.signed(task.number).with_suffix(".signatures") for task in tasks]
                    signatures = joined(folder / "signatures", files, np.dtype("<u4"), duplicates.HASHES)
                job.work.write(job.dropped, duplicates.mark(digests, signatures, job.settings.near_threshold).tobytes())
    before = np.cumsum([0, *counts[:-1]]).tolist()
    return [dataclasses.replace(task, documents_before=number) for task, number in zip(tasks, before, strict=True)]


def joined(path: Path, files: list[Path], dtype: np.dtype, columns: int) -> np.ndarray:
    """The rows of numbers in all files, one after another, on disk at `path`: [rows, columns]."""
    with open(path, "wb") as whole:
        for file in files:
            with open(file, "rb") as part:
                shutil.copyfileobj(part, whole, 1 << 22)
    if not path.stat().st_size:
        return np.zeros((0, columns), dtype)
    return np.memmap(path, dtype, "r").reshape(-1, columns)


def train_tokenizer(job: Job, tasks: list[Task], watch: Watch) -> Tokenizer:
    """The tokenizer of the vocabulary that is trained on the training text, or was by a run before this one."""
    path = job.work.path / "vocab.txt"
    lowercase = job.settings.lowercase == "yes"
    if not path.exists():
        tokens = vocabulary.train(vocabulary_text(job, tasks, watch), job.settings.train_vocab, lowercase)
        with writing(path):
            job.work.write(path, "".join(token + "\n" for token in tokens).encode("utf-8"))
    return load_tokenizer(str(path), "yes" if lowercase else "no")


def vocabulary_text(job: Job, tasks: list[Task], watch: Watch) -> Iterator[str]:
    """Sentences of the training split: of each unit the first documents, until they have an even share of VOCABULARY_CHARACTERS."""
    share = VOCABULARY_CHARACTERS // len(tasks)
    for task in watch(tasks, "reading for the vocabulary", len(tasks)):
        room = share
        for split, document in job.texts(task, {"short": 0, "exact": 0, "near": 0}):
            if split == "train":
                yield from document
                room -= sum(map(len, document))
            if room <= 0:
                break


def merge(job: Job, tasks: list[Task]) -> None:
    """Makes a store of all shards: index, counts, tokenizer and report.

    Raises:
      InputError: a split that should have text got none.
    """
    records = [job.record(task.number) for task in tasks]
    check_splits(job.settings, tasks, records)
    with writing(job.work.path):
        write_index(job.work.store, job.tokenizer, job.tagger, {split: shards(job, split, records) for split in SPLITS})
        write_report(job.work.store, make_report(job, records, open_store(job.work.store)))


def shards(job: Job, split: str, records: list[dict]) -> Iterator[Shard]:
    """The shards of a split, in order."""
    for number, record in enumerate(records):
        if split in record["splits"]:
            yield job.shard(number, split, record)


def check_splits(settings: Settings, tasks: list[Task], records: list[dict]) -> None:
    """Raises InputError when a split that should have documents got none."""
    read = sum(record["documents"] for record in records)
    dropped = sum(sum(record["dropped"].values()) for record in records)
    for split in SPLITS:
        own = any(task.unit.held_out is not None for task in tasks)
        wanted = split == "train" or (settings.valid_fraction > 0 and not own)
        if wanted and not any(split in record["splits"] for record in records):
            change = (
                "raise valid_fraction, or set it to 0 to hold none out" if split == "valid" else "lower valid_fraction"
            )
            if dropped == read:
                change = "look at min_words and dedup, and at the text"
            left_out = f", of which {dropped} were left out," if dropped else ""
            raise InputError(
                f"corpus: none of the {read} documents of {settings.input}{left_out} fell into the {split} split"
                f" (valid_fraction={settings.valid_fraction}); {change}"
            )

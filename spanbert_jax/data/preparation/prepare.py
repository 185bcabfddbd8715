"""Preparation of a store, from its source to its report, in order.

The bytes of the store do not depend on the execution: any number of processes, one machine or Beam, uninterrupted or
killed and continued.
"""

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from spanbert_jax.data import vocabulary
from spanbert_jax.data.preparation import duplicates
from spanbert_jax.data.preparation.cleaning import make_cleaner
from spanbert_jax.data.preparation.job import CleaningJob, Task, TokenisingJob, no_documents_dropped
from spanbert_jax.data.preparation.report import make_report, write_report
from spanbert_jax.data.preparation.settings import ExecutionOptions, Settings
from spanbert_jax.data.preparation.work_folder import finish, work_folder, writing
from spanbert_jax.data.preparation.workers import run_tasks
from spanbert_jax.data.shard import Shard
from spanbert_jax.data.sources import Unit, find_units
from spanbert_jax.data.sources.paths import is_remote
from spanbert_jax.data.sources.problems import HARMLESS, Problem, Skipped
from spanbert_jax.data.store import FORMAT, SPLITS, Store, open_store, write_index
from spanbert_jax.data.tagging import Tagger
from spanbert_jax.data.tokenizer import Tokenizer, load_tokenizer
from spanbert_jax.data.tokenizer_files import WordRules, read_tokens
from spanbert_jax.errors import InputError

# Problems before the first document at which a source is refused: some seconds of reading.
MAX_PROBLEMS = 100_000

# A vocabulary is trained on at most so many characters of text: an even share of each unit, from its beginning.
VOCABULARY_CHARACTERS = 1 << 28

# Shows progress: takes an iterable, a description and the number of items, and returns an iterable of the same items.
Watch = Callable[[Iterable, str, int], Iterable]


def prepare(settings: Settings, output: str | Path, execution: ExecutionOptions, watch: Watch) -> Store:
    """Makes the store that `settings` describe, or continues a preparation that was killed.

    Args:
      settings: what decides the bytes of the store.
      output: the folder of the store, which must not exist yet or be empty.
      execution: how the work is executed.
      watch: shows progress.

    Raises:
      InputError: settings, text, vocabulary or folder must be fixed, or the disk is full. No store is made, but
        finished work is kept beside `output` for the same call again.
    """
    settings.check()
    if is_remote(str(output)):
        advice = "give a local or mounted folder, and copy the store there"
        raise InputError(f"{output}: workers cannot rename files in a remote folder; {advice}")
    make_cleaner(settings)  # raises what a worker would raise later
    units = source_units(settings)
    check_beginning(settings.input, units, execution.strict)
    tokenizer = (
        None if settings.train_vocab else load_tokenizer(settings.vocab, settings.lowercase, settings.strip_accents)
    )
    tagger = make_tagger(settings, tokenizer)
    with work_folder(Path(output), make_plan(settings, units, tokenizer, tagger)) as work:
        if work:
            tasks = [Task(number, unit, 0) for number, unit in enumerate(units)]
            cleaning = CleaningJob(settings, str(work.path), execution.strict)
            if settings.dedup != "none":
                tasks = find_duplicates(cleaning, tasks, execution, watch)
            if tokenizer is None:
                tokenizer = train_tokenizer(cleaning, tasks, watch)
            job = TokenisingJob(settings, str(work.path), execution.strict, tokenizer, tagger)
            run_all(job, "tokenise", tasks, execution, watch, "tokenising")
            merge(job, tasks)
            finish(work, Path(output))
    return open_store(output)


def run_all(
    job: CleaningJob, method: str, tasks: list[Task], execution: ExecutionOptions, watch: Watch, description: str
) -> None:
    """Calls a method of the job with each task. On leaving, also by Ctrl-C, no worker is left."""
    with contextlib.closing(run_tasks(job, method, tasks, execution)) as progress:
        for _ in watch(progress, description, len(tasks)):
            pass


def source_units(settings: Settings) -> Sequence[Unit]:
    """Returns the units of the source. Raises InputError as `find_units` does."""
    source, field, split, data_dir = settings.input, settings.field, settings.split, settings.data_dir
    return find_units(source, field, split, data_dir, settings.documents, settings.format)


def check_beginning(source: str, units: Sequence[Unit], strict: bool) -> None:
    """Reads the source up to its first document: a wrong field, format or file shows before the long work.

    Raises:
      InputError: there is no document, or none before MAX_PROBLEMS problems; or, if `strict`, as `refuse` does.
    """
    skipped = Skipped(strict)

    def none_found() -> InputError:
        if not skipped.counts:
            return InputError(f"corpus: {source} holds no text")
        kind = max(skipped.counts, key=lambda kind: (kind != HARMLESS, skipped.counts[kind]))
        problem, count = skipped.first[kind][0], sum(skipped.counts.values())
        found = f"but {count:,} problems, such as {problem.message()}" if count > 1 else f"({problem.message()})"
        return InputError(f"corpus: {source} holds no text {found}; {problem.advice}", problem.setting)

    def report(problem: Problem) -> None:
        skipped(problem)
        if sum(skipped.counts.values()) - skipped.counts.get(HARMLESS, 0) >= MAX_PROBLEMS:
            raise none_found()

    if next((True for unit in units for _ in unit.documents(report)), False):
        return
    raise none_found()


def make_tagger(settings: Settings, tokenizer: Tokenizer | None) -> Tagger | None:
    """Returns the tagger of the kinds in `settings`, None if there are none. Raises InputError as `Tagger` does."""
    if not settings.tags:
        return None
    rules = tokenizer.rules if tokenizer else rules_to_train(settings)
    return Tagger(settings.tags, settings.spacy_model, settings.ngrams, rules)


def make_plan(settings: Settings, units: Sequence[Unit], tokenizer: Tokenizer | None, tagger: Tagger | None) -> dict:
    """Returns everything that decides the bytes of a store, in JSON types."""
    return {
        "format": FORMAT,
        "settings": settings.to_json(),
        "vocabulary": tokenizer.fingerprint if tokenizer else None,
        "tagger": tagger.describe() if tagger else None,
        "units": [[unit.name, unit.fingerprint] for unit in units],
    }


# ----------------------------------------------------------------------------------------------------------------------
# Duplicates.


def find_duplicates(job: CleaningJob, tasks: list[Task], execution: ExecutionOptions, watch: Watch) -> list[Task]:
    """Signs all documents and writes the status of each. Returns the tasks with their `documents_before`."""
    run_all(job, "sign", tasks, execution, watch, "looking for duplicates")
    digest_files = [job.digests_file(task.number) for task in tasks]
    with writing(job.work.path):
        if not job.statuses_file.exists():
            with job.work.new_files() as folder:
                digests = concatenated(folder / "digests", digest_files, np.dtype("<u8"), 2)
                signatures = None
                if job.settings.dedup == "near":
                    signature_files = [file.with_suffix(".signatures") for file in digest_files]
                    hashes = duplicates.HASHES
                    signatures = concatenated(folder / "signatures", signature_files, np.dtype("<u4"), hashes)
                statuses = duplicates.mark_duplicates(digests, signatures, job.settings.near_threshold)
                job.work.write(job.statuses_file, statuses.tobytes())
        counts = [file.stat().st_size // duplicates.DIGEST_BYTES for file in digest_files]
    before = np.cumsum([0, *counts[:-1]]).tolist()
    return [dataclasses.replace(task, documents_before=number) for task, number in zip(tasks, before, strict=True)]


def concatenated(path: Path, files: list[Path], dtype: np.dtype, columns: int) -> np.ndarray:
    """Writes all files to `path`, one after another. Returns their numbers, memory-mapped: [rows, columns]."""
    with open(path, "wb") as target:
        for file in files:
            with open(file, "rb") as source:
                shutil.copyfileobj(source, target, 1 << 22)
    if not path.stat().st_size:
        return np.zeros((0, columns), dtype)
    return np.memmap(path, dtype, "r").reshape(-1, columns)


# ----------------------------------------------------------------------------------------------------------------------
# Vocabulary.


def train_tokenizer(job: CleaningJob, tasks: list[Task], watch: Watch) -> Tokenizer:
    """Returns the tokenizer of a vocabulary trained on the training text, now or before the preparation was killed."""
    path = job.work.path / "vocab.txt"
    rules = rules_to_train(job.settings)
    if not path.exists():
        tokens = vocabulary.train(vocabulary_text(job, tasks, watch), job.settings.train_vocab, rules)
        with writing(path):
            job.work.write(path, "".join(token + "\n" for token in tokens).encode("utf-8"))
    return Tokenizer(read_tokens(str(path)), rules, "trained on the text")


def rules_to_train(settings: Settings) -> WordRules:
    """Returns the rules for words of a vocabulary that is trained: cased, unless the settings say otherwise."""
    strip_accents = {"auto": None, "yes": True, "no": False}[settings.strip_accents]
    return WordRules(settings.lowercase == "yes", strip_accents)


def vocabulary_text(job: CleaningJob, tasks: list[Task], watch: Watch) -> Iterator[str]:
    """Yields sentences of the training split: each unit's first documents, an even share of VOCABULARY_CHARACTERS."""
    share = VOCABULARY_CHARACTERS // len(tasks)
    for task in watch(tasks, "reading for the vocabulary", len(tasks)):
        remaining = share
        for split, document in job.texts(task, no_documents_dropped(), Skipped(job.strict)):
            if split == "train":
                yield from document
                remaining -= sum(map(len, document))
            if remaining <= 0:
                break


# ----------------------------------------------------------------------------------------------------------------------
# The store.


def merge(job: TokenisingJob, tasks: list[Task]) -> None:
    """Makes a store of all shards: index, counts, tokenizer and report.

    Raises:
      InputError: a split that should have text has none.
    """
    summaries = []
    for task in tasks:
        summary = job.summary(task.number)
        assert summary is not None, f"unit {task.number} is not finished"
        summaries.append(summary)
    check_splits(job.settings, tasks, summaries)
    with writing(job.work.path):
        shards = {split: shards_of(job, split, summaries) for split in SPLITS}
        write_index(job.work.store, job.tokenizer, job.tagger, shards)
        source_bytes = sum(task.unit.size for task in tasks)
        write_report(job.work.store, make_report(job, source_bytes, summaries, open_store(job.work.store)))


def shards_of(job: TokenisingJob, split: str, summaries: list[dict]) -> Iterator[Shard]:
    """Yields the shards of a split, in order."""
    for number, summary in enumerate(summaries):
        if split in summary["splits"]:
            yield job.shard(number, split, summary)


def check_splits(settings: Settings, tasks: list[Task], summaries: list[dict]) -> None:
    """Raises InputError if a split that should have documents has none."""
    num_read = sum(summary["documents"] for summary in summaries)
    num_dropped = sum(sum(summary["dropped"].values()) for summary in summaries)
    source_has_splits = any(task.unit.held_out is not None for task in tasks)
    for split in SPLITS:
        required = split == "train" or (settings.valid_fraction > 0 and not source_has_splits)
        if not required or any(split in summary["splits"] for summary in summaries):
            continue
        setting = "valid_fraction"
        if num_dropped == num_read:
            used = [name for name, off in (("min_words", 0), ("dedup", "none")) if getattr(settings, name) != off]
            advice, setting = f"check {' and '.join([*used, 'the text'])}", ""
        elif split == "valid":
            advice = f"hold out a larger share than {settings.valid_fraction}, or 0 for none"
        else:
            advice = f"hold out a smaller share than {settings.valid_fraction}"
        dropped = f" ({num_dropped} were dropped)" if num_dropped else ""
        problem = f"none of the {num_read} documents of {settings.input}{dropped} is in the split {split!r}"
        raise InputError(f"corpus: {problem}; {advice}", setting)

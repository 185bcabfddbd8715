"""The work on one unit of the source: pure functions that every worker runs, on this machine or another.

    document -> Unicode normalisation -> sentences -> minimum length -> deduplication -> split -> tokens and tags

The files written for a unit depend only on the unit, the settings and the list of dropped documents. Each appears
complete or not at all, the file that marks the unit as finished last; finished work is not repeated.
"""

import dataclasses
import functools
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from spanbert_jax.data.preparation import duplicates
from spanbert_jax.data.preparation.cleaning import Cleaner, cleaned_documents, is_held_out, make_cleaner
from spanbert_jax.data.preparation.settings import Settings
from spanbert_jax.data.preparation.work_folder import WorkFolder, writing
from spanbert_jax.data.shard import Shard, ShardWriter, shard_files, token_dtype
from spanbert_jax.data.sources import Document, Unit
from spanbert_jax.data.sources.problems import HARMLESS, Skipped
from spanbert_jax.data.store import SPLITS
from spanbert_jax.data.tagging import Tagger
from spanbert_jax.data.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Task:
    """One unit, its index in the source, and the number of long enough documents before it (known after signing)."""

    number: int
    unit: Unit
    documents_before: int


@dataclasses.dataclass(frozen=True)
class CleaningJob:
    """Reads, cleans and deduplicates documents. Picklable: a worker needs nothing else."""

    settings: Settings
    folder: str  # the work folder
    strict: bool  # whether a problem of the source is refused, not skipped

    @functools.cached_property
    def work(self) -> WorkFolder:
        """The work folder."""
        return WorkFolder(Path(self.folder))

    @functools.cached_property
    def clean(self) -> Cleaner:
        """The cleaner, made by each worker because it may not be picklable."""
        return make_cleaner(self.settings)

    def error_file(self, number: int) -> Path:
        """Returns the file in which a Beam worker reports an error in a unit."""
        return self.work.new / f"{number:05d}.error"

    def digests_file(self, number: int) -> Path:
        """Returns the file of a unit's digests; it exists once the unit is signed. The signatures are beside it."""
        return self.work.duplicates / f"{number:05d}.digests"

    def sign(self, task: Task) -> None:
        """Writes the digests and signatures of a unit's documents."""
        target = self.digests_file(task.number)
        if target.exists():
            return
        near = self.settings.dedup == "near"
        with writing(self.work.path), self.work.new_files() as folder:
            skipped = Skipped(self.strict)  # counted when the unit is tokenised
            cleaned = cleaned_documents(task.unit, self.clean, self.settings.min_words, skipped)
            documents = (document for document in cleaned if document)
            with open(folder / "digests", "wb") as digests, open(folder / "signatures", "wb") as signatures:
                for some_digests, some_signatures in duplicates.sign(documents, near):
                    digests.write(some_digests)
                    signatures.write(some_signatures)
            os.replace(folder / "signatures", target.with_suffix(".signatures"))
            os.replace(folder / "digests", target)

    @property
    def statuses_file(self) -> Path:
        """The file with the status of each document of all units (see duplicates.py), one byte per document."""
        return self.work.duplicates / "dropped"

    def statuses(self, task: Task) -> Iterator[int]:
        """Yields the status of each document of a unit that is long enough."""
        if self.settings.dedup == "none":
            yield from itertools.repeat(duplicates.KEPT)
        with open(self.statuses_file, "rb") as file:
            file.seek(task.documents_before)
            while data := file.read(1 << 16):
                yield from data

    def texts(self, task: Task, dropped: dict[str, int], skipped: Skipped) -> Iterator[tuple[str, Document]]:
        """Yields (split, document) for each document of a unit to store.

        Counts the other documents in `dropped`, by reason, and what is no document in `skipped`.
        """
        statuses = self.statuses(task)
        for document in cleaned_documents(task.unit, self.clean, self.settings.min_words, skipped):
            if document is None:
                dropped["short"] += 1
                continue
            status = next(statuses)
            if status != duplicates.KEPT:
                dropped["exact" if status == duplicates.EXACT else "near"] += 1
                continue
            held_out = task.unit.held_out
            if held_out is None:
                held_out = is_held_out(document, self.settings.valid_fraction)
            yield SPLITS[held_out], document


def no_documents_dropped() -> dict[str, int]:
    """Returns the zero counts that `CleaningJob.texts` adds to."""
    return {"short": 0, "exact": 0, "near": 0}


@dataclasses.dataclass(frozen=True)
class TokenisingJob(CleaningJob):
    """A CleaningJob that also writes the documents' tokens and tags into shards."""

    tokenizer: Tokenizer
    tagger: Tagger | None

    def summary_file(self, number: int) -> Path:
        """Returns the file whose existence marks a unit as finished."""
        return self.work.units / f"{number:05d}.json"

    def summary(self, number: int) -> dict | None:
        """Returns what was found in a unit: documents read and dropped, what was skipped, and each split's shard.

        It is None if the unit is not finished, if files of its shards are missing or incomplete, or if something was
        skipped that must now be refused.
        """
        try:
            summary = json.loads(self.summary_file(number).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if self.strict and summary["skipped"].keys() - {HARMLESS}:
            return None
        token_bytes = token_dtype(self.tokenizer.vocab_size).itemsize
        kinds = self.tagger.kinds if self.tagger else ()
        for shard in summary["splits"].values():
            for name, size in shard_files(shard["entry"], token_bytes, kinds).items():
                path = self.work.store / name
                if not path.is_file() or path.stat().st_size != size:
                    return None
        return summary

    def counts_file(self, number: int, split: str) -> Path:
        """Returns the file with a shard's count of each token."""
        return self.work.units / f"{number:05d}-{split}.npy"

    def shard(self, number: int, split: str, summary: dict) -> Shard:
        """Returns a finished shard; `summary` is the unit's."""
        shard = summary["splits"][split]
        counts = np.load(self.counts_file(number, split))
        return Shard(shard["entry"], counts, np.array(shard["sentence_lengths"]), np.array(shard["document_lengths"]))

    def tokenise(self, task: Task) -> None:
        """Writes the shards of a unit, one per split with text in it, and its summary."""
        if self.summary(task.number):
            return
        dropped, skipped, num_added = no_documents_dropped(), Skipped(self.strict), 0
        with writing(self.work.path), self.work.new_files() as folder:
            writers = {
                split: ShardWriter(folder, f"{split}-{task.number:05d}", self.tokenizer, self.tagger)
                for split in SPLITS
            }
            try:
                for split, document in self.texts(task, dropped, skipped):
                    writers[split].add(document)
                    num_added += 1
                shards = {split: shard for split, writer in writers.items() if (shard := writer.close())}
            finally:
                for writer in writers.values():
                    writer.abandon()
            for file in sorted(folder.iterdir()):
                os.replace(file, self.work.store / file.name)
            for split, shard in shards.items():
                np.save(folder / "counts.npy", shard.counts)
                os.replace(folder / "counts.npy", self.counts_file(task.number, split))
            num_stored = sum(shard.entry["num_documents"] for shard in shards.values())
            summary = {
                "documents": num_added + sum(dropped.values()),
                "dropped": dropped | {"empty": num_added - num_stored},
                "skipped": skipped.to_json(),
                "splits": {split: describe_shard(shard) for split, shard in shards.items()},
            }
            self.work.write(self.summary_file(task.number), json.dumps(summary).encode("utf-8"))


def describe_shard(shard: Shard) -> dict:
    """Returns a shard's entry and histograms, without its counts, in JSON types."""
    return {
        "entry": shard.entry,
        "sentence_lengths": shard.sentence_lengths.tolist(),
        "document_lengths": shard.document_lengths.tolist(),
    }

"""What is done with one unit of the source: the pure function that every worker runs, here or on another machine.

    document -> Unicode normalisation -> sentences -> minimum length -> unless dropped as a duplicate -> held out or not -> tokens and tags

The files of a unit depend on the unit, the settings and the list of dropped documents alone. They appear whole, those that say that it is
finished last; what is finished is not done again.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from spanbert_jax.data.preparation import duplicates
from spanbert_jax.data.preparation.cleaning import cleaned_documents, is_held_out, make_cleaner
from spanbert_jax.data.preparation.settings import Settings
from spanbert_jax.data.preparation.work_folder import WorkFolder, writing
from spanbert_jax.data.shard import Shard, ShardWriter, shard_files, token_dtype
from spanbert_jax.data.sources import Document, Unit
from spanbert_jax.data.store import SPLITS
from spanbert_jax.data.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Task:
    """One unit: its place in the source, and how many documents that are long enough stand before it (known once all are signed)."""

    number: int
    unit: Unit
    documents_before: int


@dataclasses.dataclass(frozen=True)
class Job:
    """What workers must know. Picklable. `tokenizer` and `tagger` may be None for `sign`."""

    settings: Settings
    folder: str  # the work folder
    tokenizer: Tokenizer | None
    tagger: object | None  # tagging.Tagger

    @functools.cached_property
    def work(self) -> WorkFolder:
        """The work folder."""
        return WorkFolder(Path(self.folder))

    @functools.cached_property
    def clean(self) -> Callable[[Document], Document]:
        """The cleaner, made where it is used: it may hold what cannot be pickled."""
        return make_cleaner(self.settings)

    # -------------------------------------------------------------------------------------------------------------------------------------
    # Duplicates.

    def signed(self, number: int) -> Path:
        """The file of digests of a unit: it is signed when that exists. The signatures are beside it."""
        return self.work.duplicates / f"{number:05d}.digests"

    def sign(self, task: Task) -> None:
        """Write the digests and signatures of a unit's documents."""
        target = self.signed(task.number)
        if target.exists():
            return
        near = self.settings.dedup == "near"
        with writing(self.work.path), self.work.new_files() as folder:
            documents = (
                document for document in cleaned_documents(task.unit, self.clean, self.settings.min_words) if document
            )
            with open(folder / "digests", "wb") as digests, open(folder / "signatures", "wb") as signatures:
                for one, other in duplicates.sign(documents, near):
                    digests.write(one)
                    signatures.write(other)
            os.replace(folder / "signatures", target.with_suffix(".signatures"))
            os.replace(folder / "digests", target)

    @property
    def dropped(self) -> Path:
        """The file that says what becomes of each document, a byte each, of all units."""
        return self.work.duplicates / "dropped"

    def fates(self, task: Task) -> Iterator[int]:
        """What becomes of each document of a unit that is long enough."""
        if self.settings.dedup == "none":
            while True:
                yield duplicates.KEPT
        with open(self.dropped, "rb") as file:
            file.seek(task.documents_before)
            while data := file.read(1 << 16):
                yield from data

    # -------------------------------------------------------------------------------------------------------------------------------------
    # Text.

    def texts(self, task: Task, dropped: dict[str, int]) -> Iterator[tuple[str, Document]]:
        """(split, document) of what goes into the store, in order; what does not is counted in `dropped`, by reason."""
        fates = self.fates(task)
        for document in cleaned_documents(task.unit, self.clean, self.settings.min_words):
            fate = duplicates.KEPT if document is None else next(fates)
            if document is None:
                dropped["short"] += 1
            elif fate != duplicates.KEPT:
                dropped["exact" if fate == duplicates.EXACT else "near"] += 1
            else:
                held_out = task.unit.held_out
                if held_out is None:
                    held_out = is_held_out(document, self.settings.valid_fraction)
                yield SPLITS[held_out], document

    # -------------------------------------------------------------------------------------------------------------------------------------
    # Shards.

    def record_file(self, number: int) -> Path:
        """The file that says that a unit is finished."""
        return self.work.units / f"{number:05d}.json"

    def record(self, number: int) -> dict | None:
        """What was found in a unit: documents read, dropped, and of each split with text the shard. None: it is not finished."""
        try:
            record = json.loads(self.record_file(number).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        width = token_dtype(self.tokenizer.vocab_size).itemsize
        kinds = self.tagger.kinds if self.tagger else ()
        for shard in record["splits"].values():
            for name, size in shard_files(shard["entry"], width, kinds).items():
                path = self.work.store / name
                if not path.is_file() or path.stat().st_size != size:
                    return None
        return record

    def mistake_file(self, number: int) -> Path:
        """Where a worker without a better way says what is wrong with a unit."""
        return self.work.new / f"{number:05d}.mistake"

    def shard(self, number: int, split: str, record: dict) -> Shard:
        """A finished shard."""
        kept = record["splits"][split]
        return Shard(
            kept["entry"],
            np.load(self.work.units / f"{number:05d}-{split}.npy"),
            np.array(kept["sentence_lengths"]),
            np.array(kept["document_lengths"]),
        )

    def make(self, task: Task) -> None:
        """Write the shards of a unit, one for each split that has text in it, and its record."""
        if self.record(task.number):
            return
        dropped = {"short": 0, "exact": 0, "near": 0}
        read = 0
        with writing(self.work.path), self.work.new_files() as folder:
            writers = {
                split: ShardWriter(folder, f"{split}-{task.number:05d}", self.tokenizer, self.tagger)
                for split in SPLITS
            }
            try:
                for split, document in self.texts(task, dropped):
                    writers[split].add(document)
                    read += 1
                shards = {split: shard for split, writer in writers.items() if (shard := writer.close())}
            finally:
                for writer in writers.values():
                    writer.abandon()
            for file in sorted(folder.iterdir()):
                os.replace(file, self.work.store / file.name)
            splits = {}
            for split, shard in shards.items():
                counts = f"{task.number:05d}-{split}.npy"
                np.save(folder / counts, shard.counts)
                os.replace(folder / counts, self.work.units / counts)
                splits[split] = {
                    "entry": shard.entry,
                    "sentence_lengths": shard.sentence_lengths.tolist(),
                    "document_lengths": shard.document_lengths.tolist(),
                }
            kept = sum(shard.entry["num_documents"] for shard in shards.values())
            record = {
                "documents": read + sum(dropped.values()),
                "dropped": dropped | {"empty": read - kept},
                "splits": splits,
            }
            self.work.write(self.record_file(task.number), json.dumps(record).encode("utf-8"))

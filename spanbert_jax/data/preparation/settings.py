"""Settings, which together with the source decide every byte of a store, and execution options, which decide none."""

import dataclasses
import os

from spanbert_jax.data.sources.formats import format_names
from spanbert_jax.data.tokenizer import CHOICES
from spanbert_jax.errors import InputError

DOCUMENTS = ("blank", "line", "file")
UNICODE = ("none", "NFC", "NFKC")
DEDUP = ("none", "exact", "near")
PARALLEL_FROM_BYTES = 8 << 20  # a smaller source is read sooner by one process than by several that must be started


def _described(help: str):
    return dataclasses.field(metadata={"help": help})


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that decides the bytes of a store, besides the content of its source.

    Each field is a flag of scripts/prepare_data.py; the `help` in its metadata is the flag's description.
    """

    input: str = _described(
        "'embedded', 'tfds:name', or paths or globs of files (text, .jsonl, .json or .parquet, also .gz, .xz, ...; "
        "also gs://), separated by commas"
    )
    format: str = _described(
        "format of the files: text; jsonl, a record per line; json, an array of records; parquet; wiki, output of "
        "WikiExtractor; auto: by their suffixes and first bytes"
    )
    documents: str = _described(
        "what a document of plain text is: the lines up to a 'blank' line, each a sentence or paragraph; each 'line'; "
        "or each 'file', its wrapped paragraphs separated by blank lines"
    )
    field: str = _described("field, column or feature with the text, of JSON Lines, Parquet and TFDS")
    split: str = _described("TFDS split to read, as in 'train' or 'train[:10%%]'")
    data_dir: str = _described("folder in which the TFDS data set was prepared; '': TFDS's default")
    vocab: str = _described("cased, uncased or tiny (embedded), or a path of a vocab.txt or tokenizer.json")
    lowercase: str = _described("auto, yes or no; auto: as the vocabulary was made (see data.lowercase)")
    strip_accents: str = _described(
        "remove accents (in many scripts, vowel signs): auto, yes or no; auto: as lowercase"
    )
    train_vocab: int = _described(
        "size of a WordPiece vocabulary to train on the cleaned training text and use instead of --vocab; 0: none"
    )
    valid_fraction: float = _described("share of the documents held out, selected by a hash of their text")
    sentences: str = _described(
        "language (en, de, ...) whose rules divide lines into sentences; none: each line is taken as one sentence"
    )
    unicode: str = _described("Unicode normalisation of the text: none, NFC or NFKC")
    min_words: int = _described(
        "drop documents with fewer words (in scripts without spaces between words, each character counts)"
    )
    dedup: str = _described("drop exact duplicates of earlier documents (exact), also near-duplicates (near), or none")
    near_threshold: float = _described(
        "for --dedup=near: minimum Jaccard similarity of two documents' sets of 13-character shingles"
    )
    tags: tuple[str, ...] = _described("tags to store for masking, separated by commas: entities, phrases, ngrams")
    ngrams: str = _described("file with one n-gram per line; implies the tag 'ngrams'")
    spacy_model: str = _described("installed spaCy pipeline for the tags 'entities' and 'phrases'")
    seq_len: int = _described("tokens per row, to report how full the rows will be")

    def to_json(self) -> dict:
        """Returns the settings in JSON types."""
        return dataclasses.asdict(self) | {"tags": list(self.tags)}

    def check(self) -> None:
        """Raises InputError for invalid values; all of them are named."""
        choices = {"format": format_names(), "documents": DOCUMENTS, "unicode": UNICODE, "dedup": DEDUP}
        problems = [
            f"{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r}"
            for name, allowed in (choices | {"lowercase": CHOICES, "strip_accents": CHOICES}).items()
            if getattr(self, name) not in allowed
        ]
        if not 0 <= self.valid_fraction < 1:
            problems.append(f"valid_fraction must be in [0, 1), not {self.valid_fraction}")
        if not 0 < self.near_threshold <= 1:
            problems.append(f"near_threshold must be in (0, 1], not {self.near_threshold}")
        for name in ("min_words", "train_vocab"):
            if getattr(self, name) < 0:
                problems.append(f"{name} must not be negative, not {getattr(self, name)}")
        if self.seq_len < 3:
            problems.append(f"seq_len must be at least 3, not {self.seq_len}")
        if problems:
            raise InputError("\n".join(problems))


def plain_settings(
    input: str, format: str, vocab: str, lowercase: str, strip_accents: str, valid_fraction: float, seq_len: int
) -> Settings:
    """Returns settings that take a source as it is: each line is a sentence; nothing is changed, dropped or tagged."""
    return Settings(
        input=input,
        format=format,
        documents="blank",
        field="text",
        split="train",
        data_dir="",
        vocab=vocab,
        lowercase=lowercase,
        strip_accents=strip_accents,
        train_vocab=0,
        valid_fraction=valid_fraction,
        sentences="none",
        unicode="none",
        min_words=0,
        dedup="none",
        near_threshold=1.0,
        tags=(),
        ngrams="",
        spacy_model="",
        seq_len=seq_len,
    )


@dataclasses.dataclass(frozen=True)
class ExecutionOptions:
    """How the preparation is executed; no byte of the store depends on it. Each field is a flag, as in `Settings`."""

    workers: int = _described("processes on this machine; 0: one per core, or one for a small source")
    runner: str = _described("Apache Beam runner to use instead: DirectRunner, FlinkRunner, DataflowRunner, ...")
    beam_options: tuple[str, ...] = _described(
        "flags for Beam, as in '--direct_num_workers=4 --direct_running_mode=multi_processing'"
    )
    strict: bool = _described(
        "refuse the source at its first empty file, broken record or document that is not UTF-8; they are skipped, "
        "counted and reported otherwise"
    )

    def processes(self, size: int) -> int:
        """Returns the number of processes for a source of `size` bytes. Raises InputError for a negative `workers`."""
        if self.workers < 0:
            raise InputError(f"workers must be 0 (all cores) or more, not {self.workers}")
        if self.workers:
            return self.workers
        if size < PARALLEL_FROM_BYTES:
            return 1
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

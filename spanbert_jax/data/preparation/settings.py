"""What a person decides about a store. With the source's content it decides every byte of the store; workers and runners do not."""

import dataclasses
import os

from spanbert_jax.errors import InputError

DOCUMENTS = ("blank", "line", "file")
UNICODE = ("none", "NFC", "NFKC")
DEDUP = ("none", "exact", "near")
WORTH_STARTING = 8 << 20  # bytes of a source that is read sooner by several processes, though they must be started


def _of(help: str):
    return dataclasses.field(metadata={"help": help})


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that decides the bytes of a store, beside the content of its source.

    The names are those of scripts/prepare_data.py's flags. `help` in a field's metadata says what it means.
    """

    input: str = _of(
        "'embedded', 'tfds:name', or a path or glob of .txt, .jsonl or .parquet files (also .gz, .xz, ...; also gs://), "
        "several separated by commas"
    )
    documents: str = _of(
        "a document of plain text: up to a 'blank' line, its lines taken as sentences or paragraphs; each 'line'; or each "
        "'file', its paragraphs parted by blank lines and wrapped"
    )
    field: str = _of("the field, column or feature with the text, of JSON Lines, Parquet and TFDS")
    split: str = _of("of TFDS: the split to read, as in 'train' or 'train[:10%%]'")
    data_dir: str = _of("of TFDS: where the data set was prepared; '': its own default")
    vocab: str = _of("cased, uncased, tiny (embedded), or a vocab.txt or tokenizer.json")
    lowercase: str = _of("auto, yes or no; auto: as the vocabulary was made")
    train_vocab: int = _of(
        "train a WordPiece vocabulary of so many tokens on the cleaned training text, in place of --vocab; 0: do not"
    )
    valid_fraction: float = _of("share of the documents held out, chosen by a hash of their text")
    sentences: str = _of("language (en, de, ...) whose rules cut lines into sentences; none: each line is taken as one")
    unicode: str = _of("Unicode normalisation of the text: none, NFC or NFKC")
    min_words: int = _of("leave out documents of fewer words (where a script has no blanks, a character counts)")
    dedup: str = _of("drop documents equal to an earlier one (exact), also those much like one (near), or none")
    near_threshold: float = _of("of --dedup=near: least Jaccard similarity of two documents' runs of characters")
    tags: tuple[str, ...] = _of("tags to keep for masking, separated by commas: entities, phrases, ngrams")
    ngrams: str = _of("of the tag 'ngrams', which it asks for too: a file with an n-gram a line")
    spacy_model: str = _of("of the tags 'entities' and 'phrases': an installed spaCy pipeline")
    seq_len: int = _of("tokens in a row, to tell how full rows will be")

    def check(self) -> None:
        """Raises InputError for a value that cannot be meant."""
        for name, choices in (
            ("documents", DOCUMENTS),
            ("unicode", UNICODE),
            ("dedup", DEDUP),
            ("lowercase", ("auto", "yes", "no")),
        ):
            if getattr(self, name) not in choices:
                raise InputError(f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}")
        if not 0 <= self.valid_fraction < 1:
            raise InputError(f"valid_fraction must be in [0, 1), not {self.valid_fraction}")
        if not 0 < self.near_threshold <= 1:
            raise InputError(f"near_threshold must be in (0, 1], not {self.near_threshold}")
        if self.min_words < 0 or self.train_vocab < 0:
            raise InputError(
                f"min_words and train_vocab must not be negative, as {min(self.min_words, self.train_vocab)} is"
            )
        if self.seq_len < 3:
            raise InputError(f"seq_len must be at least 3, not {self.seq_len}")


def as_it_stands(input: str, field: str, vocab: str, lowercase: str, valid_fraction: float, seq_len: int) -> Settings:
    """The settings that take a source as it is: every line a sentence, nothing changed, dropped or tagged."""
    return Settings(
        input=input,
        documents="blank",
        field=field,
        split="train",
        data_dir="",
        vocab=vocab,
        lowercase=lowercase,
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
class Means:
    """What the preparation is done with; it decides no byte."""

    workers: int = _of("processes on this machine; 0: as many as cores, or one for a small source")
    runner: str = _of("do it on Apache Beam instead: DirectRunner, FlinkRunner, SparkRunner, DataflowRunner, ...")
    beam_options: tuple[str, ...] = _of(
        "flags for Beam, as in '--direct_num_workers=4 --direct_running_mode=multi_processing'"
    )

    def processes(self, size: int) -> int:
        """How many, for a source of `size` bytes. Raises InputError for a number that cannot be meant."""
        if self.workers < 0:
            raise InputError(f"workers must be 0 (all cores) or more, not {self.workers}")
        cores = len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count()))
        return self.workers or (cores if size >= WORTH_STARTING else 1)

"""TFDS data sets that are prepared on disk; nothing is ever downloaded."""

import dataclasses
import itertools
from collections.abc import Iterator

import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.read_only_builder import builder_from_files

from spanbert_jax.data.sources.problems import Problem, Report, refuse
from spanbert_jax.data.sources.records import document_of_text
from spanbert_jax.data.sources.units import Document, digest, even_ranges, group, unit_size
from spanbert_jax.errors import InputError

MAX_RANGES_PER_SHARD = 8  # reading a range within a shard also reads the records before it
RECORDS_PER_READ = 256


@dataclasses.dataclass(frozen=True)
class Records:
    """The records begin..end of a split, all in one shard. The names here enter fingerprints: see `digest`."""

    split: str
    begin: int
    end: int
    size: int  # bytes, approximate

    def __str__(self):
        return f"{self.split}[{self.begin}:{self.end}]"


@dataclasses.dataclass(frozen=True)
class TfdsUnit:
    """Neighbouring records of a data set."""

    folder: str  # of the prepared data set: .../name/config/version
    ranges: tuple[Records, ...]
    field: str
    stamp: str  # bytes of each split
    held_out = None

    @property
    def name(self) -> str:
        """See `Unit`."""
        first, last = self.ranges[0], self.ranges[-1]
        num_records = sum(records.end - records.begin for records in self.ranges)
        if first.split == last.split and num_records == last.end - first.begin:  # without gaps
            return f"{self.folder} {first.split}[{first.begin}:{last.end}]"
        return f"{self.folder} {first} to {last}"

    @property
    def size(self) -> int:
        """See `Unit`."""
        return sum(records.size for records in self.ranges)

    @property
    def fingerprint(self) -> str:
        """See `Unit`."""
        return digest(self)

    def documents(self, report: Report = refuse) -> Iterator[Document]:
        """See `Unit`."""
        builder = tfds.builder_from_directory(self.folder)
        for records in self.ranges:
            for number, text in enumerate(record_texts(builder, records, self.field), records.begin):
                document = document_of_bytes(text, self.field, f"{self.folder}, record {number} of {records.split}")
                if isinstance(document, Problem):
                    report(document)
                else:
                    yield document


def document_of_bytes(text: bytes, field: str, where: str) -> Document | Problem:
    """Returns the document in the bytes of a feature, or the problem that there is none."""
    try:
        return document_of_text(text.decode("utf-8"), field, where, None)
    except UnicodeDecodeError as error:
        what = f"byte {error.start} is 0x{text[error.start]:02x}, not UTF-8"
        return Problem("encoding", where, None, what, "prepare the data set again")


@dataclasses.dataclass(frozen=True)
class Shard:
    """A shard of a data set: its split, the split's index of its first record, and its mean bytes per record."""

    split: str
    first_record: int
    record_bytes: float


def tfds_units(name: str, field: str, split: str, data_dir: str) -> list[TfdsUnit]:
    """Returns the units of the data set "name[/config][:version]"; the arguments are those of `find_units`.

    Raises:
      InputError: the data set is not prepared, or has no such split, no such feature of text, or no records.
    """
    builder = find_builder(name, data_dir)
    check_feature(builder, name, field)
    splits = builder.info.splits
    try:
        files = splits[split].file_instructions
    except (ValueError, KeyError) as error:
        known = ", ".join(f"{key} ({info.num_examples:,} records)" for key, info in splits.items())
        message = str(error).strip("'").split("\n")[0]
        advice = f"It has {known}; see tensorflow.org/datasets/splits"
        raise InputError(f"corpus: tfds:{name}, split '{split}': {message} {advice}", "split") from error
    shards = shards_by_file(splits)
    target = unit_size(int(sum(file.take * shards[file.filename].record_bytes for file in files)))
    ranges = [records for file in files for records in shard_ranges(file, shards[file.filename], target)]
    if not ranges:
        raise InputError(f"corpus: tfds:{name}, split '{split}': it has no records; name another", "split")
    stamp = ", ".join(f"{key}: {info.num_bytes}" for key, info in sorted(splits.items()))
    return [TfdsUnit(str(builder.data_path), neighbours, field, stamp) for neighbours in group(ranges, target)]


def shards_by_file(splits) -> dict[str, Shard]:
    """Returns the shard in each file of a data set; `splits` is TFDS's mapping of split names to their info."""
    shards = {}
    for split, info in splits.items():
        record_bytes = info.num_bytes / max(info.num_examples, 1)
        first_records = itertools.accumulate(info.shard_lengths, initial=0)
        for path, first_record in zip(info.filepaths, first_records):
            shards[str(path)] = Shard(split, first_record, record_bytes)
    return shards


def shard_ranges(file, shard: Shard, target: int) -> Iterator[Records]:
    """Yields ranges of about `target` bytes of the records that a TFDS file instruction (`skip`, `take`) selects."""
    first = shard.first_record + file.skip
    count = min(-int(-file.take * shard.record_bytes // target), MAX_RANGES_PER_SHARD)
    for begin, end in even_ranges(file.take, count):
        if end > begin:
            yield Records(shard.split, first + begin, first + end, int((end - begin) * shard.record_bytes))


def find_builder(name: str, data_dir: str):
    """Returns TFDS's reader of a data set. Raises InputError if it is unknown or not prepared in `data_dir`."""
    try:
        return builder_from_files(name, data_dir=data_dir or None)
    except tfds.core.DatasetNotFoundError as error:
        folder = data_dir or tfds.core.constants.DATA_DIR
        known = name.split("/")[0].split(":")[0] in tfds.list_builders(with_community_datasets=False)
        if known:
            command = f"tfds build {name} --data_dir={folder}"
            advice = f"prepare it on a machine with a network ({command}), or name its folder"
        else:
            advice = "TFDS has none of this name either; check it, or name the folder above its own"
        raise InputError(f"corpus: tfds:{name} is not prepared in {folder}; {advice}", "data_dir") from error
    except (ValueError, OSError, tf.errors.OpError) as error:
        message = " ".join(str(error).split())[:200]
        raise InputError(f"corpus: tfds:{name} cannot be read ({message}); give tfds:name/config:version") from error


def check_feature(builder, name: str, field: str) -> None:
    """Raises InputError, listing the features of text, unless `field` is one."""
    features = builder.info.features
    named = features.items() if isinstance(features, tfds.features.FeaturesDict) else ()
    text_features = sorted(key for key, feature in named if is_text(feature))
    if field not in text_features:
        known = ", ".join(f"'{key}'" for key in text_features) or "none"
        raise InputError(f"corpus: tfds:{name}: no feature of text '{field}'; name one of these: {known}", "field")


def is_text(feature) -> bool:
    """Returns whether a TFDS feature is a single string."""
    return isinstance(feature, tfds.features.Tensor) and feature.shape == () and feature.tf_dtype == tf.string


def record_texts(builder, records: Records, field: str) -> Iterator[bytes]:
    """Yields the text in each record's field, in order. Raises InputError if files are missing or damaged."""
    try:
        if builder.info.file_format.value == "tfrecord":
            # One file after another, so that the order is that of the split.
            config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
            decoders = tfds.decode.PartialDecoding({field: True})
            dataset = builder.as_dataset(split=str(records), decoders=decoders, read_config=config)
            for batch in dataset.batch(RECORDS_PER_READ).prefetch(1).as_numpy_iterator():
                yield from batch[field]
        else:
            for record in builder.as_data_source(split=str(records)):
                yield record[field]
    except (tf.errors.OpError, OSError, RuntimeError, AssertionError) as error:
        message = " ".join(str(error).split())[:200]
        advice = "prepare the data set again"
        raise InputError(f"corpus: {builder.data_path}, {records}: cannot be read ({message}); {advice}") from error

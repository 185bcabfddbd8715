"""Data sets of TFDS that lie prepared on disk; nothing is ever downloaded."""

import dataclasses
import itertools
from collections.abc import Iterator

import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.read_only_builder import builder_from_files

from spanbert_jax.data.sources.units import Document, cut, digest, pack, text_lines, unit_size
from spanbert_jax.errors import InputError

MOST_CUTS = 8  # of a shard: a range within one is reached by reading over what stands before it
BATCH = 256  # records


@dataclasses.dataclass(frozen=True)
class Records:
    """Records begin to end of a split, within a shard."""

    split: str
    begin: int
    end: int
    size: int  # bytes, about

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
        """As of `Unit`."""
        first, last = self.ranges[0], self.ranges[-1]
        if first.split == last.split and sum(part.end - part.begin for part in self.ranges) == last.end - first.begin:
            return f"{self.folder} {first.split}[{first.begin}:{last.end}]"
        return f"{self.folder} {first} to {last}"

    @property
    def size(self) -> int:
        """As of `Unit`."""
        return sum(part.size for part in self.ranges)

    @property
    def fingerprint(self) -> str:
        """As of `Unit`."""
        return digest(self)

    def documents(self) -> Iterator[Document]:
        """As of `Unit`; a record without text gives none."""
        builder = tfds.builder_from_directory(self.folder)
        for part in self.ranges:
            for number, text in enumerate(record_texts(builder, part, self.field), part.begin):
                try:
                    document = text_lines(text.decode("utf-8"))
                except UnicodeDecodeError as error:
                    where = f"{self.folder}, record {number} of {part.split}, byte {error.start}"
                    raise InputError(
                        f"corpus: {where}: 0x{text[error.start]:02x} is not UTF-8; prepare the data set again"
                    ) from error
                if document:
                    yield document


def tfds_units(name: str, field: str, split: str, data_dir: str) -> list[TfdsUnit]:
    """Units of the data set "name[/config][:version]", as `find_units`. A unit has whole shards, or a part of one."""
    builder = find_builder(name, data_dir)
    check_feature(builder, name, field)
    try:
        files = builder.info.splits[split].file_instructions
    except (ValueError, KeyError) as error:
        known = ", ".join(f"{key} ({about.num_examples:,} records)" for key, about in builder.info.splits.items())
        said = str(error).strip("'").split("\n")[0]
        raise InputError(
            f"corpus: tfds:{name}, split '{split}': {said} It has {known}; see tensorflow.org/datasets/splits"
        ) from error
    shards = {}  # file -> (split, number of its first record in it, bytes a record)
    for key, about in builder.info.splits.items():
        begins = itertools.accumulate(about.shard_lengths, initial=0)
        shards |= {
            str(path): (key, begin, about.num_bytes / max(about.num_examples, 1))
            for path, begin in zip(about.filepaths, begins)
        }
    target = unit_size(int(sum(file.take * shards[file.filename][2] for file in files)))
    ranges = [part for file in files for part in cut_shard(file, *shards[file.filename], target)]
    if not ranges:
        raise InputError(f"corpus: tfds:{name}, split '{split}': it has no records")
    stamp = ", ".join(f"{key}: {about.num_bytes}" for key, about in sorted(builder.info.splits.items()))
    return [TfdsUnit(str(builder.data_path), run, field, stamp) for run in pack(ranges, target)]


def cut_shard(file, split: str, first: int, record_bytes: float, target: int) -> Iterator[Records]:
    """Ranges of about `target` bytes of what is read of a shard, whose record 0 is the split's record `first`."""
    parts = min(-int(-file.take * record_bytes // target), MOST_CUTS)
    for begin, end in cut(file.take, parts):
        if end > begin:
            yield Records(split, first + file.skip + begin, first + file.skip + end, int((end - begin) * record_bytes))


def find_builder(name: str, data_dir: str):
    """Reader of the prepared data set. Raises InputError for a name that is not known, or known but not prepared there."""
    try:
        return builder_from_files(name, data_dir=data_dir or None)
    except tfds.core.DatasetNotFoundError as error:
        where = data_dir or tfds.core.constants.DATA_DIR
        known = name.split("/")[0].split(":")[0] in tfds.list_builders(with_community_datasets=False)
        if known:
            advice = f"prepare it there where there is a network (tfds build {name} --data_dir={where}), or name its folder in data_dir"
        else:
            advice = "TFDS has none of this name either; check it, or name the folder above its own in data_dir"
        raise InputError(f"corpus: tfds:{name} is not prepared in {where}; {advice}") from error
    except (ValueError, OSError, tf.errors.OpError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(f"corpus: tfds:{name} cannot be read ({said}); give tfds:name/config:version") from error


def check_feature(builder, name: str, field: str) -> None:
    """Raises InputError, with the features there are, unless `field` is a feature of text."""
    features = builder.info.features
    named = features.items() if isinstance(features, tfds.features.FeaturesDict) else ()
    texts = sorted(
        key
        for key, feature in named
        if isinstance(feature, tfds.features.Tensor) and feature.shape == () and feature.np_dtype == object
    )
    if field not in texts:
        known = ", ".join(f"'{key}'" for key in texts) or "none"
        raise InputError(f"corpus: tfds:{name}: no feature of text '{field}'; name one of these in data.field: {known}")


def record_texts(builder, part: Records, field: str) -> Iterator[bytes]:
    """The field's text of each record, in order. Raises InputError for files that are gone or damaged."""
    try:
        if builder.info.file_format.value == "tfrecord":
            # one file after the other, for the order to be that of the split
            config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
            records = builder.as_dataset(
                split=str(part), decoders=tfds.decode.PartialDecoding({field: True}), read_config=config
            )
            for batch in records.batch(BATCH).prefetch(1).as_numpy_iterator():
                yield from batch[field]
        else:
            for record in builder.as_data_source(split=str(part)):
                yield record[field]
    except (tf.errors.OpError, OSError, RuntimeError, AssertionError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(
            f"corpus: {builder.data_path}, {part}: cannot be read ({said}); prepare the data set again"
        ) from error

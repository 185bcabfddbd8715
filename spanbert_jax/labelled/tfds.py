"""TFDS data sets of labelled examples that are prepared on disk; nothing is ever downloaded."""

from collections.abc import Iterator
from typing import Any

from spanbert_jax.errors import InputError
from spanbert_jax.labelled.files import errors_of_examples, reported_together
from spanbert_jax.labelled.questions import Offsets, Question, question_of_record
from spanbert_jax.labelled.table import GLUE, Row

PREFIX = "tfds:"
# Texts and label of the tasks of GLUE, where they are not called as in the files.
TEXTS = {"cola": ("sentence",), "mrpc": ("sentence1", "sentence2"), "mnli": ("premise", "hypothesis")}
CLASSES = {"unacceptable", "negative", "not_equivalent", "not_duplicate", "not_entailment"}  # of class 0 in files


def name_and_split(source: str) -> tuple[str, str]:
    """Returns name and split of "tfds:name[/config][:version]/SPLIT", as in tfds:squad/v1.1/train.

    Raises:
      InputError: there is no split.
    """
    name, _, split = source.rpartition("/")
    if not name:
        raise InputError(f"{source} names no split; give one as in {source}/train")
    return name, split


def read_tfds(name: str, split: str, data_dir: str = "") -> Iterator[dict[str, Any]]:
    """Yields the records of a split, in order, in Python's own types; a class is its name, or None for -1, unknown.

    Args:
      name: "tfds:name[/config][:version]"; the prefix may be left out.
      split: as TFDS writes it, "train" or "train[:10%]".
      data_dir: the folder in which the data set was prepared; "" for TFDS's default.

    Raises:
      InputError: the data set is not prepared, has no such split, or cannot be read. Raised at the call.
    """
    try:
        import tensorflow as tf
        import tensorflow_datasets as tfds

        from spanbert_jax.data.sources.tfds import find_builder
    except ImportError as error:
        raise InputError("reading TFDS needs tensorflow_datasets; pip install 'spanbert_jax[prepare]'") from error
    name = name.removeprefix(PREFIX)
    with errors_of_examples():
        builder = find_builder(name, data_dir)
    try:
        if builder.info.file_format.value == "tfrecord":
            config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)  # in the order of the split
            stored = builder.as_dataset(split=split, read_config=config).prefetch(1).as_numpy_iterator()
        else:
            stored = builder.as_data_source(split=split)
    except (ValueError, KeyError, AssertionError) as error:
        known = ", ".join(builder.info.splits)
        raise InputError(f"tfds:{name} has no split '{split}' (it has {known}); name one of these") from error
    except (tf.errors.OpError, OSError) as error:
        raise _unreadable(name, error) from error
    features = builder.info.features

    def plain_records():
        try:
            yield from (_plain(record, features) for record in stored)
        except (tf.errors.OpError, OSError, UnicodeDecodeError) as error:
            raise _unreadable(name, error) from error

    return plain_records()


def _unreadable(name: str, error: Exception) -> InputError:
    return InputError(f"tfds:{name} cannot be read ({' '.join(str(error).split())[:200]}); prepare it again")


def _plain(value: Any, feature: Any) -> Any:
    """Returns a value of TFDS in Python's own types."""
    if isinstance(value, dict):
        inner = getattr(feature, "feature", feature)
        return {key: _plain(item, inner[key]) for key, item in value.items()}
    while hasattr(feature, "feature"):  # a sequence of it
        feature = feature.feature
    if hasattr(value, "to_list"):  # ragged
        value = value.to_list()
    elif hasattr(value, "tolist"):
        value = value.tolist()
    return _converted(value, feature)


def _converted(value: Any, feature: Any) -> Any:
    if isinstance(value, list):
        return [_converted(item, feature) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if hasattr(feature, "int2str"):
        return feature.int2str(value) if value >= 0 else None
    return value


def read_tfds_rows(name: str, split: str, data_dir: str = "") -> list[Row]:
    """Returns the rows of tfds:glue/TASK, with the labels that the files of GLUE have. Raises InputError."""
    task = name.removeprefix(PREFIX).removeprefix("glue/").split(":")[0]
    task = task.split("_")[0] if task.startswith("mnli") else task  # also mnli_matched, mnli_mismatched
    if task not in GLUE:
        raise InputError(f"{name} is none of tfds:glue/{', tfds:glue/'.join(GLUE)}; give its files as a table")
    columns = TEXTS.get(task) or GLUE[task].text
    rows = []
    for number, record in enumerate(read_tfds(name, split, data_dir)):
        label = record.get("label")
        if isinstance(label, str) and label not in GLUE[task].labels:
            label = "0" if label in CLASSES else "1"
        rows.append(Row(str(number), tuple(record[str(column)] for column in columns), label))
    return rows


def read_tfds_questions(name: str, split: str, data_dir: str = "") -> tuple[list[Question], list[str]]:
    """Returns the questions of tfds:squad, and notes as `read_questions` does. Raises InputError."""
    found, offsets = [], Offsets(name)
    with reported_together() as problems:
        for number, record in enumerate(read_tfds(name, split, data_dir)):
            question = question_of_record(record, f"{name}, record {number}", str(number), problems, offsets)
            if question:
                found.append(question)
    return found, offsets.notes()

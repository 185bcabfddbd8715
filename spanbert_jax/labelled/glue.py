"""The tasks of GLUE: the layouts of the files that gluebenchmark.com gives (Wang et al., ICLR 2019)."""

import dataclasses
from pathlib import Path

from spanbert_jax.errors import InputError
from spanbert_jax.labelled.table import Column, Row, read_table

SPLITS = ("train", "dev", "test")


@dataclasses.dataclass(frozen=True)
class Task:
    """The layout of a task's files, which are TSV without quoting.

    Attributes:
      text: columns of the texts.
      label: column of the label.
      labels: all of them, in the order of class numbers; () for regression.
      header: whether train and dev have one; test always has.
      test_text: columns of the texts in test, where they differ.
      matched: whether dev and test are in two files, of genres of train ("matched") and of others ("mismatched").
      broken_lines: whether some lines of the official files are broken: they are left out, as everywhere.
    """

    text: tuple[Column, ...]
    label: Column
    labels: tuple[str, ...]
    header: bool = True
    test_text: tuple[Column, ...] = ()
    matched: bool = False
    broken_lines: bool = False

    @property
    def regression(self) -> bool:
        """Whether labels are numbers."""
        return not self.labels

    def file(self, split: str) -> str:
        """Returns the name of a split's file; the split may also be "dev_mismatched" or "test_mismatched"."""
        return f"{split}_matched.tsv" if self.matched and split in ("dev", "test") else f"{split}.tsv"


PAIR = ("sentence1", "sentence2")
YES_NO = ("0", "1")
ENTAILMENT = ("entailment", "not_entailment")
GLUE = {
    "cola": Task((3,), 1, YES_NO, header=False, test_text=("sentence",)),
    "sst2": Task(("sentence",), "label", YES_NO),
    "mrpc": Task(("#1 String", "#2 String"), "Quality", YES_NO),
    "stsb": Task(PAIR, "score", ()),
    "qqp": Task(("question1", "question2"), "is_duplicate", YES_NO, broken_lines=True),
    "mnli": Task(PAIR, "gold_label", ("contradiction", "entailment", "neutral"), matched=True),
    "qnli": Task(("question", "sentence"), "label", ENTAILMENT),
    "rte": Task(PAIR, "label", ENTAILMENT),
    "wnli": Task(PAIR, "label", YES_NO),
}


def read_glue(name: str, folder: str | Path, split: str) -> tuple[list[Row], list[str]]:
    """Returns the rows of a split ("train", "dev", "test"; of MNLI also "dev_mismatched"), and notes for people.

    Args:
      name: a key of GLUE.
      folder: of the task's files, such as CoLA/.
      split: "test" has no labels.

    Raises:
      InputError: the task is unknown, a file is missing or malformed, or has a label that is not the task's.
    """
    if name not in GLUE:
        raise InputError(f"GLUE has no task '{name}'; give one of {', '.join(GLUE)}")
    task = GLUE[name]
    known = (*SPLITS, *(f"{split}_mismatched" for split in SPLITS[1:] if task.matched))
    if split not in known:
        raise InputError(f"{name} has no split '{split}'; give one of {', '.join(known)}")
    file = str(Path(folder) / task.file(split))
    is_test = split.startswith("test")
    skipped: list[str] = []
    rows = read_table(
        file,
        task.test_text or task.text if is_test else task.text,
        None if is_test else task.label,
        header=task.header or is_test,
        labels_are_numbers=task.regression,
        quoting=False,
        skipped=skipped if task.broken_lines else None,
    )
    if not is_test and not task.regression:
        unknown = sorted({str(row.label) for row in rows} - set(task.labels))
        if unknown:
            raise InputError(f"{file}: labels {', '.join(unknown)} are none of {', '.join(task.labels)}; get it again")
    notes = [f"{file}: {len(skipped):,} broken lines are left out: {skipped[0]}"] if skipped else []
    return rows, notes

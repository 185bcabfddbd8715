"""Evaluations of a pretrained model without fine-tuning, by registry: config.eval.suites and scripts/evaluate.py.

An entry is "KIND" or "KIND=FILE". A new kind is one file and one line here.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from spanbert_jax.data.rows import Rows
from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.errors import InputError
from spanbert_jax.objectives.pretraining import Objectives
from spanbert_jax.zeroshot.cloze import Cloze, held_out_rows, rows_of_lines
from spanbert_jax.zeroshot.pairs import Pairs
from spanbert_jax.zeroshot.suite import Suite


class Subject(NamedTuple):
    """What is evaluated."""

    config: ConfigDict
    tokenizer: Tokenizer
    heads: Objectives  # of its model
    held_out: Sequence[Rows] = ()  # of its stores; none if it is no run


def _pairs(subject: Subject, label: str, file: str) -> Suite:
    return Pairs(label, file, subject.tokenizer, subject.config.seq_len)


def _pairs_by_word(subject: Subject, label: str, file: str) -> Suite:
    return Pairs(f"{label}_by_word", file, subject.tokenizer, subject.config.seq_len, by_word=True)


def _cloze(subject: Subject, label: str, file: str) -> Suite:
    config, tokenizer = subject.config, subject.tokenizer
    if file:
        rows = rows_of_lines(file, tokenizer, config.seq_len)
    elif subject.held_out:
        rows = held_out_rows(subject.held_out, config.eval.max_rows)
    else:
        raise InputError("suite cloze: there is no run with held-out text; name a file of texts, as in cloze=FILE")
    return Cloze(label, rows, tokenizer, config.masking, subject.heads)


# Kind -> (subject, label of the metrics, file or "") -> the suite.
SUITES: dict[str, Callable[[Subject, str, str], Suite]] = {
    "pairs": _pairs,
    "pairs_by_word": _pairs_by_word,
    "cloze": _cloze,
}
NEED_A_FILE = ("pairs", "pairs_by_word")


def suite_problems(entries: Sequence[str]) -> list[str]:
    """Returns what is wrong with entries that can be found without a model, one line each."""
    problems = []
    for entry in entries:
        kind, _, file = entry.partition("=")
        if kind not in SUITES:
            problems.append(f"suite {entry!r}: there is no kind {kind!r}; give one of {', '.join(SUITES)}")
        elif not file and kind in NEED_A_FILE:
            problems.append(f"suite {entry!r}: give a file of pairs, as in {kind}=blimp.jsonl")
        elif file and not Path(file).is_file():
            problems.append(f"suite {entry!r}: there is no file {file}")
    labels = [(entry.partition("=")[0], label_of(entry)) for entry in entries]
    problems += [f"suites: two are named {label!r}" for kind, label in set(labels) if labels.count((kind, label)) > 1]
    return problems


def label_of(entry: str) -> str:
    """Returns the name of an entry's metrics: that of its file without suffixes, else its kind."""
    kind, _, file = entry.partition("=")
    return Path(file).name.partition(".")[0] if file else kind


def make_suites(entries: Sequence[str], subject: Subject) -> list[Suite]:
    """Returns the suites of entries.

    Raises:
      InputError: entries are wrong, or a file of theirs, in which case the line is named.
    """
    if problems := suite_problems(entries):
        raise InputError("\n".join(problems))
    parsed = (entry.partition("=") for entry in entries)
    return [SUITES[kind](subject, label_of(f"{kind}={file}" if file else kind), file) for kind, _, file in parsed]

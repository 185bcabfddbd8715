"""Folds of the training examples for cross-validation: the same ones for every seed, process and release.

Examples that belong together (questions on one article, sentences of one document) are in one fold. Labels have the
same share in all folds, as nearly as can be.
"""

import hashlib
from collections.abc import Hashable, Sequence

from spanbert_jax.errors import InputError

Belonging = tuple[Hashable, str]  # what an example is of: its group, and its label or "" if it has none


def fold_problems(task) -> list[str]:
    """Returns what is wrong with the folds of config.task, one line each."""
    problems = []
    if task.folds == 1:
        problems.append("task.folds must be 0, or at least 2")
    if task.folds and task.valid:
        problems.append("task.folds takes the validation examples from task.train: leave out task.valid")
    if task.folds and task.fold > task.folds:
        problems.append(f"task.fold {task.fold} is more than task.folds {task.folds}")
    return problems


def folds_of(examples: Sequence[Belonging], number: int) -> list[int]:
    """Returns the fold of each example, 1 to `number`.

    Args:
      examples: what each is of.
      number: of folds.

    Raises:
      InputError: there are fewer groups than folds.
    """
    labels = dict(reversed(examples))  # that of the group's first example
    groups = list(dict.fromkeys(group for group, _ in examples))
    if len(groups) < number:
        raise InputError(f"task.folds {number}: task.train has {len(groups)} examples or groups of them, too few")
    # A hash, since the sequences of random generators are not promised to stay the same.
    drawn = {group: hashlib.sha256(f"fold {position}".encode()).digest() for position, group in enumerate(groups)}
    dealt = sorted(groups, key=lambda group: (labels[group], drawn[group]))
    fold = {group: position % number + 1 for position, group in enumerate(dealt)}
    return [fold[group] for group, _ in examples]


def without_fold(examples: list, belonging: Sequence[Belonging], number: int, fold: int) -> tuple[list, list]:
    """Returns the examples that are trained on, and those of the fold, to validate on, in their order."""
    folds = folds_of(belonging, number)
    training = [example for example, of in zip(examples, folds) if of != fold]
    return training, [example for example, of in zip(examples, folds) if of == fold]

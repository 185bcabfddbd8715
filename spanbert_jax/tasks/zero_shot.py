"""A trained model scored on suites without fine-tuning; see spanbert_jax/zeroshot."""

import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import jax

from spanbert_jax.data.batches import Feed, open_corpus
from spanbert_jax.errors import InputError
from spanbert_jax.model.layout import ONE_DEVICE
from spanbert_jax.objectives import MLM
from spanbert_jax.training.trained import is_run, restore
from spanbert_jax.zeroshot import Subject, make_suites, suite_problems
from spanbert_jax.zeroshot.suite import Suite, slot_scores

Progress = Callable[[Iterable, int, str], Iterable]  # (items, their number, what is done) -> the items


def evaluate(
    path: Path, step: int | None, entries: Sequence[str], rows: int, progress: Progress
) -> dict[str, dict[str, float]]:
    """Returns the metrics of suites, by label.

    Args:
      path: the folder of a run, an export, or weights of a known family; see trained.restore.
      step: of the run's checkpoint; None: the newest one.
      entries: of zeroshot.SUITES; "cloze" without a file takes the held-out text of the run.
      rows: of a batch, at least.
      progress: is shown the batches.

    Raises:
      InputError: there is no such model, it has no MLM head, or an entry or its file is wrong.
    """
    if problems := suite_problems(entries):
        raise InputError("\n".join(problems))
    model, _ = restore(path, step)
    if MLM not in model.objectives:
        raise InputError(f"{path}: has no MLM head: name the pretraining run that it started from")
    held_out = []
    if "cloze" in entries and is_run(path):
        mixture = open_corpus(model.config, model.tokenizer, path, _refuse)
        held_out = list(Feed(model.config, mixture, model.tokenizer).valid.values())
    suites = make_suites(entries, Subject(model.config, model.tokenizer, model.objectives, held_out))
    return {suite.label: _metrics(suite, model, rows, progress) for suite in suites}


def _metrics(suite: Suite, model, rows: int, progress: Progress) -> dict[str, float]:
    score = jax.jit(functools.partial(slot_scores, model.spec, ONE_DEVICE, suite.heads))
    batches = progress(suite.batches(rows), suite.count(rows), f"{suite.title}, {suite.label}")
    return suite.metrics(suite.examples([jax.device_get(score(model.params, batch)) for batch in batches], rows))


def _refuse(_: str) -> None:
    raise InputError("the store of the run, from which held-out text is read, is missing; give cloze=FILE")

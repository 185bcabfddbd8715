"""A pretraining run from start to end. Resuming is the same call as starting."""

import contextlib
import dataclasses
import functools
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from spanbert_jax import config as config_lib
from spanbert_jax import provenance
from spanbert_jax.data.batches import Feed, feeds_of, open_corpus
from spanbert_jax.data.mixture import Mixture, unknown_warnings
from spanbert_jax.errors import InputError
from spanbert_jax.phases import phases_of
from spanbert_jax.trackers.tracking import Tracking, check_trackers, track
from spanbert_jax.training.checkpoint import Checkpoints
from spanbert_jax.training.export import export_step
from spanbert_jax.training.initial import Initial, initial_of_run, tokenizer_of_run, with_params
from spanbert_jax.training.pretraining import HeldOutEvaluation, checked_mesh, compiled, pretraining_program, suites_of
from spanbert_jax.training.processes import agreed, ending_together, is_first
from spanbert_jax.training.program import Program, keep_compiled
from spanbert_jax.training.resuming import Change, changes, check_allowed, provenance_changes, refuse
from spanbert_jax.training.run import Part, Run, Watch
from spanbert_jax.training.workdir import check_shared, check_workdir, locked, newest_checkpoint, occupied, write_run


def pretrain(config, workdir: Path, allowed: Collection[str] = (), watch: Watch | None = None) -> int:
    """Trains the model of a config to total_steps in `workdir`, from its newest checkpoint if it has one.

    Each process of a run calls it.

    Args:
      config: the whole config.
      workdir: folder of the run.
      allowed: keys of the config that may differ from those of the run so far.
      watch: see Run.

    Returns:
      0 at the end; 128 + its number if a signal (processes.SIGNALS) ended the run after saving.

    Raises:
      InputError: the config, the corpus or the workdir must be fixed, or the model does not fit the devices. Nothing
        is written then, except a store that the next attempt can use.
      Diverged: loss or gradient is not finite.
    """
    with ending_together(lambda: newest_checkpoint(workdir)), contextlib.ExitStack() as stack:
        with agreed(same=f"{config_lib.to_json(config)}{allowed}"):
            check_allowed(allowed)
            check_trackers(config)
            tokenizer = tokenizer_of_run(config, workdir)
            mesh = checked_mesh(config, jax.devices())
            initial, config = initial_of_run(config, tokenizer, workdir)
            check_workdir(workdir, config, allowed)
        phases = phases_of(config)
        keep_compiled(config.compile_cache)
        with agreed():
            if is_first():
                stack.enter_context(occupied(workdir, config))
                open_corpus(config, tokenizer, workdir, log)  # makes the store if there is none
        with agreed():
            check_shared(workdir)
            mixture = open_corpus(config, tokenizer, workdir, log)
            programs = [pretraining_program(phase.config, mesh, tokenizer.vocab_size) for phase in phases]
        record = new_record(config, mixture.fingerprint, tokenizer.fingerprint)
        checkpoints = Checkpoints(workdir / "checkpoints", config.checkpoint.keep_last, config.checkpoint.keep_every)
        with agreed():
            step = checkpoints.latest()
            # Before the slow steps, and before the model's files are written.
            made = check_resumable(checkpoints, step, programs[0], record, allowed)
            record["changes"] = [dataclasses.asdict(change) for change in made]
            feeds = feeds_of(config, mixture, tokenizer)
            suites = [suites_of(feed, tokenizer) for feed in feeds]
            log("\n".join([f"vocabulary: {tokenizer.summary()}", *unknown_warnings(mixture.stores, tokenizer)]))
        programs = compiled(phases, programs, step or 0, log)
        with agreed():
            restored = None if step is None else checkpoints.restore(step, programs[0].state)
            state = state_from_start(config, programs[0], mixture, initial) if restored is None else restored
            del initial, restored  # as large as the model, and no longer needed
            if is_first():
                write_run(workdir, config, record)
                tokenizer.save(workdir)
        export = functools.partial(export_step, workdir, config, tokenizer)
        parts = parts_of(phases, programs, feeds, suites, workdir, export)
        tracking = stack.enter_context(contextlib.closing(started_tracking(config, workdir, record)))
        run = Run(config, workdir, parts, record, checkpoints, watch, tracking)
        return run.train(state, opening(config, int(state.step), made))


def parts_of(phases, programs, feeds, suites, workdir: Path, export) -> list[Part]:
    """Returns what the loop runs in the phases, given in lists."""
    evaluations = [HeldOutEvaluation(*each, workdir, export) for each in zip(programs, feeds, suites)]
    return list(map(Part, phases, programs, feeds, evaluations))


def training_rows(config, workdir: Path) -> int:
    """Returns the number of rows that an epoch of a config reads; makes the store in `workdir` if there is none.

    Raises:
      InputError: the config, the corpus or the workdir must be fixed.
    """
    tokenizer = tokenizer_of_run(config, workdir)
    checked_mesh(config, jax.devices())  # names all problems before text is tokenised
    with locked(workdir):
        mixture = open_corpus(config, tokenizer, workdir, log)
        return Feed(config, mixture, tokenizer).train.num_rows


def log(line: str) -> None:
    """Prints a line in the first process only."""
    if is_first():
        print(line, flush=True)


def opening(config, step: int, made: list[Change]) -> str:
    """Returns lines on what a run starts from, and what was changed in it so far."""
    if step:
        lines = [f"after step {change.step:,}, {change.key} {change.before!r} -> {change.now!r}" for change in made]
        return "\n".join([*lines, f"resuming from the checkpoint of step {step:,}"])
    return f"starting from {config.init.path}" if config.init.path else "starting from scratch"


def new_record(config, text: str, vocabulary: str) -> dict[str, Any]:
    """Returns what each checkpoint says of its run; "changes" are added when they are known.

    Args:
      config: of the run.
      text: fingerprint of what is trained on.
      vocabulary: fingerprint of the tokenizer.
    """
    return {
        "config": config_lib.to_json(config),
        "vocabulary": vocabulary,
        "store": text,
        "provenance": provenance.provenance(text, vocabulary),
    }


def started_tracking(config, workdir: Path, record: Mapping[str, Any]) -> Tracking:
    """Returns the trackers of a run, whose checkpoints have this record: in the first process alone."""
    known = {f"provenance.{key}": value for key, value in provenance.flat(record["provenance"])}
    return track(config, workdir, known) if is_first() else Tracking([])


def token_bias(config, mixture: Mixture) -> np.ndarray | None:
    """Returns the initial vocabulary biases, float32 [V] log-frequencies of the training text; None for zeros."""
    if config.model.output_bias == "zeros":
        return None
    counts = mixture.token_counts("train") + 1.0  # every token may occur
    return np.log(counts / counts.sum()).astype(np.float32)


def state_from_start(config, program: Program, mixture: Mixture, initial: Initial | None):
    """Returns the state of step 0: random parameters, except those of the initial weights.

    Raises:
      InputError: config.init has a fingerprint of weights but no path.
    """
    if initial is None and config.init.fingerprint:
        raise InputError(
            "init.fingerprint is given without init.path, and there is no checkpoint yet: say where those weights are"
        )
    state = program.init(token_bias(config, mixture))
    if initial is None:
        return state
    log(initial.summary())
    return with_params(state, initial.params)


def check_resumable(
    checkpoints: Checkpoints,
    step: int | None,
    program: Program,
    record: dict,
    allowed: Collection[str],
    corpus: str = "data.store",
) -> list[Change]:
    """Checks that the checkpoint of a step belongs to this run; step None: there is no checkpoint.

    Args:
      checkpoints: of the run.
      step: of its newest one.
      program: of the run now.
      record: that checkpoints will have.
      allowed: keys that may change.
      corpus: key that names the text, whose fingerprint is record["store"].

    Returns:
      What was changed in the run, earlier and now.

    Raises:
      InputError: the checkpoint is of another config, vocabulary, corpus or model.
    """
    if step is None:
        return []
    saved, what = checkpoints.record(step), f"the checkpoint of step {step}"
    before, now = config_lib.from_json(saved["config"]), config_lib.from_json(record["config"])
    found = changes(before, now, step)
    if saved["store"] != record["store"]:
        found.append(Change(step, corpus, *(f"text {which['store'][:12]}" for which in (saved, record))))
    refuse(found, before, now, allowed, what)
    found += provenance_changes(saved.get("provenance", {}), record["provenance"], step)
    if saved["vocabulary"] != record["vocabulary"]:
        differing = f"{saved['vocabulary'][:12]} in the run, {record['vocabulary'][:12]} now"
        raise InputError(f"{what} is of a run with another vocabulary ({differing}): give data.vocab of that run")
    checkpoints.check(step, program.state)
    return [Change(**change) for change in saved.get("changes", [])] + found

"""Pretraining: the story of a run, in order. Resuming is the same call as starting."""

import contextlib
from pathlib import Path

import jax
import numpy as np

from spanbert_jax import config as config_lib
from spanbert_jax.data.batches import Feed, open_corpus, slots_of, tokenizer_of
from spanbert_jax.data.mixture import Mixture
from spanbert_jax.errors import InputError
from spanbert_jax.training.checkpoint import Checkpoints
from spanbert_jax.training.checks import checked_mesh
from spanbert_jax.training.compiled import compiled, keep_compiled
from spanbert_jax.training.initial import Initial, pinned, read_initial, with_params
from spanbert_jax.training.processes import agreed, ending_together, is_first
from spanbert_jax.training.program import Program, build_program
from spanbert_jax.training.run import Run
from spanbert_jax.training.workdir import check_shared, check_workdir, claim, locked, write_config


def pretrain(config, workdir: Path) -> int:
    """Trains config's model to total_steps in `workdir`, from its newest checkpoint if it has one. Of several processes each calls it.

    Returns:
      0 when done, 143 when a SIGTERM (130: a SIGINT) ended it after saving.

    Raises:
      InputError: the config, the corpus or the workdir must be mended, or the model does not fit the devices; nothing was written.
      Diverged: loss or gradient is not finite.
    """
    with ending_together(lambda: standing(workdir)), contextlib.ExitStack() as held:
        with agreed(same=config_lib.to_json(config)):
            tokenizer = tokenizer_of(config)
            mesh = checked_mesh(config, jax.devices())
            initial = read_initial(config, tokenizer)
            config = pinned(config, initial)
            check_workdir(workdir, config)
        keep_compiled(config.compile_cache)
        with agreed():
            if is_first():
                held.enter_context(locked(workdir))
                claim(workdir, config)
                open_corpus(config, tokenizer, workdir, tell)  # which makes the store, where there is none
        with agreed():
            check_shared(workdir)
            mixture = open_corpus(config, tokenizer, workdir, tell)
            program = build_program(config, mesh, tokenizer.vocab_size, slots_of(config))
        record = {
            "config": config_lib.to_json(config),
            "vocabulary": tokenizer.fingerprint,
            "store": mixture.fingerprint,
        }
        checkpoints = Checkpoints(workdir / "checkpoints", config.checkpoint.keep_last, config.checkpoint.keep_every)
        with agreed():
            step = checkpoints.latest()
            check_resumable(
                checkpoints, step, program, record
            )  # before what takes long, and before anything is written
            feed = Feed(config, mixture, tokenizer)
        steps = compiled(config, program, slots_of(config), tell)
        with agreed():
            state = (
                fresh_state(config, program, mixture, initial)
                if step is None
                else checkpoints.restore(step, program.state)
            )
        del initial  # as large as the model, and of no more use
        with agreed():
            if is_first():
                write_config(workdir, config)
                tokenizer.save(workdir)
        return Run(config, workdir, program, steps, feed, record, checkpoints).train(state)


def tell(line: str) -> None:
    """A line for a person, of all processes together."""
    if is_first():
        print(line, flush=True)


def standing(workdir: Path) -> str:
    """Where a run stands that must break off."""
    steps = sorted(
        int(folder.name.removeprefix("step_"))
        for folder in (workdir / "checkpoints").glob("step_*")
        if folder.name[5:].isdigit()
    )
    return f"The newest checkpoint is of step {steps[-1]:,}" if steps else "There is no checkpoint yet"


def output_bias(config, mixture: Mixture) -> np.ndarray | None:
    """float32 [V] that the heads' biases start from: log-frequencies of the training text, or None for zeros."""
    if config.model.output_bias == "zeros":
        return None
    counts = mixture.token_counts("train") + 1.0  # every token may occur
    return np.log(counts / counts.sum()).astype(np.float32)


def fresh_state(config, program: Program, mixture: Mixture, initial: Initial | None):
    """The state that a run starts with: random parameters, but for those of the weights that it is to start from.

    Raises:
      InputError: config.init wants weights and does not say where they are.
    """
    if initial is None and config.init.fingerprint:
        raise InputError(
            "init.fingerprint is given without init.path, and there is no checkpoint yet: say where those weights are"
        )
    state = program.init(output_bias(config, mixture))
    if initial is None:
        return state
    tell(initial.told())
    return with_params(state, initial.params)


def check_resumable(checkpoints: Checkpoints, step: int | None, program: Program, record: dict) -> None:
    """Checks that the checkpoint of that step, if any, is of this run.

    Raises:
      InputError: it is of another config, vocabulary, corpus or model.
    """
    if step is None:
        return
    saved = checkpoints.record(step)
    changed = config_lib.differences(config_lib.from_json(saved["config"]), config_lib.from_json(record["config"]))
    changed += [
        f"{what}: {saved[what][:12]} in the run, {record[what][:12]} now"
        for what in ("vocabulary", "store")
        if saved[what] != record[what]
    ]
    if changed:
        raise InputError(f"the checkpoint of step {step} is of a run that differs in\n  " + "\n  ".join(changed))
    checkpoints.check(step, program.state)

"""A trained model out of a run's folder, for use on one device."""

import dataclasses
from pathlib import Path
from typing import Any

import jax

from spanbert_jax.data.tokenizer import Tokenizer, load_tokenizer
from spanbert_jax.errors import InputError
from spanbert_jax.model.flash import platform_of
from spanbert_jax.model.spec import ModelSpec, model_spec
from spanbert_jax.training.checkpoint import Checkpoints
from spanbert_jax.training.workdir import read_config


def restore_run(workdir: Path, step: int | None = None) -> tuple[Any, Tokenizer, ModelSpec, Any]:
    """(config, tokenizer, spec, params) of a run as it was after update `step` (None: at its newest checkpoint).

    params are float32 on this process's first device, whatever mesh they were trained on; the optimiser's state is not read.

    Raises:
      InputError: there is no run, no such checkpoint, or the vocabulary beside it is not the one it was trained with.
    """
    config, step = read_config(workdir), resolve_step(workdir, step)
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    try:
        tokenizer = tokenizer_of(workdir, checkpoints.record(step)["vocabulary"])
        device = jax.local_devices()[0]
        params = jax.device_put(checkpoints.read(step, "params"), device)
    finally:
        checkpoints.close()
    spec = model_spec(config, tokenizer.vocab_size, platform_of(device))
    return config, tokenizer, dataclasses.replace(spec, attention="xla"), params  # which takes rows of any length


def resolve_step(workdir: Path, step: int | None) -> int:
    """`step`, or that of the run's newest checkpoint if it is None.

    Raises:
      InputError: there is no run, or no such checkpoint.
    """
    read_config(workdir)
    folder = workdir / "checkpoints"
    checkpoints = Checkpoints(folder, read_only=True) if folder.is_dir() else None
    steps = checkpoints.steps() if checkpoints else []
    if checkpoints:
        checkpoints.close()
    if not steps:
        raise InputError(f"workdir {workdir} has no checkpoint yet")
    if step is not None and step not in steps:
        raise InputError(
            f"workdir {workdir} has no checkpoint of step {step}; it has those of {', '.join(map(str, steps))}"
        )
    return steps[-1] if step is None else step


def tokenizer_of(workdir: Path, fingerprint: str) -> Tokenizer:
    """The run's tokenizer, from its own copy of the vocabulary; the fingerprint tells its casing too.

    Raises:
      InputError: the vocabulary there is another one.
    """
    for lowercase in ("no", "yes"):
        tokenizer = load_tokenizer(str(workdir / "vocab.txt"), lowercase)
        if tokenizer.fingerprint == fingerprint:
            return tokenizer
    raise InputError(f"{workdir}/vocab.txt is not the vocabulary that the run was trained with: put that one back")

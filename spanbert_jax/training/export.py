"""Export of a run's weights to the formats of other libraries."""

from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict

from spanbert_jax.data.batches import store_names
from spanbert_jax.data.mixture import Mixture
from spanbert_jax.data.store import open_store
from spanbert_jax.errors import InputError
from spanbert_jax.folders import refuse_existing
from spanbert_jax.interop import huggingface, stablehlo
from spanbert_jax.interop.model_card import model_card
from spanbert_jax.interop.original import export_original
from spanbert_jax.training.metrics import read_metrics
from spanbert_jax.training.workdir import resolve_step, restore_run

FORMATS = ("huggingface", "original", "stablehlo")


def export_run(workdir: Path, output: Path, format: str, step: int | None) -> tuple[int, list[str]]:
    """Writes a run's parameters as they were after step `step` (None: at its newest checkpoint) into a new folder.

    Returns:
      The step, and the names of the heads that were left out because the format does not support them.

    Raises:
      InputError: there is no such run or checkpoint, the format has no counterpart for its encoder, or `output` exists
        or cannot be written. Nothing is written then.
    """
    refuse_existing(output)
    step = resolve_step(workdir, step)
    config, tokenizer, spec, _, tree = restore_run(workdir, step)
    params = {path: np.asarray(array) for path, array in flatten_dict(tree, sep="/").items()}
    shapes = {path: array.shape for path, array in params.items()}
    described = config, shapes, tokenizer, step, splits_of(config, workdir), newest_metrics(workdir, step)
    if format == "original":
        return step, export_original(output, params, config, tokenizer)
    if format == "stablehlo":
        card = model_card(*described, library="jax", use=stablehlo.usage(spec, config.seq_len))
        return step, stablehlo.export_stablehlo(output, params, config, spec, tokenizer, card)
    card = model_card(*described, library="transformers", use=huggingface.usage(shapes, config, tokenizer))
    return step, huggingface.export_huggingface(output, params, config, tokenizer, card)


def splits_of(config, workdir: Path) -> dict | None:
    """Returns the sizes of the splits of the run's store, None if it no longer exists."""
    names: list[str | Path] = [*store_names(config)] or [workdir / "store"]
    try:
        return Mixture([open_store(name) for name in names]).totals()
    except InputError:
        return None


def newest_metrics(workdir: Path, step: int) -> list[dict]:
    """Returns the last training line and the last evaluation line that were logged up to a step."""
    lines = [line for line in read_metrics(workdir) if line["step"] <= step]
    training = [line for line in lines if "loss" in line]
    evaluation = [line for line in lines if any(key.startswith("eval/") for key in line)]
    return [*training[-1:], *evaluation[-1:]]

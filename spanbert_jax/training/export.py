"""A run's weights out, in other libraries' formats."""

from pathlib import Path

import numpy as np
from flax.traverse_util import flatten_dict

from spanbert_jax.data.batches import store_names
from spanbert_jax.data.mixture import Mixture
from spanbert_jax.data.store import open_store
from spanbert_jax.errors import InputError
from spanbert_jax.folders import refuse_taken
from spanbert_jax.interop import huggingface, stablehlo
from spanbert_jax.interop.model_card import model_card
from spanbert_jax.interop.original import export_original
from spanbert_jax.training.metrics import read_metrics
from spanbert_jax.training.restore import resolve_step, restore_run

FORMATS = ("huggingface", "original", "stablehlo")


def export_run(workdir: Path, output: Path, format: str, step: int | None) -> int:
    """Writes a run's parameters as they were after update `step` (None: at its newest checkpoint) into a new folder.

    Returns:
      The step.

    Raises:
      InputError: no such run or checkpoint, or `output` is taken or cannot be written; nothing was written.
    """
    refuse_taken(output)
    step = resolve_step(workdir, step)
    config, tokenizer, spec, params = restore_run(workdir, step)
    params = {path: np.asarray(array) for path, array in flatten_dict(params, sep="/").items()}
    shapes = {path: array.shape for path, array in params.items()}
    told = config, shapes, tokenizer, step, splits_of(config, workdir), newest_metrics(workdir, step)
    if format == "original":
        export_original(output, params, config, tokenizer)
    elif format == "stablehlo":
        card = model_card(*told, library="jax", use=stablehlo.usage(shapes))
        stablehlo.export_stablehlo(output, params, config, spec, tokenizer, card)
    else:
        card = model_card(*told, library="transformers", use=huggingface.usage(shapes, config, tokenizer))
        huggingface.export_huggingface(output, params, config, tokenizer, card)
    return step


def splits_of(config, workdir: Path) -> dict | None:
    """What the run's store says of its splits, None if it is no longer there."""
    try:
        return Mixture([open_store(name) for name in store_names(config) or [workdir / "store"]]).totals()
    except InputError:
        return None


def newest_metrics(workdir: Path, step: int) -> list[dict]:
    """The last line of training and the last of evaluation that were told up to a step."""
    lines = [line for line in read_metrics(workdir) if line["step"] <= step]
    return [last[-1] for key in ("loss", "eval/mlm_loss") if (last := [line for line in lines if key in line])]

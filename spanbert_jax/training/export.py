"""Export of a trained model to the formats of other libraries."""

from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jax.experimental.multihost_utils import process_allgather

from spanbert_jax.data.batches import store_names
from spanbert_jax.data.mixture import Mixture
from spanbert_jax.data.store import open_store
from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.errors import InputError
from spanbert_jax.folders import refuse_existing
from spanbert_jax.interop import huggingface, stablehlo
from spanbert_jax.interop.model_card import converted_card, model_card
from spanbert_jax.interop.original import export_original
from spanbert_jax.objectives import MLM
from spanbert_jax.phases import config_at
from spanbert_jax.provenance import read_provenance
from spanbert_jax.training.metrics import read_metrics
from spanbert_jax.training.processes import is_first
from spanbert_jax.training.trained import is_run, restore
from spanbert_jax.training.workdir import read_config, record_of, resolve_step

FORMATS = ("huggingface", "original", "stablehlo")
EXPORTS = "exports"  # folder of a workdir with the exports that config.export.every asks for


def export_model(path: Path, output: Path, format: str, step: int | None) -> tuple[str, list[str]]:
    """Writes a trained model into a new folder.

    Args:
      path: the folder of a run, whose parameters are taken after step `step` (None: at its newest checkpoint), or
        weights in files; see trained.restore.
      output: the folder to make.
      format: one of FORMATS.
      step: see path.

    Returns:
      What was exported, and clauses on what was left out because the format does not support it, or is missing.

    Raises:
      InputError: there is no such model or checkpoint, the format has no counterpart for its encoder, or `output`
        exists or cannot be written. Nothing is written then.
    """
    refuse_existing(output)
    of_run = is_run(path)
    if of_run:
        step = resolve_step(path, step)
    (config, tokenizer, spec, heads, tree), notes = restore(path, step)
    if "task" in config:
        raise InputError(f"{path}: is of fine-tuning; finetuning.export.export_fine_tuned exports its model")
    params = {name: np.asarray(array) for name, array in flatten_dict(tree, sep="/").items()}
    shapes = {name: array.shape for name, array in params.items()}
    if format == "stablehlo" and MLM not in heads:
        raise InputError(f"{path}: has no head of the {MLM.title}, which the format {format} needs")

    def card(library: str, use: str) -> str:
        if step is None:
            return converted_card(config, shapes, tokenizer, library, use)
        splits, metrics = splits_of(config, path), newest_metrics(path, step)
        made = record_of(path, step).get("provenance", {})
        return model_card(read_config(path), shapes, tokenizer, step, splits, metrics, library, use, made)

    if format == "original":
        left_out = export_original(output, params, config, tokenizer)
    elif format == "stablehlo":
        text = card("jax", stablehlo.usage(spec, config.seq_len))
        left_out = stablehlo.export_stablehlo(output, params, config, spec, tokenizer, text)
    else:
        text = card("transformers", huggingface.usage(shapes, config, tokenizer))
        left_out = huggingface.export_huggingface(output, params, config, tokenizer, text)
    if left_out:
        notes.append(f"left out, since the format has no place for them: the heads {', '.join(left_out)}")
    return (f"{path}" if step is None else f"step {step:,} of {path}"), notes


def export_step(workdir: Path, config, tokenizer: Tokenizer, step: int, params, metrics: dict[str, float]) -> Path:
    """Writes the parameters of a run, as they are after a step, to workdir/exports/step_N for Hugging Face.

    Args:
      workdir: of the run.
      config: of the run.
      tokenizer: of the run.
      step: see above.
      params: on this process's devices, or on all processes'.
      metrics: of the evaluation of this step, for the model card.

    Returns:
      The folder, which is left as it is if it exists.
    """
    output = workdir / EXPORTS / f"step_{step}"
    arrays = {path: whole(leaf) for path, leaf in flatten_dict(params, sep="/").items()}
    if is_first() and not output.exists():
        now, shapes = config_at(config, step), {path: array.shape for path, array in arrays.items()}
        evaluated = {"step": step} | {f"eval/{name}": value for name, value in metrics.items()}
        lines = [*[line for line in newest_metrics(workdir, step) if "loss" in line], evaluated]
        text = model_card(
            config,
            shapes,
            tokenizer,
            step,
            splits_of(config, workdir),
            lines,
            "transformers",
            huggingface.usage(shapes, now, tokenizer),
            read_provenance(workdir),
        )
        huggingface.export_huggingface(output, arrays, now, tokenizer, text)
    return output


def whole(array: jax.Array) -> np.ndarray:
    """Returns an array that may be divided among processes, each of which calls it, whole on the host."""
    return np.asarray(array if array.is_fully_addressable else process_allgather(array, tiled=True))


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

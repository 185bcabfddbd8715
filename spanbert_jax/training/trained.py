"""A trained model for use on one device: of a run, of an export, or of a Hugging Face folder of a known family.

A folder that is not of a run has no config of ours. What its files determine is set in one (sizes of the model, its
vocabulary, the heads that it has), and everything else has its default.
"""

from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import unflatten_dict
from ml_collections import ConfigDict

from spanbert_jax import config as config_lib
from spanbert_jax.configs import base
from spanbert_jax.data.tokenizer import load_tokenizer
from spanbert_jax.errors import InputError
from spanbert_jax.interop.families import model_fields
from spanbert_jax.interop.huggingface import longest_text
from spanbert_jax.interop.weights import (
    Loaded,
    fit_vocabulary,
    has_weights,
    load_weights,
    sizes,
    to_params,
    without_other_parts,
)
from spanbert_jax.objectives import OBJECTIVES
from spanbert_jax.objectives.pretraining import with_heads
from spanbert_jax.training.initial import shapes_of
from spanbert_jax.training.workdir import TrainedModel, one_device_spec, restore_run


def is_run(path: Path) -> bool:
    """Returns whether a path is to be read as the folder of a run, not as weights in files."""
    return (path / "checkpoints").is_dir() or not has_weights(path)


def restore(path: Path, step: int | None) -> tuple[TrainedModel, list[str]]:
    """Returns a trained model, and what it lacks or what was left out of its files, in clauses.

    Args:
      path: the folder of a run, or a path that interop.weights.load_weights reads.
      step: of the run's checkpoint; None: the newest one, or weights that are not of a run.

    Raises:
      InputError: there is no model, or it is of no known family; or a step is given, and it is not a run.
    """
    if is_run(path):
        return restore_run(path, step), []
    if step is not None:
        raise InputError(f"{path}: is not the folder of a run, so it has no checkpoint of step {step}")
    return restore_files(path)


def restore_files(path: Path) -> tuple[TrainedModel, list[str]]:
    """Returns the model of weights in files, and what it lacks or what was left out, in clauses.

    Raises:
      InputError: there is no model, its config.json or vocabulary is missing, or it is of no known family.
    """
    loaded = load_weights(path)
    if loaded.config is None or loaded.vocabulary is None:
        missing = [
            name
            for name, found in (("config.json", loaded.config), ("vocab.txt or tokenizer.json", loaded.vocabulary))
            if found is None
        ]
        raise InputError(
            f"{path}: no {' and no '.join(missing)} beside the weights; put there what the model was made with"
        )
    tokenizer = load_tokenizer(str(loaded.vocabulary), "auto")

    def no_rows(number: int, width: int) -> np.ndarray:
        if number:
            raise InputError(
                f"{path}: its vocabulary table has no rows for the last {number:,} tokens of its vocabulary"
            )
        return np.zeros((number, width))

    weights, others = without_other_parts(loaded.weights)
    weights, notes = fit_vocabulary(weights, tokenizer.tokens, tokenizer.tokens, no_rows)
    config = config_of(path, loaded)
    params, missing = to_params(weights, shapes_of(config, tokenizer.vocab_size), str(path))
    usual = [head.title for head in with_heads(base.get_config()) if head.name in missing]
    if usual:
        notes.append(f"it has no head of: {', '.join(usual)}")
    for name in missing:
        config.objectives[f"{name}_weight"] = 0.0
    if others:
        notes.append(f"parts of other tasks, left out: {', '.join(others)}")
    heads = tuple(head for head in with_heads(config) if head.name not in missing)
    device = jax.local_devices()[0]
    tree = jax.device_put(unflatten_dict(params, sep="/"), device)
    return TrainedModel(config.lock(), tokenizer, one_device_spec(config, tokenizer, device), heads, tree), notes


def config_of(path: Path, loaded: Loaded) -> ConfigDict:
    """Returns a config with what files of weights determine, and every head that they may have.

    Raises:
      InputError: config.json is not of an encoder that is known here, or a value in it is out of range.
    """
    assert loaded.config is not None and loaded.vocabulary is not None
    config = base.get_config()
    config.name = path.absolute().name
    config.data.vocab = str(loaded.vocabulary)
    values = {f"model.{key}": value for key, value in model_fields(loaded.config, str(path)).items()}
    found = sizes({name: array.shape for name, array in loaded.weights.items()})
    for objective in OBJECTIVES.values():
        values |= {key: found[key] for key in objective.sizes_of if key in found}
        values |= {ours: loaded.config[key] for key, ours in objective.settings.items() if key in loaded.config}
        if objective.exported:
            values[f"objectives.{objective.name}_weight"] = 1.0
    config.update_from_flattened_dict(values)
    config.seq_len = min(config.model.max_positions, longest_text(loaded.vocabulary.parent))
    problems = config_lib.knob_problems(config, "model.") + config_lib.knob_problems(config, "masking.")
    if problems:
        raise InputError("\n".join(f"{path}: {problem}" for problem in problems))
    return config

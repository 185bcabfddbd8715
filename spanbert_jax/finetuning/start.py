"""What a fine-tuning run starts from: the sizes of the model, its tokenizer, and the parameters of its encoder."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from spanbert_jax.data.batches import configured_tokenizer
from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.errors import InputError
from spanbert_jax.interop.names import Weights
from spanbert_jax.interop.weights import fingerprint
from spanbert_jax.model.extensions import knobs_of
from spanbert_jax.optimizers.groups import LAYERS
from spanbert_jax.training.checkpoint import Checkpoints
from spanbert_jax.training.initial import with_params
from spanbert_jax.training.trained import restore
from spanbert_jax.training.workdir import newest_step, read_config, saved_tokenizer

# Knobs of config.model that are those of fine-tuning, not of the model that it starts from.
OWN = ("dropout", "attention_dropout", "init_std", "dtype", "attention", "remat", "scan_unroll")


@dataclasses.dataclass(frozen=True)
class Start:
    """What a run starts from."""

    config: ConfigDict  # of the run, with the sizes of the model
    tokenizer: Tokenizer
    params: Weights | None  # by path, float32; None: random ones, or those of a checkpoint of the run
    notes: list[str]  # what was left out or added, in clauses

    def summary(self) -> str:
        """Returns a line on where the parameters come from."""
        path = self.config.init.path
        return "; ".join([f"starting from {path}" if path else "starting from scratch", *self.notes])


def start_of(config, workdir: Path) -> Start:
    """Returns what a run starts from: its own files if it has a checkpoint, else config.init, else random parameters.

    Raises:
      InputError: config.init cannot be read, or its parameters are not those of config.init.fingerprint.
    """
    config = config.copy_and_resolve_references()
    step = newest_step(workdir)
    if step is not None and config.init.path in ("", (before := read_config(workdir)).init.path):
        adopt(config, before)
        config.init.update(before.init)
        checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
        tokenizer = saved_tokenizer(workdir, checkpoints.record(step)["vocabulary"])
        checkpoints.close()
        return Start(config.lock(), tokenizer, None, [])
    if not config.init.path:
        return Start(config.lock(), configured_tokenizer(config), None, [])
    trained, notes = restore(Path(config.init.path), None)
    adopt(config, trained.config)
    params = {path: np.asarray(leaf) for path, leaf in flatten_dict(trained.params, sep="/").items()}
    found = fingerprint(params)
    if config.init.fingerprint not in ("", found):
        raise InputError(
            f"{config.init.path}: its weights are {found}, init.fingerprint requires {config.init.fingerprint}"
        )
    config.init.fingerprint = found
    return Start(config.lock(), trained.tokenizer, params, notes)


def adopt(config, source) -> None:
    """Sets what a config says of the model as another one says it, with the extensions of both."""
    theirs, own = source.model.get("extensions", ()), config.model.extensions
    added = tuple(name for name in own if name not in theirs)  # to the model; they change nothing at the start
    kept = {*OWN, *knobs_of(added)} - set(knobs_of(theirs))
    config.model.update({key: value for key, value in source.model.items() if key not in kept})
    config.model.extensions = (*theirs, *added)
    config.masking.max_targets = source.masking.max_targets


def started(state, params: Weights | None, reinitialised: int, same: Mapping[str, str]):
    """Returns a random train state with the given parameters, as far as it has parameters of their path and shape.

    Args:
      state: a random one.
      params: by path.
      reinitialised: number of the last layers that stay random.
      same: modules of the state's heads, and the modules of other heads whose parameters they start from.
    """
    if params is None:
        return state
    own = flatten_dict(state.params, sep="/")
    params = params | {
        f"{ours}/{path.removeprefix(f'{theirs}/')}": array
        for ours, theirs in same.items()
        for path, array in params.items()
        if path.startswith(f"{theirs}/")
    }
    fitting = {path: array for path, array in params.items() if path in own and own[path].shape == array.shape}
    if reinitialised:
        for path in [path for path in fitting if path.startswith(LAYERS)]:
            random = np.asarray(jax.device_get(own[path]))
            kept = len(random) - reinitialised
            fitting[path] = np.concatenate([fitting[path][:kept], random[kept:]])
    return with_params(state, fitting)

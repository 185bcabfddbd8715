"""Weights that a run starts from instead of random ones: those of another run, of a Hugging Face folder, or of the original."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from spanbert_jax.data.tokenizer import Tokenizer, read_tokens
from spanbert_jax.errors import InputError
from spanbert_jax.interop.huggingface import model_fields
from spanbert_jax.interop.names import Weights, to_theirs
from spanbert_jax.interop.weights import fingerprint, load_weights, to_params
from spanbert_jax.model.spanbert import init_params
from spanbert_jax.model.spec import model_spec
from spanbert_jax.training.restore import restore_run
from spanbert_jax.training.sharding import param_path


@dataclasses.dataclass(frozen=True)
class Initial:
    """Weights that fit a config."""

    path: str
    params: Weights  # ours, by path, float32; some heads may not be among them
    missing: list[str]  # heads that start afresh
    fingerprint: str  # of params

    def told(self) -> str:
        """A line for a person."""
        fresh = f"; heads that are not there and start afresh: {', '.join(self.missing)}" if self.missing else ""
        return f"starting from the weights of {self.path}, fingerprint {self.fingerprint[:12]}{fresh}"


def read_initial(config, tokenizer: Tokenizer) -> Initial | None:
    """The weights that config.init names, checked against the config and its tokenizer; None if it names none.

    The path is the folder of a pretraining run (its newest checkpoint is taken), or what interop.weights.load_weights reads.

    Raises:
      InputError: they cannot be read, are of another model or vocabulary, or are not those of config.init.fingerprint.
    """
    path = config.init.path
    if not path:
        return None
    weights, model, vocabulary = (_of_run if (Path(path) / "checkpoints").is_dir() else _of_files)(path)
    if vocabulary is not None and read_tokens(str(vocabulary)) != tokenizer.tokens:
        raise InputError(
            f"{path}: its vocabulary is not that of data.vocab {config.data.vocab}: give --config.data.vocab={vocabulary}"
        )
    # All that a config.json tells at once; two of these no tensor's shape would show.
    keys = ("layers", "width", "heads", "mlp_width", "max_positions", "norm_eps") if model else ()
    ours = config.model
    differing = [
        f"model.{key} is {model[key]} there, {ours[key]} in this config" for key in keys if model[key] != ours[key]
    ]
    if differing:
        raise InputError(f"{path}: {'; '.join(differing)}")
    params, missing = to_params(weights, shapes_of(config, tokenizer), path)
    initial = Initial(path, params, missing, fingerprint(params))
    if config.init.fingerprint not in ("", initial.fingerprint):
        raise InputError(
            f"{path}: its weights are {initial.fingerprint}, init.fingerprint wants {config.init.fingerprint}"
        )
    return initial


def pinned(config, initial: Initial | None):
    """The config with the fingerprint of the weights it starts from, by which a run knows them again."""
    if initial is None:
        return config
    config = config.copy_and_resolve_references()
    config.init.fingerprint = initial.fingerprint
    return config.lock()


def _of_run(path: str) -> tuple[Weights, dict, Path]:
    """(weights by Hugging Face's names, the config's model, the vocabulary's file)"""
    config, _, _, params = restore_run(Path(path))
    params = {name: np.asarray(array) for name, array in flatten_dict(params, sep="/").items()}
    return to_theirs(params), config.model.to_dict(), Path(path) / "vocab.txt"


def _of_files(path: str) -> tuple[Weights, dict | None, Path | None]:
    """As _of_run; None for what is not told there."""
    weights, config, vocabulary = load_weights(path)
    return weights, None if config is None else model_fields(config, path), vocabulary


def shapes_of(config, tokenizer: Tokenizer) -> dict[str, tuple[int, ...]]:
    """Shapes of the parameters of a config's model, by path."""
    spec = model_spec(config, tokenizer.vocab_size, "cpu")  # the platform decides on activations only
    params = jax.eval_shape(lambda: init_params(spec, jax.random.key(0)))
    return {path: leaf.shape for path, leaf in flatten_dict(params, sep="/").items()}


def with_params(state, params: Weights):
    """The train state with the parameters of these paths in place of its own, laid out as those were."""

    def replaced(path, leaf):
        array = params.get(param_path(path))
        return (
            leaf
            if array is None
            else jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda index: array[index])
        )

    return state.replace(params=jax.tree_util.tree_map_with_path(replaced, state.params))

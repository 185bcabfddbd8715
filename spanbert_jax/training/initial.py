"""What a run starts from: its tokenizer, and weights of another run, a Hugging Face folder, the original, or others."""

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from spanbert_jax.data.batches import configured_tokenizer
from spanbert_jax.data.tokenizer import Tokenizer, choose_rules, load_tokenizer
from spanbert_jax.data.tokenizer_files import read_tokens, read_vocabulary
from spanbert_jax.errors import InputError
from spanbert_jax.interop.families import model_fields
from spanbert_jax.interop.names import WORD, Weights, to_theirs
from spanbert_jax.interop.weights import fingerprint, fit_vocabulary, load_weights, to_params, without_other_parts
from spanbert_jax.model.extensions import knobs_of
from spanbert_jax.model.layout import param_path
from spanbert_jax.model.spec import model_spec
from spanbert_jax.objectives.pretraining import init_params, with_heads
from spanbert_jax.training.adapting import longer_positions, other_vocabulary, tiled
from spanbert_jax.training.workdir import newest_step, read_config, restore_run

# Keys of config.model on which the function of an encoder depends. The shapes of its tensors do not show all of them.
ENCODER = (
    *("layers", "width", "heads", "mlp_width", "max_positions", "bias", "feed_forward", "tied_output", "token_types"),
    *("norm", "norm_bias", "norm_eps", "norm_placement", "first_norm", "embedding_norm", "qk_norm"),
    *("positions", "rope_base", "local_rope_base", "attention_pattern", "window", "global_every", "span_length"),
)
# Those that may differ if a knob of config.init is not "same": the knob, and what to give it.
SIZE, POSITIONS = ("size", "tile"), ("positions", "tile or interpolate")
ADAPTED = {
    **dict.fromkeys(("layers", "width", "heads", "mlp_width"), SIZE),
    **dict.fromkeys(("max_positions", "rope_base", "local_rope_base"), POSITIONS),
}


@dataclasses.dataclass(frozen=True)
class Initial:
    """Weights that fit a config."""

    path: str
    params: Weights  # ours, by path, float32; some heads may be missing
    missing: list[str]  # names of the missing heads and extensions
    notes: list[str]  # what was changed to fit, and what was left out, in clauses
    fingerprint: str  # of params

    def summary(self) -> str:
        """Returns a line that describes the weights."""
        notes = list(self.notes)
        if self.missing:
            notes.append(f"heads and extensions that it lacks, which start from scratch: {', '.join(self.missing)}")
        return "; ".join([f"starting from the weights of {self.path}, fingerprint {self.fingerprint[:12]}", *notes])


def read_initial(config, tokenizer: Tokenizer) -> Initial | None:
    """Returns the weights that config.init names, checked against the config and its tokenizer; None if it names none.

    The path is the folder of a pretraining run, whose newest checkpoint is read, or a path that
    interop.weights.load_weights reads. Parts of other tasks are left out, the vocabulary table is fitted, and what
    config.init allows to differ is adapted.

    Raises:
      InputError: the weights cannot be read, are of another model or vocabulary, or have another fingerprint than
        config.init.fingerprint.
    """
    path, init = config.init.path, config.init
    if not path:
        return None
    weights, model, vocabulary = (_of_run if (Path(path) / "checkpoints").is_dir() else _of_files)(path)
    theirs, ours = model or {}, config.model
    adapted = [key for key, (knob, _) in ADAPTED.items() if init[knob] != "same" and key in theirs]
    if (model is None or vocabulary is None) and {init.size, init.vocabulary, init.positions} != {"same"}:
        raise InputError(
            f"{path}: has no config.json or no vocabulary beside; init.size, vocabulary and positions need both"
        )
    check_encoder(path, theirs, ours, adapted)
    weights, others = without_other_parts(weights)
    if "layers" in adapted and theirs.get("extensions"):
        raise InputError(f"{path}: init.size 'tile' enlarges no extensions, and it has {theirs['extensions']}")
    notes = [f"model.{key} is {theirs[key]} there, {ours[key]} here" for key in adapted if theirs[key] != ours[key]]
    if vocabulary is None or init.vocabulary == "same":
        their_tokens = None
        if vocabulary is not None:
            check_tokenizer(config, tokenizer, vocabulary)
            their_tokens = read_tokens(str(vocabulary))
        random = np.random.default_rng(config.seed)
        weights, more = fit_vocabulary(
            weights,
            their_tokens,
            tokenizer.tokens,
            lambda *shape: random.normal(0, ours.init_std, shape).astype(np.float32),
        )
        notes += more
        rows = tokenizer.vocab_size
    else:
        rows = len(weights[WORD]) if WORD in weights else 0  # none: to_params says what is missing
    if others:
        notes.append(f"parts of other tasks, left out: {', '.join(others)}")
    source = config.copy_and_resolve_references()
    source.model.update({key: theirs[key] for key in adapted})
    params, missing = to_params(weights, shapes_of(source, rows), path)
    if init.vocabulary != "same":
        params, note = other_vocabulary(
            params, load_tokenizer(str(vocabulary), "auto"), tokenizer.tokens, init.vocabulary
        )
        notes.append(note)
    if init.positions != "same":
        params = longer_positions(params, ours.max_positions, init.positions)
    if init.size != "same":
        params = tiled(params, shapes_of(config, tokenizer.vocab_size))
    initial = Initial(path, params, missing, notes, fingerprint(params))
    if init.fingerprint not in ("", initial.fingerprint):
        raise InputError(f"{path}: its weights are {initial.fingerprint}, init.fingerprint requires {init.fingerprint}")
    return initial


def check_encoder(path: str, theirs: Mapping[str, Any], ours: Mapping[str, Any], adapted: Collection[str]) -> None:
    """Checks that weights of an encoder are of the one that is to be made of them.

    Args:
      path: of the weights.
      theirs, ours: config.model of both, of theirs as far as it is known.
      adapted: keys that may differ.

    Raises:
      InputError: they are not.
    """
    extensions = theirs.get("extensions", ())
    keys = (*ENCODER, *knobs_of(extensions))
    differing = [key for key in keys if key not in adapted and theirs.get(key, ours[key]) != ours[key]]
    if set(extensions) - set(ours["extensions"]):  # those that ours alone has change nothing at the start
        differing.append("extensions")
    if differing:
        lines = [f"model.{key} is {theirs[key]} there, {ours[key]} in this config" for key in differing]
        advice = {
            f"--config.init.{knob}={value}" for knob, value in (ADAPTED[key] for key in differing if key in ADAPTED)
        }
        adapts = f"; {' and '.join(sorted(advice))} adapts them" if all(key in ADAPTED for key in differing) else ""
        raise InputError(f"{path}: {'; '.join(lines)}{adapts}")


def check_tokenizer(config, tokenizer: Tokenizer, vocabulary: Path) -> None:
    """Checks that a tokenizer gives text the ids that weights with this vocabulary file were trained on.

    Of the two vocabularies, one must begin with the other. The rules for words must be those that the files state,
    unless the config requires other ones.

    Raises:
      InputError: it does not.
    """
    described, data = read_vocabulary(str(vocabulary)), config.data
    advice = f"give --config.data.vocab={vocabulary}"
    others = "or --config.init.vocabulary=subwords to make rows for other tokens"
    if any(one != other for one, other in zip(described.tokens, tokenizer.tokens)):
        raise InputError(
            f"{vocabulary.parent}: its vocabulary is not that of data.vocab {data.vocab}: {advice}, {others}"
        )
    rules, _ = choose_rules(described.tokens, described.rules, described.by, data.lowercase, data.strip_accents)
    if described.rules and rules.settings() != tokenizer.rules.settings():
        raise InputError(
            f"{vocabulary.parent}: its {described.by} says that text is {rules}, and data.vocab {data.vocab} is "
            f"{tokenizer.rules}: {advice}"
        )


def tokenizer_of_run(config, workdir: Path) -> Tokenizer:
    """Returns the tokenizer that a config names, or, if the folder has a run with a checkpoint, the run's.

    A vocabulary that has changed since is returned as it is now, so that it can be refused. The run's rules for words
    are those that were decided when it began, and a vocabulary that is no longer there is not needed.

    Raises:
      InputError: the vocabulary cannot be read.
    """
    own = workdir / "vocab.txt"
    if newest_step(workdir) is None or not own.is_file():
        return configured_tokenizer(config)
    saved = load_tokenizer(str(own), "auto")
    try:
        configured = configured_tokenizer(config)
    except InputError:
        return saved
    return saved if saved.tokens == configured.tokens else configured


def initial_of_run(config, tokenizer: Tokenizer, workdir: Path) -> tuple[Initial | None, ConfigDict]:
    """Returns the weights that a run starts from, None if it needs none, and the config with their fingerprint.

    A run with a checkpoint needs none, so its source may have moved, changed or gone: config.json says what it was.
    Only another path than the run's is read, to refuse other weights.

    Raises:
      InputError: as read_initial does.
    """
    config = config.copy_and_resolve_references()
    if newest_step(workdir) is not None:
        before = read_config(workdir).init
        if config.init.path in ("", before.path):
            config.init.path, config.init.fingerprint = before.path, config.init.fingerprint or before.fingerprint
            return None, config.lock()
    initial = read_initial(config, tokenizer)
    if initial:
        config.init.fingerprint = initial.fingerprint
    return initial, config.lock()


def _of_run(path: str) -> tuple[Weights, dict, Path]:
    """Returns (weights by Hugging Face's names, config.model of the run, path of its vocabulary)."""
    trained = restore_run(Path(path))
    params = {name: np.asarray(array) for name, array in flatten_dict(trained.params, sep="/").items()}
    return to_theirs(params), trained.config.model.to_dict(), Path(path) / "vocab.txt"


def _of_files(path: str) -> tuple[Weights, dict | None, Path | None]:
    """Returns the same as _of_run, with None for what the files do not contain."""
    weights, config, vocabulary = load_weights(path)
    return weights, None if config is None else model_fields(config, path), vocabulary


def shapes_of(config, vocab_size: int) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the parameters of a config's model, by path."""
    spec = model_spec(config, vocab_size, "cpu")  # the platform affects only activations
    params = jax.eval_shape(lambda: init_params(spec, with_heads(config), jax.random.key(0)))
    return {path: leaf.shape for path, leaf in flatten_dict(params, sep="/").items()}


def with_params(state, params: Weights):
    """Returns the train state with its parameters replaced by `params`, given by path, and laid out as they were."""

    def replaced(path, leaf):
        array = params.get(param_path(path))
        if array is None:
            return leaf
        return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda index: array[index])

    return state.replace(params=jax.tree_util.tree_map_with_path(replaced, state.params))

"""Files of the original SpanBERT: flat state dicts with "decoder." names, alone or inside a training checkpoint.

state_dict_of also takes the training checkpoints of other programs.

Source: docs/original.md 7.2 and 7.3.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.errors import InputError
from spanbert_jax.folders import atomic_folder
from spanbert_jax.interop.families.bert import BERT
from spanbert_jax.interop.families.family import no_counterpart
from spanbert_jax.interop.huggingface import model_config, write_tensors
from spanbert_jax.interop.names import Weights, in_original_style, nameable, to_theirs

# Keys of a training checkpoint: of fairseq, Lightning, many programs of their own, and DeepSpeed.
STATE_DICTS = ("model", "state_dict", "model_state_dict", "module")

README = """# {name} in the original SpanBERT's names

`model.safetensors` has every tensor of the original's pretraining state dict under its own name, tied projections
included. The original reads pickles: `torch.save(safetensors.torch.load_file("model.safetensors"), "model.pt")` makes
one. Its vocabulary is `vocab.txt`.
"""


def state_dict_of(tree: Any, source: str) -> Weights:
    """Returns the tensors by name of an object that torch.save wrote.

    Args:
      tree: a flat dict of tensors, or a training checkpoint {"args", "model", ...} that has one under a key of
        STATE_DICTS.
      source: name of the file, for messages.

    Raises:
      InputError: the object is neither.
    """
    if isinstance(tree, dict):
        tree = next((tree[key] for key in STATE_DICTS if isinstance(tree.get(key), dict)), tree)
    if not isinstance(tree, dict) or not tree:
        raise InputError(f"{source}: holds no dict of tensors by name")
    others = [
        str(name) for name, array in tree.items() if not isinstance(name, str) or not isinstance(array, np.ndarray)
    ]
    if others:
        listed = ", ".join(others[:4]) + (", ..." if others[4:] else "")
        raise InputError(f"{source}: not a dict of tensors by name: {listed} are no tensors")
    return dict(tree)


def export_original(folder: Path, params: Weights, config, tokenizer: Tokenizer) -> list[str]:
    """Writes a new folder: model.safetensors with the original's flat names, config.json, the tokenizer and a README.

    Args:
      folder: to make.
      params: ours, by path; written as float32.
      config: the whole config of the run.
      tokenizer: of the run.

    Returns:
      The names of the heads that are left out, since the format has no names for them.

    Raises:
      InputError: the format has no counterpart for the encoder, or the folder exists or cannot be written.
    """
    if other := BERT.differences(config):
        raise no_counterpart("the original", other)
    params, left_out = nameable(params)
    with atomic_folder(folder) as temporary:
        write_tensors(temporary / "model.safetensors", in_original_style(to_theirs(params)))
        settings = model_config(BERT, {path: array.shape for path, array in params.items()}, config, tokenizer)
        (temporary / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        tokenizer.save(temporary)
        (temporary / "README.md").write_text(README.format(name=config.name), encoding="utf-8")
    return left_out

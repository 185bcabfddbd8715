"""The original SpanBERT's files: flat state dicts with "decoder." names, alone or inside a training checkpoint (reference 7.2, 7.3)."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.errors import InputError
from spanbert_jax.folders import new_folder
from spanbert_jax.interop.huggingface import model_config, write_tensors
from spanbert_jax.interop.names import Weights, in_original_style, to_theirs

README = """# {name} in the original SpanBERT's names

`model.safetensors` holds every tensor of the original's pretraining state dict under its own name, tied projections included. The original
reads pickles: `torch.save(safetensors.torch.load_file("model.safetensors"), "model.pt")` makes one. Its vocabulary is `vocab.txt`.
"""


def state_dict_of(tree: Any, source: str) -> Weights:
    """The tensors by name in what torch.save wrote: a flat dict of tensors, or a training checkpoint {"args", "model", ...}.

    Raises:
      InputError: it is neither.
    """
    if isinstance(tree, dict) and isinstance(tree.get("model"), dict):
        tree = tree["model"]
    if not isinstance(tree, dict) or not tree:
        raise InputError(f"{source}: holds no dict of tensors by name")
    others = [
        str(name) for name, array in tree.items() if not isinstance(name, str) or not isinstance(array, np.ndarray)
    ]
    if others:
        raise InputError(
            f"{source}: not a dict of tensors by name: {', '.join(others[:4])}{', ...' if others[4:] else ''} are no tensors"
        )
    return dict(tree)


def export_original(folder: Path, params: Weights, config, tokenizer: Tokenizer) -> None:
    """Writes a new folder: model.safetensors with the original's flat names, float32, beside config.json, the tokenizer and a README.

    Args:
      params: ours, by path.
      config: the whole config of the run.

    Raises:
      InputError: the folder exists, or cannot be written.
    """
    with new_folder(folder) as temporary:
        write_tensors(temporary / "model.safetensors", in_original_style(to_theirs(params)))
        settings = model_config({path: array.shape for path, array in params.items()}, config, tokenizer)
        (temporary / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        tokenizer.save(temporary)
        (temporary / "README.md").write_text(README.format(name=config.name), encoding="utf-8")

"""Weights that transformers' Flax models wrote: flax_model.msgpack, a tree of arrays. Nothing in it is executed."""

from pathlib import Path

import numpy as np
from flax.serialization import msgpack_restore
from flax.traverse_util import flatten_dict

from spanbert_jax.errors import InputError

LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}


def read_flax_file(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors by Hugging Face's names, as PyTorch lays them out.

    Raises:
      InputError: the file is damaged, or holds something other than arrays by name.
    """
    try:
        tree = msgpack_restore(path.read_bytes())
        tree = tree.get("params", tree)
        flat = {tuple(map(str, names)): np.asarray(array) for names, array in flatten_dict(tree).items()}
    except OSError as error:
        raise InputError(f"{path}: cannot read it ({error.strerror or error})") from error
    except Exception as error:  # a damaged file can raise errors of nearly any type
        message = f"{path}: not a complete file of Flax ({type(error).__name__}: {error})"
        raise InputError(message.replace("\n", " ")) from error
    return {
        ".".join((*module, LEAVES.get(leaf, leaf))): array.T if leaf == "kernel" else array
        for (*module, leaf), array in flat.items()
    }

"""Weights that TensorFlow programs wrote: transformers' tf_model.h5, and the checkpoints of Google's BERT.

Names are turned into Hugging Face's, and the matrices of linear maps are transposed, as transformers did when it read
these files. This is the only module of interop that needs TensorFlow.
"""

import re
from pathlib import Path

import numpy as np

from spanbert_jax.errors import InputError

HDF5_HEAD = b"\x89HDF\r\n\x1a\n"  # how an HDF5 file begins
INDEX = ".index"  # suffix of one of the files of a checkpoint
TRAINING = ("adam_m", "adam_v", "AdamWeightDecayOptimizer", "AdamWeightDecayOptimizer_1", "global_step")
EMBEDDINGS = ("word_embeddings", "position_embeddings", "token_type_embeddings")
LEAVES = {"kernel": "weight", "embeddings": "weight", "output_weights": "weight", "output_bias": "bias"}


def read_keras_file(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a tf_model.h5 by Hugging Face's names, as PyTorch lays them out.

    Raises:
      InputError: the file is damaged or has another layout.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            layers = [file[_text(name)] for name in file.attrs["layer_names"]]
            flat = {_text(name): layer[_text(name)][()] for layer in layers for name in layer.attrs["weight_names"]}
    except Exception as error:  # h5py raises errors of many types for damaged files
        message = f"{path}: not a whole tf_model.h5 of transformers ({type(error).__name__}: {error})"
        raise InputError(message.replace("\n", " ")) from error
    return {
        name: array
        for path_in_file, value in flat.items()
        for name, array in [_named(_of_keras(path_in_file).split("/")[1:], value)]  # the first is the model's name
    }


def _text(name: bytes | str) -> str:
    return name.decode("utf-8") if isinstance(name, bytes) else name


def _of_keras(name: str) -> str:
    """Returns "x/cls/encoder/layer/0/kernel" of "x/mlm___cls/encoder/layer_._0/kernel:0"."""
    name = re.sub(r"/[^/]*___", "/", name.removesuffix(":0"))
    return re.sub("/+", "/", name.replace("_._", "/"))


def read_checkpoint(index: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a checkpoint of Google's BERT by Hugging Face's names, as PyTorch lays them out.

    Moments of the optimiser and the number of the step are left out.

    Args:
      index: the file of the checkpoint that ends with INDEX.

    Raises:
      InputError: files are missing or damaged, or it is a checkpoint of another kind.
    """
    import tensorflow as tf

    try:
        reader = tf.train.load_checkpoint(str(index).removesuffix(INDEX))
        names = [name for name in reader.get_variable_to_shape_map() if not set(name.split("/")) & set(TRAINING)]
        if any(name.endswith(".ATTRIBUTES/VARIABLE_VALUE") for name in names):
            raise InputError(
                f"{index}: a checkpoint of TensorFlow objects, whose names are not BERT's; load it in its own program, "
                "and save the weights for transformers or as safetensors"
            )
        flat = {name: reader.get_tensor(name) for name in names}
    except InputError:
        raise
    except Exception as error:  # TensorFlow raises errors of many types
        message = f"{index}: not a whole checkpoint of TensorFlow ({type(error).__name__}: {error})"
        raise InputError(message.replace("\n", " ")) from error
    return dict(_named(re.sub(r"/layer_(\d+)/", r"/layer/\1/", name).split("/"), value) for name, value in flat.items())


def _named(parts: list[str], array: np.ndarray) -> tuple[str, np.ndarray]:
    """Returns (name, array) as in PyTorch of the parts of a name in TensorFlow."""
    *module, leaf = parts
    if leaf in EMBEDDINGS:  # tables without a name of their own
        return ".".join((*module, leaf, "weight")), array
    return ".".join((*module, LEAVES.get(leaf, leaf))), array.T if leaf == "kernel" else array

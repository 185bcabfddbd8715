"""Import of weights: one function reads every kind of file, another converts its names to our parameters.

A tensor that belongs to no parameter is an error, unless it is a known constant or duplicate, which is checked and
dropped, or of a known head that the model lacks.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from spanbert_jax.data.tokenizer_files import VOCABULARY_FILES
from spanbert_jax.errors import InputError
from spanbert_jax.interop import tensorflow_files
from spanbert_jax.interop.families import FAMILIES
from spanbert_jax.interop.flax_file import read_flax_file
from spanbert_jax.interop.huggingface import head_file, read_config
from spanbert_jax.interop.names import (
    LAYER,
    OUTPUT,
    WORD,
    Shapes,
    Weights,
    head_prefixes,
    name_of,
    normalised,
    part_of,
    their_shapes,
    tied_heads,
    to_ours,
)
from spanbert_jax.interop.original import state_dict_of
from spanbert_jax.interop.torch_file import read_torch_file
from spanbert_jax.objectives import OBJECTIVES

INDEX = ".index.json"  # suffix of the index of weights that are stored in several files
WEIGHT_FILES = (  # in a folder, the first one that exists is read
    "model.safetensors",
    f"model.safetensors{INDEX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX}",
    "model.pt",
    "flax_model.msgpack",
    "tf_model.h5",
    f"bert_model.ckpt{tensorflow_files.INDEX}",
)
CONFIG_FILES = ("config.json", "bert_config.json")  # Hugging Face's, Google's
PADDING = 128  # rows that a vocabulary table without a vocabulary may have beyond ours: sizes are rounded up to it

POSITION = "bert.embeddings.position_embeddings.weight"
# Constants that files may contain: name -> function of the size that returns the value.
BUFFERS: dict[str, Callable[[int], np.ndarray]] = {
    "bert.embeddings.position_ids": np.arange,
    "bert.embeddings.token_type_ids": np.zeros,
}
# Config key of a size -> a tensor and its axis. The objectives give those of heads.
SIZES = {
    "the vocabulary (data.vocab)": (WORD, 0),
    "model.width": (WORD, 1),
    "model.max_positions": (POSITION, 0),
    "model.mlp_width": (LAYER.format(0) + ".intermediate.dense.weight", 0),
}


def duplicates() -> dict[str, str]:
    """Returns {name of a tied projection: name of the tensor that it must equal}."""
    heads = tied_heads()
    return {f"{head}.decoder.weight": WORD for head in heads} | {
        f"{head}.decoder.bias": f"{head}.bias" for head in heads
    }


def has_weights(path: Path) -> bool:
    """Returns whether load_weights reads a path: a file, the prefix of a checkpoint, or a folder with WEIGHT_FILES."""
    if path.is_dir():
        return any((path / name).is_file() for name in WEIGHT_FILES)
    return path.is_file() or path.with_name(path.name + tensorflow_files.INDEX).is_file()


class Loaded(NamedTuple):
    """The content of a folder or file of weights."""

    weights: Weights  # by Hugging Face's names of BERT, with the types of the file
    config: dict | None  # its config.json
    vocabulary: Path | None  # its vocab.txt or tokenizer.json


def load_weights(path) -> Loaded:
    """Reads weights from a folder, a file, or an index of several files.

    A folder (of Hugging Face, of Google's BERT, or an export of this project) has one of WEIGHT_FILES, and perhaps
    files of heads. A file is one of safetensors or torch.save, whatever its name (a state dict in any dialect of
    names.normalised, alone or in a training checkpoint); or a .msgpack of Flax, an .h5 of Keras, or a checkpoint of
    TensorFlow, with or without ".index". One of CONFIG_FILES and of VOCABULARY_FILES in the same folder are read too.
    No code in a file is run.

    Raises:
      InputError: there are no weights, or they are damaged or refused.
    """
    path = Path(path)
    index = path.with_name(path.name + tensorflow_files.INDEX)
    path = index if not path.exists() and index.is_file() else path
    folder = path if path.is_dir() else path.parent
    if path.is_dir():
        files = [path / name for name in WEIGHT_FILES if (path / name).is_file()][:1]
        if not files:
            raise InputError(
                f"{path}: no weights there; a folder of them holds {', '.join(WEIGHT_FILES[:-1])} or {WEIGHT_FILES[-1]}"
            )
        files += [file for name in OBJECTIVES if (file := path / head_file(name)).is_file()]
    else:
        files = [path]
    weights: Weights = {}
    for file in files:
        tensors = read_tensors(file)
        for family in FAMILIES:
            tensors = family.common(tensors)
        named = normalised(tensors)
        if len(named) < len(tensors):
            raise InputError(
                f"{file}: has {len(tensors) - len(named)} tensors twice, under different names for the same tensor"
            )
        twice = sorted(weights.keys() & named.keys())
        if twice:
            raise InputError(f"{file}: {twice[0]} is in {files[0].name} too")
        weights |= named
    config, vocabulary = (
        next((folder / name for name in names if (folder / name).is_file()), None)
        for names in (CONFIG_FILES, VOCABULARY_FILES)
    )
    return Loaded(weights, read_config(config) if config else None, vocabulary)


def read_tensors(file: Path) -> Weights:
    """Returns the tensors of one file, or of all files of an index, by their own names; see load_weights."""
    return read_shards(file) if file.name.endswith(INDEX) else read_file(file)


def read_shards(index: Path) -> Weights:
    """Returns the tensors of the files that an index, {"weight_map": {name: file}}, lists.

    Raises:
      InputError: it is not an index, names a file in another folder, or does not agree with the files.
    """
    file_of = read_config(index).get("weight_map")
    if not isinstance(file_of, dict) or not file_of or not all(isinstance(name, str) for name in file_of.values()):
        raise InputError(f"{index}: no index of weights; it must have a weight_map from tensors to files")
    weights: Weights = {}
    names = sorted(set(file_of.values()))
    elsewhere = [name for name in names if name in ("", ".", "..") or set(name) & {"/", "\\", "\0"}]
    if elsewhere:
        raise InputError(f"{index}: names the file {elsewhere[0]!r}; it may only name files beside it")
    for name in names:
        listed = {tensor for tensor, file in file_of.items() if file == name}
        tensors = read_file(index.parent / name)
        for differing, what in ((listed - tensors.keys(), "lacks"), (tensors.keys() - listed, "holds")):
            if differing:
                problem = f"is not the file that {index.name} was made for: it {what} {min(differing)}"
                raise InputError(f"{index.parent / name} {problem}")
        weights |= tensors
    return weights


def read_file(file: Path) -> Weights:
    """Returns the tensors of one file by their own names; see load_weights."""
    try:
        with open(file, "rb") as stream:
            head = stream.read(9)
        if head[8:] != b"{":  # a file of safetensors begins with a number of 8 bytes, then "{"
            if head.startswith(b"\x1f\x8b"):
                raise InputError(f"{file}: a compressed archive; unpack it first")
            if head.startswith(tensorflow_files.HDF5_HEAD):
                return tensorflow_files.read_keras_file(file)
            if file.name.endswith(tensorflow_files.INDEX):
                return tensorflow_files.read_checkpoint(file)
            if file.suffix == ".msgpack":
                return read_flax_file(file)
            if head.startswith((b"PK", b"\x80")):  # a zip archive, or a pickle of protocol 2 or later
                return state_dict_of(read_torch_file(file), str(file))
        return load_file(file)
    except OSError as error:
        raise InputError(f"{file}: cannot read it ({error.strerror or error})") from error
    except SafetensorError as error:
        raise InputError(f"{file}: not a whole file of safetensors ({error})") from error


def to_params(weights: Weights, shapes: Shapes, source: str = "these weights") -> tuple[Weights, list[str]]:
    """Converts weights by Hugging Face's names to our parameters by path, float32.

    Duplicates of tied tensors and constant buffers are checked and dropped; known heads that the model lacks
    are dropped.

    Args:
      weights: of load_weights.
      shapes: of the model's parameters, by path.
      source: what to call the weights in an error.

    Returns:
      The parameters that the weights contain, and the heads ("mlm", "sbo", "nsp") and extensions that they lack.

    Raises:
      InputError: sizes differ, a tensor is missing or unexpected, or a projection that must be tied is not.
    """
    wanted = their_shapes(shapes)
    their_sizes, our_sizes = sizes({name: array.shape for name, array in weights.items()}), sizes(wanted)
    problems = [
        f"{what} is {their_sizes[what]} there, {size} in this model"
        for what, size in our_sizes.items()
        if their_sizes.get(what, size) != size
    ]
    rest, wrong_copies = _without_duplicates(weights)
    problems = problems or wrong_copies
    rest = _without_lone_poolers(rest)
    if not problems:
        rest = {name: array for name, array in rest.items() if name in wanted or not _of_absent_head(name, wanted)}
        params, problems = to_ours(rest, shapes)
    if not problems:
        found = {part_of(path) for path in params} | {"encoder"}  # which is always required
        missing = sorted({part_of(path) for path in shapes} - found)
        absent = [path for path in shapes if path not in params and part_of(path) in found]
        problems = [f"nothing is there for {path}" for path in absent]
    if problems:
        more = f"; and {len(problems) - 4} more" if problems[4:] else ""
        raise InputError(f"{source}: {'; '.join(problems[:4])}{more}")
    return params, missing


def without_other_parts(weights: Weights) -> tuple[Weights, list[str]]:
    """Returns the weights of BERT and of known heads, and the parts that are left out, such as "classifier".

    Weights without BERT's word embeddings are returned whole, so that they are refused as those of another model.
    """
    known = ("bert.", *(prefix for prefixes in head_prefixes().values() for prefix in prefixes), *duplicates())
    kept = {name: array for name, array in weights.items() if name.startswith(known)}
    if WORD not in kept:
        return weights, []
    return kept, sorted({name.rpartition(".")[0] or name for name in weights.keys() - kept.keys()})


def fit_vocabulary(
    weights: Weights, theirs: Sequence[str] | None, ours: Sequence[str], new_rows: Callable[[int, int], np.ndarray]
) -> tuple[Weights, list[str]]:
    """Returns the weights with a row of the vocabulary table and a bias for each of our tokens, and what was changed.

    One of the two vocabularies must begin with the other. Rows beyond a vocabulary are dropped: sizes are padded to
    round numbers, and tokens are added. Tokens of ours that they lack get new rows.

    Args:
      weights: by Hugging Face's names.
      theirs: the vocabulary of the weights; None if it is unknown: then only padding is dropped.
      ours: our vocabulary, of V tokens.
      new_rows: returns float32 [n, D] of n rows of width D.
    """
    rows = len(weights[WORD]) if WORD in weights and weights[WORD].ndim == 2 else len(ours)
    known = rows if theirs is None else min(rows, len(theirs))
    if theirs is None and not 0 <= rows - len(ours) < PADDING:
        return weights, []  # which to_params refuses
    if rows == known == len(ours):
        return weights, []
    kept, number = min(known, len(ours)), len(ours)
    fitted = dict(weights)
    for name in {WORD, OUTPUT, *duplicates(), *(f"{head}.bias" for head in tied_heads())} & weights.keys():
        array = weights[name]
        if len(array) != rows:
            continue  # which to_params reports
        new = np.zeros((number - kept, *array.shape[1:]), np.float32)
        if array.ndim == 2:
            new[:] = new_rows(*new.shape)
        fitted[name] = np.concatenate([array[:kept], new.astype(array.dtype)])
    changes = []
    if rows > kept:
        changes.append(
            f"of the {rows:,} rows of its vocabulary table, {rows - kept:,} behind the first {kept:,} are left out"
        )
    if number > kept:
        changes.append(f"tokens that it lacks, which start from scratch: {number - kept:,}")
    return fitted, changes


def sizes(shapes: Shapes) -> dict[str, int]:
    """Returns {"model.width": 768, ...}: the sizes that tensors of these shapes, by Hugging Face's names, determine."""
    known = SIZES | {
        key: (name, axis)
        for o in OBJECTIVES.values()
        for key, (parameter, axis) in o.sizes_of.items()
        if (name := name_of(f"{o.name}/{parameter}"))
    }
    found = {what: shapes[name][axis] for what, (name, axis) in known.items() if len(shapes.get(name, ())) > axis}
    layers = [int(match[1]) for name in shapes if (match := re.match(r"bert\.encoder\.layer\.(\d+)\.", name))]
    return found | ({"model.layers": max(layers) + 1} if layers else {})


def _of_absent_head(name: str, wanted: Shapes) -> bool:
    """Returns whether a tensor belongs to a head that the model does not have."""
    prefixes = [prefix for of_head in head_prefixes().values() for prefix in of_head]
    return any(name.startswith(prefix) and not any(key.startswith(prefix) for key in wanted) for prefix in prefixes)


def _without_lone_poolers(weights: Weights) -> Weights:
    """Returns the weights without the pooler that transformers gives every encoder, if its head is absent."""
    for prefixes in head_prefixes().values():
        pooler = tuple(prefix for prefix in prefixes if prefix.startswith("bert."))
        head = tuple(prefixes - set(pooler))
        if pooler and not any(name.startswith(head) for name in weights):
            weights = {name: array for name, array in weights.items() if not name.startswith(pooler)}
    return weights


def _without_duplicates(weights: Weights) -> tuple[Weights, list[str]]:
    """Returns the weights without duplicates and BUFFERS, and a problem for each of these with a wrong value."""
    rest, problems = dict(weights), []
    for name, original in duplicates().items():
        if name in rest:
            array = rest.pop(name)
            if original not in rest:
                rest[original] = array
            elif not np.array_equal(array, rest[original]):
                problems.append(f"{name} differs from {original}, to which it must be tied")
    for name, value in BUFFERS.items():
        if name in rest:
            array = rest.pop(name).reshape(-1)
            if not np.array_equal(array, value(array.size)):
                problems.append(f"{name} is not the constant it must be")
    return rest, problems


def fingerprint(params: Weights) -> str:
    """Returns the sha256 (hex) of parameters by path.

    It is the same exactly when paths, types, shapes and values are the same, whatever file they came from.
    """
    digest = hashlib.sha256()
    for path in sorted(params):
        array = np.ascontiguousarray(params[path])
        digest.update(f"{path} {array.dtype} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()

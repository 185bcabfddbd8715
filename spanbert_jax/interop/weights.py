"""Weights in: one entry for every kind of file, then from its names to our parameters. Whatever is left over is known, checked and dropped,
or an error.
"""

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from spanbert_jax.data.tokenizer import VOCABULARY_FILES
from spanbert_jax.errors import InputError
from spanbert_jax.interop.huggingface import SBO_FILE, read_config
from spanbert_jax.interop.names import LAYER, MLM, NSP, POOLER, SBO, Shapes, Weights, normalised, their_shapes, to_ours
from spanbert_jax.interop.original import state_dict_of
from spanbert_jax.interop.torch_file import read_torch_file

INDEX = ".index.json"  # behind the name of a file that is stored in several
WEIGHT_FILES = (
    "model.safetensors",
    f"model.safetensors{INDEX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX}",
    "model.pt",
)  # of a folder, the first that is there

WORD, POSITION = "bert.embeddings.word_embeddings.weight", "bert.embeddings.position_embeddings.weight"
DUPLICATES = {  # of a tensor that is there under its own name
    f"{MLM}.decoder.weight": WORD,
    f"{SBO}.decoder.weight": WORD,
    f"{MLM}.decoder.bias": f"{MLM}.bias",
}
BUFFERS = {
    "bert.embeddings.position_ids": np.arange,
    "bert.embeddings.token_type_ids": np.zeros,
}  # constants: name -> size -> value
HEADS = (f"{MLM}.", f"{SBO}.", f"{POOLER}.", f"{NSP}.")  # dropped when the model has no such head
SIZES = {  # what it is, in the words of the config -> a tensor and its axis
    "the vocabulary (data.vocab)": (WORD, 0),
    "model.width": (WORD, 1),
    "model.max_positions": (POSITION, 0),
    "model.mlp_width": (LAYER.format(0) + ".intermediate.dense.weight", 0),
    "masking.max_targets": (f"{SBO}.position_embeddings.weight", 0),
    "model.sbo_position_width": (f"{SBO}.position_embeddings.weight", 1),
}


class Loaded(NamedTuple):
    """What a folder or file of weights holds."""

    weights: Weights  # by Hugging Face's names, in the types of the file
    config: dict | None  # its config.json
    vocabulary: Path | None  # its vocab.txt or tokenizer.json


def load_weights(path) -> Loaded:
    """Weights of a Hugging Face folder or an export of ours, of a file of safetensors or of torch.save, or of an index of several.

    A folder holds one of WEIGHT_FILES and perhaps SBO_FILE. A file is recognised by what is in it, whatever its name: a state dict in any
    dialect of names.normalised, or a training checkpoint of the original. All may have config.json and vocab.txt (or tokenizer.json) beside
    them. Nothing that is in a file is run.

    Raises:
      InputError: there is nothing to read, or it is damaged or refused.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    if path.is_dir():
        files = [path / name for name in WEIGHT_FILES if (path / name).is_file()][:1]
        if not files:
            raise InputError(
                f"{path}: no weights there; a folder of them holds {', '.join(WEIGHT_FILES[:-1])} or {WEIGHT_FILES[-1]}"
            )
        files += [path / SBO_FILE] if (path / SBO_FILE).is_file() else []
    else:
        files = [path]
    weights = {}
    for file in files:
        tensors = read_tensors(file)
        named = normalised(tensors)
        if len(named) < len(tensors):
            raise InputError(
                f"{file}: holds {len(tensors) - len(named)} tensors twice, under different names for the same one"
            )
        twice = sorted(weights.keys() & named.keys())
        if twice:
            raise InputError(f"{file}: {twice[0]} is in {files[0].name} too")
        weights |= named
    config = folder / "config.json"
    vocabulary = next((folder / name for name in VOCABULARY_FILES if (folder / name).is_file()), None)
    return Loaded(weights, read_config(config) if config.is_file() else None, vocabulary)


def read_tensors(file: Path) -> Weights:
    """The tensors of one file, or of all that an index names, by their own names; see load_weights."""
    return read_shards(file) if file.name.endswith(INDEX) else read_file(file)


def read_shards(index: Path) -> Weights:
    """The tensors of the files beside an index, {"weight_map": {name: file}}, each exactly where the index says.

    Raises:
      InputError: the index is none, names a file elsewhere, or does not agree with the files.
    """
    places = read_config(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise InputError(f"{index}: no index of weights; it must hold a weight_map from tensors to files")
    weights, names = {}, sorted(set(places.values()))
    elsewhere = [name for name in names if name in ("", ".", "..") or set(name) & {"/", "\\", "\0"}]
    if elsewhere:
        raise InputError(f"{index}: names the file {elsewhere[0]!r}; it may only name files beside it")
    for name in names:
        listed = {tensor for tensor, place in places.items() if place == name}
        tensors = read_file(index.parent / name)
        for which, what in (
            (listed - tensors.keys(), "it lacks"),
            (tensors.keys() - listed, "unlike the index says, it holds"),
        ):
            if which:
                raise InputError(
                    f"{index.parent / name} is not the file that {index.name} was made for: {what} {min(which)}"
                )
        weights |= tensors
    return weights


def read_file(file: Path) -> Weights:
    """The tensors of one file by their own names; see load_weights."""
    try:
        with open(file, "rb") as stream:
            head = stream.read(9)
        if head[8:] != b"{":  # with which a file of safetensors begins, after a number
            if head.startswith(b"\x1f\x8b"):
                raise InputError(f"{file}: a compressed archive; unpack it first")
            if head.startswith((b"PK", b"\x80")):  # a zip archive, or a pickle of protocol 2 or later
                return state_dict_of(read_torch_file(file), str(file))
        return load_file(file)
    except OSError as error:
        raise InputError(f"{file}: cannot read it ({error.strerror or error})") from error
    except SafetensorError as error:
        raise InputError(f"{file}: not a whole file of safetensors ({error})") from error


def to_params(weights: Weights, shapes: Shapes, source: str = "these weights") -> tuple[Weights, list[str]]:
    """Weights by Hugging Face's names -> our parameters by path, float32.

    Duplicates of tied tensors and constant buffers are checked and dropped, as are known heads that the model has not.

    Args:
      weights: of load_weights.
      shapes: of the parameters wanted, by path.
      source: what to call the weights in an error.

    Returns:
      The parameters that are there, and the heads ("mlm", "sbo", "nsp") that are not.

    Raises:
      InputError: sizes differ, a tensor is missing or unexpected, or a projection that must be tied is not.
    """
    wanted = their_shapes(shapes)
    there, here = sizes({name: array.shape for name, array in weights.items()}), sizes(wanted)
    problems = [
        f"{what} is {there[what]} there, {here[what]} in this model"
        for what in here
        if there.get(what, here[what]) != here[what]
    ]
    rest, more = _without_duplicates(weights)
    problems = problems or more
    if not any(name.startswith(f"{NSP}.") for name in rest):  # a pooler alone is no head
        rest = {name: array for name, array in rest.items() if not name.startswith(f"{POOLER}.")}
    if not problems:
        rest = {name: array for name, array in rest.items() if name in wanted or not _of_absent_head(name, wanted)}
        params, problems = to_ours(rest, shapes)
    if not problems:
        parts_there = {path.split("/")[0] for path in params} | {"encoder"}  # an encoder there must be
        missing = sorted({path.split("/")[0] for path in shapes} - parts_there)
        problems = [
            f"nothing is there for {path}"
            for path in shapes
            if path not in params and path.split("/")[0] in parts_there
        ]
    if problems:
        raise InputError(
            f"{source}: {'; '.join(problems[:4])}{f'; and {len(problems) - 4} more' if problems[4:] else ''}"
        )
    return params, missing


def sizes(shapes: Shapes) -> dict[str, int]:
    """{"model.width": 768, ...} of tensors of these shapes by Hugging Face's names, as far as they tell; see SIZES."""
    found = {what: shapes[name][axis] for what, (name, axis) in SIZES.items() if len(shapes.get(name, ())) > axis}
    layers = [int(match[1]) for name in shapes if (match := re.match(r"bert\.encoder\.layer\.(\d+)\.", name))]
    return found | ({"model.layers": max(layers) + 1} if layers else {})


def _of_absent_head(name: str, wanted: Shapes) -> bool:
    return any(name.startswith(head) and not any(other.startswith(head) for other in wanted) for head in HEADS)


def _without_duplicates(weights: Weights) -> tuple[Weights, list[str]]:
    """The weights without DUPLICATES and BUFFERS, and those of them that are not what they must be."""
    rest, problems = dict(weights), []
    for name, original in DUPLICATES.items():
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
    """sha256 (hex) of parameters by path: the same exactly when names, shapes and values are, whatever file they came from."""
    digest = hashlib.sha256()
    for path in sorted(params):
        array = np.ascontiguousarray(params[path])
        digest.update(f"{path} {array.dtype} {array.shape}\n".encode())
        digest.update(array)
    return digest.hexdigest()

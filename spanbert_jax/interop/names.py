"""Names of parameters: maps ours to those that Hugging Face's BERT and the original SpanBERT share, and back.

They are the common form of weights of all formats; families/ converts those of other models of Hugging Face to it.

Ours are paths into the parameter tree, with layers stacked on a leading axis. Theirs are PyTorch's: one tensor per
layer, Linear weights [out, in], attention heads flattened. The objectives give the names of heads. The original
(docs/original.md 7.2) adds the prefix "decoder." and calls the parameters of a LayerNorm gamma and beta.
"""

import math
import re
from collections.abc import Iterable, Mapping

import ml_dtypes
import numpy as np

from spanbert_jax.model.extensions import extension_of
from spanbert_jax.objectives import OBJECTIVES

LAYER = "bert.encoder.layer.{}"
STACKED = "encoder/layers/"  # paths of parameters whose first axis is that of layers
WORD = "bert.embeddings.word_embeddings.weight"
OUTPUT = "bert.embeddings.output_embeddings.weight"

# Our path of a module of the encoder, or of a parameter outside modules -> their name. For parts that BERT lacks the
# names are our own, in the same style; they are in no file of another library.
ENCODER = {
    "encoder/embeddings/word": WORD,
    "encoder/embeddings/position": "bert.embeddings.position_embeddings.weight",
    "encoder/embeddings/token_type": "bert.embeddings.token_type_embeddings.weight",
    "encoder/embeddings/norm": "bert.embeddings.LayerNorm",
    "encoder/embeddings/output/table": OUTPUT,
    "encoder/norm": "bert.encoder.LayerNorm",
    "encoder/layers/attention/norm_query": f"{LAYER}.attention.self.query_norm",
    "encoder/layers/attention/norm_key": f"{LAYER}.attention.self.key_norm",
    "encoder/layers/mlp/gate": f"{LAYER}.intermediate.gate",
    "encoder/layers/attention/query": f"{LAYER}.attention.self.query",
    "encoder/layers/attention/key": f"{LAYER}.attention.self.key",
    "encoder/layers/attention/value": f"{LAYER}.attention.self.value",
    "encoder/layers/attention/output": f"{LAYER}.attention.output.dense",
    "encoder/layers/attention/norm": f"{LAYER}.attention.output.LayerNorm",
    "encoder/layers/mlp/hidden": f"{LAYER}.intermediate.dense",
    "encoder/layers/mlp/output": f"{LAYER}.output.dense",
    "encoder/layers/mlp/norm": f"{LAYER}.output.LayerNorm",
}
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}  # parameters of a module
# Parts of names that compilation and distribution in PyTorch add, and attributes that often hold a model.
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
HOLDERS = ("model.", "net.", "backbone.", "encoder.")

Weights = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]


def name_of(path: str) -> str | None:
    """Returns their name of our parameter, with {} for the number of the layer; None if they have no name for it."""
    names = ENCODER | {f"{o.name}/{ours}": theirs for o in OBJECTIVES.values() for ours, theirs in o.exported.items()}
    if path in names:
        return names[path]
    module, _, leaf = path.rpartition("/")
    if path.startswith("encoder/") and extension_of(path):
        return _name_in_extension(module, LEAVES.get(leaf, leaf))
    return f"{names[module]}.{LEAVES[leaf]}" if module in names and leaf in LEAVES else None


def _name_in_extension(module: str, leaf: str) -> str:
    """Returns the name of a parameter of an extension; they are our own, as those of other parts that BERT lacks."""
    stacked = module.startswith(STACKED)
    prefix = LAYER if stacked else "bert"
    inner = module.removeprefix(STACKED if stacked else "encoder/")
    return ".".join((prefix, *inner.split("/"), leaf))


def part_of(path: str) -> str:
    """Returns the extension or head that a parameter belongs to, or "encoder"."""
    return extension_of(path) or path.split("/")[0]


def nameable(params: Weights) -> tuple[Weights, list[str]]:
    """Returns the parameters that have names here, and the heads that have none."""
    named = {path: array for path, array in params.items() if name_of(path) is not None}
    return named, sorted({path.split("/")[0] for path in params} - {path.split("/")[0] for path in named})


def head_prefixes() -> dict[str, set[str]]:
    """Returns the prefixes of their names, such as "cls.predictions.", of each objective's head."""
    return {
        o.name: {".".join(name.split(".")[:2]) + "." for name in o.exported.values()}
        for o in OBJECTIVES.values()
        if o.exported
    }


def tied_heads() -> list[str]:
    """Returns the names, without leaf, of the heads with a vocabulary bias, which are tied to the word embeddings."""
    return [o.exported["bias"].removesuffix(".bias") for o in OBJECTIVES.values() if "bias" in o.exported]


def to_theirs(params: Weights) -> Weights:
    """Converts parameters by our paths, as exportable returns them, to tensors by their names."""
    theirs = {}
    for path, array in params.items():
        shape = _their_shape(path, array.shape)
        for name, layer in zip(_names(path, array.shape), array if _is_stacked(path) else [array]):
            layer = layer.reshape(shape[::-1]).T if path.endswith("/kernel") else layer.reshape(shape)
            theirs[name] = np.ascontiguousarray(layer)
    return theirs


def module_tensors(params: Weights, names: Mapping[str, str]) -> Weights:
    """Returns tensors by their names of parameters of modules by our paths, such as those of the head of a task.

    Args:
      params: ours, by path.
      names: our path of a module -> their name.
    """
    theirs = {}
    for path, array in params.items():
        module, _, leaf = path.rpartition("/")
        tensor = array.T if leaf == "kernel" else array
        theirs[f"{names[module]}.{LEAVES[leaf]}"] = np.ascontiguousarray(tensor)
    return theirs


def their_shapes(shapes: Shapes) -> Shapes:
    """Returns the shapes that to_theirs makes of parameters of these shapes, without those that have no names."""
    return {name: _their_shape(path, shape) for path, shape in shapes.items() for name in _names(path, shape)}


def _is_stacked(path: str) -> bool:
    return "{}" in (name_of(path) or "")


def _names(path: str, shape: tuple[int, ...]) -> list[str]:
    """Returns their names of our parameter: one per layer if it is stacked, none if they have no name for it."""
    name = name_of(path)
    if name is None:
        return []
    return [name.format(number) for number in range(shape[0])] if "{}" in name else [name]


def _inputs(path: str) -> int:
    """Returns how many leading axes of a kernel are summed over: two (H, K) for the attention's output, else one."""
    return 2 if path.endswith("attention/output/kernel") else 1


def _their_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of one of their tensors, for our parameter of this shape (stacked on layers or not)."""
    shape = shape[1:] if _is_stacked(path) else shape
    if path.endswith("/kernel"):
        return math.prod(shape[_inputs(path) :]), math.prod(shape[: _inputs(path)])
    return (math.prod(shape),) if path.endswith("/bias") else tuple(shape)


def to_ours(theirs: Weights, shapes: Shapes) -> tuple[Weights, list[str]]:
    """Converts tensors by their names to our parameters by path.

    Args:
      theirs: in Hugging Face's naming; see normalised.
      shapes: of our parameters, by path.

    Returns:
      The parameters that `theirs` contains, float32, and the problems, one line each: tensors of a wrong shape or type,
      and tensors that belong to no parameter. A parameter that `theirs` lacks is left out; a parameter of which it
      lacks some layers is a problem.
    """
    params: Weights = {}
    problems: list[str] = []
    used: set[str] = set()
    for path, shape in shapes.items():
        names, wanted = _names(path, shape), _their_shape(path, shape)
        found = [name for name in names if name in theirs]
        used.update(found)
        if not found:
            continue
        problems += [f"{name} is missing" for name in names if name not in theirs]
        problems += [
            f"{name} has shape {theirs[name].shape}, the model needs {wanted}"
            for name in found
            if theirs[name].shape != wanted
        ]
        problems += [
            f"{name} holds {theirs[name].dtype}, not floats" for name in found if not is_floating(theirs[name])
        ]
        if not problems:
            params[path] = np.empty(shape, np.float32)
            for layer, name in zip(params[path] if _is_stacked(path) else [params[path]], names):
                layer[...] = (theirs[name].T if path.endswith("/kernel") else theirs[name]).reshape(layer.shape)
    problems += [f"{name} belongs to no parameter of the model" for name in theirs if name not in used]
    return params, problems


def is_floating(array: np.ndarray) -> bool:
    """Returns whether an array has a float type, including bfloat16, which numpy itself does not know."""
    return np.issubdtype(array.dtype, np.floating) or array.dtype == ml_dtypes.bfloat16


def normalised(theirs: Weights) -> Weights:
    """Returns tensors with names in Hugging Face's style, from any dialect.

    Dialects are the original's ("decoder.", gamma and beta), that of an encoder without the prefix "bert.", and those
    of models inside others: the names of WRAPPERS are dropped, and that of the attribute that holds the model.
    """
    dialect = {"gamma": "weight", "beta": "bias"}
    inner = without_wrappers(theirs)
    holder = _holder(inner.values())
    result = {}
    for name, array in theirs.items():
        name = inner[name].removeprefix(holder).removeprefix("decoder.")
        module, dot, leaf = name.rpartition(".")
        name = module + dot + dialect.get(leaf, leaf)
        if name.startswith(("embeddings.", "encoder.", "pooler.")):
            name = f"bert.{name}"
        result[name] = array
    return result


def without_wrappers(names: Iterable[str]) -> dict[str, str]:
    """Returns {name: the same without the parts in WRAPPERS}."""
    return {name: ".".join(part for part in name.split(".") if part not in WRAPPERS) for name in names}


def _holder(names: Iterable[str]) -> str:
    """Returns the prefix of the attribute that holds the model, as in "model.bert.embeddings..."; "" if there is none.

    An encoder without "bert." is known by HOLDERS alone: "roberta.embeddings..." is another model.
    """
    for name in names:
        match = re.fullmatch(r"((?:.*?\.)??)(bert\.)?embeddings\.word_embeddings\.weight", name)
        if match and (match[2] or match[1] in HOLDERS):
            return match[1]
    return ""


def in_original_style(theirs: Weights) -> Weights:
    """Returns tensors by the original's names: with "decoder.", gamma and beta, and the tied projections included."""
    result = {}
    for name, array in theirs.items():
        module, _, leaf = name.rpartition(".")
        if "LayerNorm" in module or "layer_norm" in module.rpartition(".")[2]:
            leaf = {"weight": "gamma", "bias": "beta"}[leaf]
        result[f"decoder.{module}.{leaf}"] = array
    for head in tied_heads():
        if f"decoder.{head}.bias" in result:
            result[f"decoder.{head}.decoder.weight"] = result[f"decoder.{WORD}"]
    return result

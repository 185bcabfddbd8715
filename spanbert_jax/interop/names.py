"""The one table of parameter names: ours beside those that Hugging Face's BERT and the original SpanBERT share. Read in both directions.

Ours are paths into the parameter tree, layers stacked on a leading axis. Theirs are PyTorch's: one tensor a layer, Linear weights
[out, in], attention heads flattened. The original (reference 7.2) prefixes "decoder." and calls a LayerNorm's pair gamma and beta.
"""

import math

import ml_dtypes
import numpy as np

MLM, SBO, NSP, POOLER = "cls.predictions", "cls.pair_target_predictions", "cls.seq_relationship", "bert.pooler"
LAYER = "bert.encoder.layer.{}"

# Module by module: a module of ours -> a module of theirs. What is in it follows from its kind.
LINEAR = {
    "encoder/layers/attention/query": f"{LAYER}.attention.self.query",
    "encoder/layers/attention/key": f"{LAYER}.attention.self.key",
    "encoder/layers/attention/value": f"{LAYER}.attention.self.value",
    "encoder/layers/attention/output": f"{LAYER}.attention.output.dense",
    "encoder/layers/mlp/hidden": f"{LAYER}.intermediate.dense",
    "encoder/layers/mlp/output": f"{LAYER}.output.dense",
    "mlm/transform": f"{MLM}.transform.dense",
    "sbo/linear1": f"{SBO}.mlp_layer_norm.linear1",
    "sbo/linear2": f"{SBO}.mlp_layer_norm.linear2",
    "nsp/pooler": f"{POOLER}.dense",
    "nsp/output": NSP,
}
NORM = {
    "encoder/embeddings/norm": "bert.embeddings.LayerNorm",
    "encoder/layers/attention/norm": f"{LAYER}.attention.output.LayerNorm",
    "encoder/layers/mlp/norm": f"{LAYER}.output.LayerNorm",
    "mlm/norm": f"{MLM}.transform.LayerNorm",
    "sbo/norm1": f"{SBO}.mlp_layer_norm.layer_norm1",
    "sbo/norm2": f"{SBO}.mlp_layer_norm.layer_norm2",
}
TABLE = {
    "encoder/embeddings/word": "bert.embeddings.word_embeddings.weight",
    "encoder/embeddings/position": "bert.embeddings.position_embeddings.weight",
    "encoder/embeddings/token_type": "bert.embeddings.token_type_embeddings.weight",
    "mlm/bias": f"{MLM}.bias",
    "sbo/bias": f"{SBO}.bias",
    "sbo/positions": f"{SBO}.position_embeddings.weight",
}
TABLE |= {
    f"{ours}/{leaf}": f"{theirs}.{name}"
    for ours, theirs in LINEAR.items()
    for leaf, name in (("kernel", "weight"), ("bias", "bias"))
}
TABLE |= {
    f"{ours}/{leaf}": f"{theirs}.{name}"
    for ours, theirs in NORM.items()
    for leaf, name in (("scale", "weight"), ("bias", "bias"))
}

Weights = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]


def to_theirs(params: Weights) -> Weights:
    """Parameters by path of ours -> tensors by name of theirs."""
    theirs = {}
    for path, array in params.items():
        shape = _their_shape(path, array.shape)
        for name, part in zip(_names(path, array.shape), array if "{}" in TABLE[path] else [array]):
            theirs[name] = np.ascontiguousarray(
                part.reshape(shape[::-1]).T if path.endswith("/kernel") else part.reshape(shape)
            )
    return theirs


def their_shapes(shapes: Shapes) -> Shapes:
    """What to_theirs makes of parameters of these shapes."""
    return {name: _their_shape(path, shape) for path, shape in shapes.items() for name in _names(path, shape)}


def _names(path: str, shape: tuple[int, ...]) -> list[str]:
    """Names of theirs that a parameter of ours is made of, layer by layer if it is stacked."""
    name = TABLE[path]
    return [name.format(number) for number in range(shape[0])] if "{}" in name else [name]


def _inputs(path: str) -> int:
    """Leading axes of a kernel that are summed over: H and K of the attention's output, else one."""
    return 2 if path.endswith("attention/output/kernel") else 1


def _their_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of one tensor of theirs, for a parameter of ours of this shape (stacked on layers or not)."""
    shape = shape[1:] if "{}" in TABLE[path] else shape
    if path.endswith("/kernel"):
        return math.prod(shape[_inputs(path) :]), math.prod(shape[: _inputs(path)])
    return (math.prod(shape),) if path.endswith("/bias") else tuple(shape)


def to_ours(theirs: Weights, shapes: Shapes) -> tuple[Weights, list[str]]:
    """Tensors by name of theirs -> parameters by path of ours, of the shapes wanted.

    Args:
      theirs: in Hugging Face's naming; see normalised.
      shapes: of our parameters, by path.

    Returns:
      The parameters that theirs has, float32, and the problems: tensors of a wrong shape or type and ones that no parameter wants, one line
      each. A parameter of which theirs has nothing is left out; one of which it has some layers only is a problem.
    """
    params, problems, used = {}, [], set()
    for path, shape in shapes.items():
        names, wanted = _names(path, shape), _their_shape(path, shape)
        here = [name for name in names if name in theirs]
        used.update(here)
        if not here:
            continue
        problems += [f"{name} is missing" for name in names if name not in theirs]
        problems += [
            f"{name} has shape {theirs[name].shape}, the model wants {wanted}"
            for name in here
            if theirs[name].shape != wanted
        ]
        problems += [f"{name} holds {theirs[name].dtype}, not floats" for name in here if not is_floating(theirs[name])]
        if not problems:
            params[path] = np.empty(shape, np.float32)
            for part, name in zip(params[path] if "{}" in TABLE[path] else [params[path]], names):
                part[...] = (theirs[name].T if path.endswith("/kernel") else theirs[name]).reshape(part.shape)
    problems += [f"{name} belongs to no parameter of the model" for name in theirs if name not in used]
    return params, problems


def is_floating(array: np.ndarray) -> bool:
    """Whether an array holds real numbers of any width; bfloat16 counts, which numpy itself does not know."""
    return np.issubdtype(array.dtype, np.floating) or array.dtype == ml_dtypes.bfloat16


def normalised(theirs: Weights) -> Weights:
    """Names in Hugging Face's style, from any dialect: the original's "decoder." and gamma/beta, an encoder without "bert."."""
    dialect = {"gamma": "weight", "beta": "bias"}
    result = {}
    for name, array in theirs.items():
        name = name.removeprefix("decoder.")
        module, dot, leaf = name.rpartition(".")
        name = module + dot + dialect.get(leaf, leaf)
        if name.startswith(("embeddings.", "encoder.", "pooler.")):
            name = f"bert.{name}"
        result[name] = array
    return result


def in_original_style(theirs: Weights) -> Weights:
    """Hugging Face's names as the original writes them: "decoder.", gamma and beta, and the tied projections by name."""
    result = {}
    for name, array in theirs.items():
        module, _, leaf = name.rpartition(".")
        if "LayerNorm" in module or "layer_norm" in module.rpartition(".")[2]:
            leaf = {"weight": "gamma", "bias": "beta"}[leaf]
        result[f"decoder.{module}.{leaf}"] = array
    for head in (MLM, SBO):
        if f"decoder.{head}.bias" in result:
            result[f"decoder.{head}.decoder.weight"] = result["decoder.bert.embeddings.word_embeddings.weight"]
    return result

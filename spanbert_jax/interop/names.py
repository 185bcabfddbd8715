"""The one table of parameter names: ours beside those that Hugging Face's BERT and the original SpanBERT share. Read in both directions.

Ours are paths into the parameter tree, layers stacked on a leading axis. Theirs are PyTorch's: one tensor a layer, Linear weights
[out, in], attention heads flattened. The original (reference 7.2) prefixes "decoder." and calls a LayerNorm's pair gamma and beta.
"""

import numpy as np

MLM, SBO = "cls.predictions", "cls.pair_target_predictions"
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
TABLE |= {f"{ours}/{leaf}": f"{theirs}.{name}" for ours, theirs in LINEAR.items() for leaf, name in (("kernel", "weight"), ("bias", "bias"))}
TABLE |= {f"{ours}/{leaf}": f"{theirs}.{name}" for ours, theirs in NORM.items() for leaf, name in (("scale", "weight"), ("bias", "bias"))}

Weights = dict[str, np.ndarray]


def to_theirs(params: Weights) -> Weights:
    """Parameters by path of ours -> tensors by name of theirs."""
    theirs = {}
    for path, array in params.items():
        name = TABLE[path]
        stacked = "{}" in name
        for number, part in enumerate(array if stacked else [array]):
            theirs[name.format(number)] = _to_theirs(path, part)
    return theirs


def _to_theirs(path: str, part: np.ndarray) -> np.ndarray:
    if path.endswith("/kernel"):
        inputs = part.shape[0] if not path.endswith("attention/output/kernel") else part.shape[0] * part.shape[1]
        return np.ascontiguousarray(part.reshape(inputs, -1).T)
    return part.reshape(-1) if path.endswith("/bias") else part


def to_ours(theirs: Weights, shapes: dict[str, tuple[int, ...]]) -> tuple[Weights, list[str]]:
    """Tensors by name of theirs -> parameters by path of ours, of the shapes wanted.

    Args:
      theirs: in Hugging Face's naming; see normalised.
      shapes: of our parameters, by path.

    Returns:
      The parameters that theirs has, and the problems: tensors of a wrong shape and ones that no parameter wants, one line each. A parameter
      of which theirs has nothing is left out; one of which it has some layers only is a problem.
    """
    params, problems, used = {}, [], set()
    for path, shape in shapes.items():
        name = TABLE[path]
        stacked = "{}" in name
        names = [name.format(number) for number in range(shape[0])] if stacked else [name]
        here = [name for name in names if name in theirs]
        used.update(here)
        if not here:
            continue
        problems += [f"{name} is missing" for name in names if name not in theirs]
        wanted = shape[1:] if stacked else shape
        laid_out = _to_theirs(path, np.broadcast_to(np.float32(0), wanted)).shape
        problems += [f"{name} has shape {tuple(theirs[name].shape)}, the model wants {laid_out}" for name in here if theirs[name].shape != laid_out]
        if not problems:
            parts = [(theirs[name].T if path.endswith("/kernel") else theirs[name]).reshape(wanted) for name in names]
            params[path] = np.stack(parts) if stacked else np.array(parts[0])
    problems += [f"{name} belongs to no parameter of the model" for name in theirs if name not in used]
    return params, problems


def normalised(theirs: Weights) -> Weights:
    """Names in Hugging Face's style, whatever dialect they come in: the original's "decoder." and gamma/beta, an encoder without "bert."."""
    dialect = {"gamma": "weight", "beta": "bias"}
    result = {}
    for name, array in theirs.items():
        name = name.removeprefix("decoder.")
        module, _, leaf = name.rpartition(".")
        name = f"{module}.{dialect.get(leaf, leaf)}"
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

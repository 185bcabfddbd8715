"""ModernBERT (Warner et al. 2024): pre-norm, rotary positions, gated feed-forward, local attention.

Its tensors join what the common form keeps apart: Wqkv has the rows of query, key and value, Wi those of the hidden
and the gate map. Its first layer has no norm before the attention; here such a norm is kept at 1, unused.
"""

import re

import numpy as np

from spanbert_jax.interop.families.family import Family, missing_sizes, unlike
from spanbert_jax.interop.names import LAYER, OUTPUT, WORD, Weights, without_wrappers

# Key of config.model -> key of config.json, and its default where a file may leave it out.
MODEL_KEYS = {
    "layers": ("num_hidden_layers", None),
    "width": ("hidden_size", None),
    "heads": ("num_attention_heads", None),
    "mlp_width": ("intermediate_size", None),
    "max_positions": ("max_position_embeddings", 8192),
    "dropout": ("embedding_dropout", 0.0),
    "attention_dropout": ("attention_dropout", 0.0),
    "init_std": ("initializer_range", 0.02),
    "norm_eps": ("norm_eps", 1e-5),
    "norm_bias": ("norm_bias", False),
    "bias": ("attention_bias", False),
    "tied_output": ("tie_word_embeddings", True),
    "window": ("local_attention", 128),
}
# The values of config.model that make an encoder ModernBERT's, besides those that its config.json can express.
PARTS = {
    "norm": "layer",
    "norm_placement": "pre",
    "first_norm": False,
    "embedding_norm": True,
    "qk_norm": False,
    "positions": "rotary",
    "token_types": False,
    "extensions": (),
}
ACTIVATIONS = {"geglu": "gelu", "swiglu": "silu"}  # model.feed_forward -> hidden_activation
PATTERNS = ("global", "local")  # of model.attention_pattern
FULL, SLIDING = "full_attention", "sliding_attention"
# Kind of layer -> key of config.model with the base of its rotary positions, its default, and the key of old files.
ROPE = {FULL: ("rope_base", 160_000.0, "global_rope_theta"), SLIDING: ("local_rope_base", 10_000.0, "local_rope_theta")}

# Common form, without leaf -> ours. Those with several are joined, in this order, along the outputs.
MODULES = {
    "bert.embeddings.LayerNorm": "model.embeddings.norm",
    "bert.encoder.LayerNorm": "model.final_norm",
    "cls.predictions.transform.dense": "head.dense",
    "cls.predictions.transform.LayerNorm": "head.norm",
}
OF_LAYER = {
    "attn.Wqkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attn.Wo": ("attention.output.dense",),
    "attn_norm": ("attention.output.LayerNorm",),
    "mlp.Wi": ("intermediate.dense", "intermediate.gate"),
    "mlp.Wo": ("output.dense",),
    "mlp_norm": ("output.LayerNorm",),
}
TENSORS = {
    WORD: "model.embeddings.tok_embeddings.weight",
    OUTPUT: "decoder.weight",
    "cls.predictions.bias": "decoder.bias",
}
TOKENS = "embeddings.tok_embeddings.weight"  # by which files of this family are known, behind any prefix
TIED = "cls.predictions.decoder.weight"  # common name of a projection that is tied to the word embeddings


def differences(config) -> list[str]:
    """Returns the settings of a config's encoder that ModernBERT lacks, one text each."""
    found = unlike(config, PARTS)
    for key, known in (("feed_forward", ACTIVATIONS), ("attention_pattern", PATTERNS)):
        if config.model[key] not in known:
            found.append(f"model.{key} is {config.model[key]!r}")
    return found


def tensors(common: Weights) -> Weights:
    """Converts tensors in the common form; those of no part of ModernBERT keep their names."""
    result, layers = {}, {}
    modules = {f"{ours}.{leaf}": f"{theirs}.{leaf}" for ours, theirs in MODULES.items() for leaf in ("weight", "bias")}
    pattern = re.compile(LAYER.replace(".", r"\.").format(r"(\d+)") + r"\.(.+)\.(weight|bias)")
    for name, array in common.items():
        if match := pattern.fullmatch(name):
            layers[match[1], match[2], match[3]] = array
        else:
            result[TENSORS.get(name, modules.get(name, name))] = array
    for number, _, leaf in {(number, "", leaf): None for number, _, leaf in layers}:
        for module, parts in OF_LAYER.items():
            joined = [layers[number, part, leaf] for part in parts if (number, part, leaf) in layers]
            if joined and not (number == "0" and module == "attn_norm"):
                result[f"model.layers.{number}.{module}.{leaf}"] = np.concatenate(joined)
    return result


def common(weights: Weights) -> Weights:
    """Converts tensors of ModernBERT under any prefix to the common form; those of other families are returned as is.

    The bias of a head that has none is 0, the norm that the first layer lacks is 1.
    """
    inner = {inner: weights[name] for name, inner in without_wrappers(weights).items()}
    word = next((name for name in inner if name.endswith(TOKENS)), None)
    if word is None or len(inner) < len(weights):
        return weights
    encoder = word.removesuffix(TOKENS)  # prefix of its names: "", "model.", "backbone.", "backbone.model."
    model = encoder.removesuffix("model.")  # prefix of the names of encoder and heads
    modules = {f"{theirs}.{leaf}": f"{ours}.{leaf}" for ours, theirs in MODULES.items() for leaf in ("weight", "bias")}
    single = {theirs: ours for ours, theirs in TENSORS.items()} | modules
    result: Weights = {}
    for name, array in inner.items():
        of_encoder = name.startswith(encoder)
        name = f"model.{name.removeprefix(encoder)}" if of_encoder else name.removeprefix(model)
        match = re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
        if match and match[2] in OF_LAYER:
            parts = OF_LAYER[match[2]]
            shares = np.split(array, len(parts)) if array.ndim and array.shape[0] % len(parts) == 0 else [array]
            result |= {f"{LAYER.format(match[1])}.{part}.{match[3]}": share for part, share in zip(parts, shares)}
        else:
            result[single.get(name, name)] = array
    if OUTPUT in result and np.array_equal(result[OUTPUT], result[WORD]):
        result[TIED] = result.pop(OUTPUT)
    width = result[WORD].shape[-1:]
    norm = f"{LAYER.format(0)}.attention.output.LayerNorm"
    result.setdefault(f"{norm}.weight", np.ones(width, np.float32))
    if f"{LAYER.format(0)}.output.LayerNorm.bias" in result:
        result.setdefault(f"{norm}.bias", np.zeros(width, np.float32))
    if "cls.predictions.transform.dense.weight" in result:
        result.setdefault("cls.predictions.transform.dense.bias", np.zeros(width, np.float32))
        result.setdefault("cls.predictions.bias", np.zeros(result[WORD].shape[:1], np.float32))
    return result


def settings(config) -> dict:
    """Returns the keys of config.json that describe a config's encoder."""
    model = config.model
    every = model.global_every if model.attention_pattern == "local" else 1
    values = {theirs: model[ours] for ours, (theirs, _) in MODEL_KEYS.items()}
    return values | {
        "model_type": "modernbert",
        "hidden_activation": ACTIVATIONS[model.feed_forward],
        "mlp_bias": model.bias,
        "mlp_dropout": model.dropout,
        "classifier_bias": True,
        "classifier_activation": "gelu",
        "decoder_bias": True,
        "layer_types": [SLIDING if number % every else FULL for number in range(model.layers)],
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": float(model[key])} for kind, (key, _, _) in ROPE.items()
        },
    }


def fields(hf_config: dict) -> tuple[dict, list[str]]:
    """Returns the keys of config.model that a config.json determines, and what is wrong with it.

    Files of before transformers 5 have global_attn_every_n_layers instead of layer_types, and global_rope_theta and
    local_rope_theta instead of rope_parameters.
    """
    problems = missing_sizes(hf_config, [theirs for theirs, default in MODEL_KEYS.values() if default is None])
    model = PARTS | {ours: hf_config.get(theirs, default) for ours, (theirs, default) in MODEL_KEYS.items()}
    activation = hf_config.get("hidden_activation", "gelu")
    if activation not in ACTIVATIONS.values():
        problems.append(f"hidden_activation is {activation!r}, must be one of {', '.join(ACTIVATIONS.values())}")
    model["feed_forward"] = next((ours for ours, theirs in ACTIVATIONS.items() if theirs == activation), "geglu")
    for key, value in (("mlp_bias", model["bias"]), ("classifier_activation", "gelu")):
        if hf_config.get(key, value) != value:
            problems.append(f"{key} is {hf_config[key]!r}, must be {value!r}")
    every = hf_config.get("global_attn_every_n_layers", 3)
    kinds = hf_config.get("layer_types")
    if kinds is not None:
        every = next((number for number, kind in enumerate(kinds) if number and kind == FULL), max(len(kinds), 2))
        if kinds != [SLIDING if number % every else FULL for number in range(hf_config.get("num_hidden_layers", 0))]:
            problems.append("layer_types must be full_attention in the first layer and every n-th one from it on")
    model |= {"attention_pattern": "global"} if every == 1 else {"attention_pattern": "local", "global_every": every}
    for kind, (key, default, old) in ROPE.items():
        rope = (hf_config.get("rope_parameters") or {}).get(kind) or {}
        if rope.get("rope_type", "default") != "default":
            problems.append(f"rope_type of {kind} is {rope['rope_type']!r}, must be 'default'")
        model[key] = float(rope.get("rope_theta", hf_config.get(old) or default))
    return model, problems


MODERNBERT = Family(
    title="ModernBERT",
    model_type="modernbert",
    classes={"BertModel": "ModernBertModel", "BertForMaskedLM": "ModernBertForMaskedLM"},
    inputs=("input_ids", "attention_mask"),
    has_pooler=False,
    differences=differences,
    tensors=tensors,
    common=common,
    settings=settings,
    fields=fields,
)

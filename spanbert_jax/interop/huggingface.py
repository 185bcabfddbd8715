"""Hugging Face's folders: written so that transformers' Auto classes load them as they are, and their config.json read."""

import json
from pathlib import Path

from safetensors.numpy import save_file

from spanbert_jax.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from spanbert_jax.errors import InputError
from spanbert_jax.folders import new_folder
from spanbert_jax.interop.names import SBO, Shapes, Weights, to_theirs

SBO_FILE = "sbo_head.safetensors"
# config.model's keys -> theirs, with what theirs means when a config.json of BERT leaves it out.
MODEL_KEYS = {
    "layers": ("num_hidden_layers", None),
    "width": ("hidden_size", None),
    "heads": ("num_attention_heads", None),
    "mlp_width": ("intermediate_size", None),
    "max_positions": ("max_position_embeddings", 512),
    "dropout": ("hidden_dropout_prob", 0.1),
    "attention_dropout": ("attention_probs_dropout_prob", 0.1),
    "init_std": ("initializer_range", 0.02),
    "norm_eps": ("layer_norm_eps", 1e-12),
}
# What a model of another kind says of itself, and what ours is.
KIND = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False}

USE = """```python
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")                        # {casing}
encoder = AutoModel.from_pretrained("THIS_FOLDER"{pooler}
model = AutoModelForMaskedLM.from_pretrained("THIS_FOLDER")
```
"""
POOLER = {
    False: ", add_pooling_layer=False)     # no pooler was trained",
    True: ")                              # its pooler was trained for next sentence prediction",
}
SBO_USE = """
`sbo_head.safetensors` is the span boundary head, which transformers has no class for. With the hidden states x, y of the tokens
{boundaries} a span and the embedding p of a place k in it (`position_embeddings`, from 0): `linear1(concat(x, y, p))`, GeLU,
`layer_norm1`, `linear2`, GeLU, `layer_norm2`, then the product with the word embeddings plus `bias` scores what stands at place k.
"""
BOUNDARIES = {"external": "just before and just after", "internal": "that are first and last of"}  # masking.boundaries


def export_huggingface(folder: Path, params: Weights, config, tokenizer: Tokenizer, card: str) -> None:
    """Writes a new folder that AutoModel, AutoModelForMaskedLM and AutoTokenizer load, with the SBO head in a file beside the model.

    Args:
      params: ours, by path; written as float32.
      config: the whole config of the run.
      card: text of README.md.

    Raises:
      InputError: the folder exists, or cannot be written.
    """
    theirs = to_theirs(params)
    files = {
        "model.safetensors": {name: array for name, array in theirs.items() if not name.startswith(SBO)},
        SBO_FILE: {name: array for name, array in theirs.items() if name.startswith(SBO)},
    }
    with new_folder(folder) as temporary:
        for name, tensors in files.items():
            if tensors:
                write_tensors(temporary / name, tensors)
        write_description(temporary, {path: array.shape for path, array in params.items()}, config, tokenizer)
        (temporary / "README.md").write_text(card, encoding="utf-8")


def write_description(folder: Path, shapes: Shapes, config, tokenizer: Tokenizer) -> None:
    """Writes config.json of a model with parameters of these shapes, and the tokenizer with all that AutoTokenizer reads."""
    texts = {
        "config.json": model_config(shapes, config, tokenizer),
        "tokenizer_config.json": tokenizer_config(config, tokenizer),
        "special_tokens_map.json": special_tokens(),
    }
    for name, content in texts.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    tokenizer.save(folder)


def write_tensors(path: Path, tensors: Weights) -> None:
    """A new file of safetensors, as readable as any other new file: safetensors itself makes private ones."""
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path, metadata={"format": "pt"})  # transformers asks for that mark
    path.chmod(mode)


def model_config(shapes: Shapes, config, tokenizer: Tokenizer) -> dict:
    """config.json of a model with parameters of these shapes, by path."""
    return (
        KIND
        | {theirs: config.model[ours] for ours, (theirs, _) in MODEL_KEYS.items()}
        | {
            "architectures": [architecture(shapes)],
            "vocab_size": shapes["encoder/embeddings/word"][0],
            "type_vocab_size": shapes["encoder/embeddings/token_type"][0],
            "pad_token_id": tokenizer.pad_id,
            "tie_word_embeddings": True,
            "torch_dtype": "float32",
            "sbo_boundaries": config.masking.boundaries,  # of SBO_FILE; transformers does not read it
        }
    )


def usage(shapes: Shapes, config, tokenizer: Tokenizer) -> str:
    """How to use the folder, for its README.md."""
    tokens = "uncased" if tokenizer.lowercase else "cased"
    sbo = SBO_USE.format(boundaries=BOUNDARIES[config.masking.boundaries]) if "sbo/bias" in shapes else ""
    return USE.format(casing=tokens, pooler=POOLER["nsp/output/bias" in shapes]) + sbo


def architecture(shapes: Shapes) -> str:
    """The class of transformers that has the heads of a model, but for the SBO head, which none has."""
    if "mlm/bias" not in shapes:
        return "BertModel"
    return "BertForPreTraining" if "nsp/output/bias" in shapes else "BertForMaskedLM"


def special_tokens() -> dict[str, str]:
    """{"pad_token": "[PAD]", ...}"""
    return {f"{token.strip('[]').lower()}_token": token for token in SPECIAL_TOKENS}


def tokenizer_config(config, tokenizer: Tokenizer) -> dict:
    """tokenizer_config.json. It must say do_lower_case: transformers takes silence for yes, of a cased vocabulary too (reference 6.3)."""
    return special_tokens() | {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": tokenizer.lowercase,
        "strip_accents": None,
        "tokenize_chinese_chars": True,
        "model_max_length": config.model.max_positions,
    }


def read_config(path: Path) -> dict:
    """The config.json of a model.

    Raises:
      InputError: it cannot be read.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot read it as JSON ({error})") from error
    if not isinstance(config, dict):
        raise InputError(f"{path}: holds no JSON object")
    return config


def model_fields(hf_config: dict, source: str) -> dict:
    """{"layers": 12, ...}: the keys of config.model that a config.json decides.

    Raises:
      InputError: it is of a model that is no BERT, or leaves out a size.
    """
    other = [
        f"{key} is {hf_config[key]!r}, must be {value!r}"
        for key, value in KIND.items()
        if hf_config.get(key, value) != value
    ]
    other += [
        f"{theirs} is missing" for theirs, default in MODEL_KEYS.values() if default is None and theirs not in hf_config
    ]
    if other:
        raise InputError(f"{source}: not the config of a BERT encoder: {'; '.join(other)}")
    return {ours: hf_config.get(theirs, default) for ours, (theirs, default) in MODEL_KEYS.items()}

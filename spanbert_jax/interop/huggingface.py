"""Hugging Face's folders: writes ones that transformers' Auto classes load, and reads their config.json."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors.numpy import save_file

from spanbert_jax import config as config_lib
from spanbert_jax.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from spanbert_jax.data.tokenizer_files import SETTINGS_FILE
from spanbert_jax.errors import InputError
from spanbert_jax.folders import atomic_folder
from spanbert_jax.interop.families import Family, family_of, required_family
from spanbert_jax.interop.names import Shapes, Weights, head_prefixes, nameable, to_theirs
from spanbert_jax.objectives import OBJECTIVES, Objective

USE = """```python
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("THIS_FOLDER")                        # {casing}
encoder = AutoModel.from_pretrained("THIS_FOLDER"{pooler}
model = AutoModelForMaskedLM.from_pretrained("THIS_FOLDER")
```
"""
NO_POOLER = ")"
POOLER = {
    False: ", add_pooling_layer=False)     # no pooler was trained",
    True: ")                              # its pooler was trained for next sentence prediction",
}


def head_file(name: str) -> str:
    """Returns the name of the file of an objective's head that transformers has no class for."""
    return f"{name}_head.safetensors"


def export_huggingface(folder: Path, params: Weights, config, tokenizer: Tokenizer, card: str) -> list[str]:
    """Writes a new folder that transformers' Auto classes load.

    Heads that transformers has no class for are written to separate files.

    Args:
      folder: to make.
      params: ours, by path; written as float32.
      config: the whole config of the run.
      tokenizer: of the run.
      card: text of README.md.

    Returns:
      The names of the heads that are left out, since the format has no names for them.

    Raises:
      InputError: transformers has no counterpart for the encoder, or the folder exists or cannot be written.
    """
    family, prefixes = required_family(config), head_prefixes()
    params, left_out = nameable(params)
    theirs = family.tensors(to_theirs(params))
    beside = {
        o.name: tuple(prefixes[o.name])
        for o in OBJECTIVES.values()
        if o.exported and o.transformers_class not in family.classes
    }
    files: dict[str, Weights] = {name: {} for name in (*map(head_file, beside), "model.safetensors")}
    for key, array in theirs.items():
        head = next((name for name, prefix in beside.items() if key.startswith(prefix)), None)
        files[head_file(head) if head else "model.safetensors"][key] = array
    with atomic_folder(folder) as temporary:
        for name, tensors in files.items():
            if tensors:
                write_tensors(temporary / name, tensors)
        write_description(temporary, {path: array.shape for path, array in params.items()}, config, tokenizer)
        (temporary / "README.md").write_text(card, encoding="utf-8")
    return left_out


def write_description(
    folder: Path, shapes: Shapes, config, tokenizer: Tokenizer, settings: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Writes the tokenizer with all files that AutoTokenizer reads, and the config.json of a model.

    An encoder of no family of transformers gets a config.json of `settings` alone.

    Args:
      folder: to write to.
      shapes: of the model's parameters, by path.
      config: the whole config of the run.
      tokenizer: of the run.
      settings: keys of config.json that others do not imply.
    """
    texts = {"tokenizer_config.json": tokenizer_config(config, tokenizer), "special_tokens_map.json": special_tokens()}
    family = family_of(config)
    texts["config.json"] = (model_config(family, shapes, config, tokenizer) if family else {}) | dict(settings)
    for name, content in ((name, content) for name, content in texts.items() if content):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    tokenizer.save(folder)


def write_tensors(path: Path, tensors: Weights) -> None:
    """Writes a new file of safetensors with the usual permissions; safetensors itself makes private files."""
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path, metadata={"format": "pt"})  # which transformers requires
    path.chmod(mode)


def model_config(family: Family, shapes: Shapes, config, tokenizer: Tokenizer) -> dict:
    """Returns the config.json of a model of a family with parameters of these shapes, by path."""
    flat = dict(config_lib.flat(config))
    return family.settings(config) | {
        "architectures": [architecture(family, shapes)],
        "vocab_size": shapes["encoder/embeddings/word"][0],
        "pad_token_id": tokenizer.pad_id,
        "torch_dtype": "float32",
        **{key: flat[ours] for o in heads_of(shapes) for key, ours in o.settings.items()},
    }


def heads_of(shapes: Shapes) -> list[Objective]:
    """Returns the objectives whose heads a model with parameters of these shapes has."""
    return [o for o in OBJECTIVES.values() if any(path.startswith(f"{o.name}/") for path in shapes)]


def usage(shapes: Shapes, config, tokenizer: Tokenizer) -> str:
    """Returns the usage section of the folder's README.md."""
    heads = heads_of(shapes)
    pooler = any(name.startswith("bert.pooler") for o in heads for name in o.exported.values())
    family = family_of(config)
    use = USE.format(casing=tokenizer.rules, pooler=POOLER[pooler] if family and family.has_pooler else NO_POOLER)
    return use + "".join(o.usage(config) for o in heads)


def architecture(family: Family, shapes: Shapes) -> str:
    """Returns the family's class of transformers that has the most heads of a model."""
    names = [o.transformers_class for o in heads_of(shapes) if o.transformers_class in family.classes]
    return family.classes[names[-1] if names else "BertModel"]


def special_tokens() -> dict[str, str]:
    """Returns {"pad_token": "[PAD]", ...}."""
    return {f"{token.strip('[]').lower()}_token": token for token in SPECIAL_TOKENS}


def tokenizer_config(config, tokenizer: Tokenizer) -> dict:
    """Returns the content of tokenizer_config.json.

    It always sets do_lower_case, since transformers lower-cases by default, even with a cased vocabulary
    (docs/original.md 6.3).
    """
    return special_tokens() | {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": tokenizer.lowercase,
        "strip_accents": tokenizer.rules.settings().get("strip_accents"),  # None: as do_lower_case
        "tokenize_chinese_chars": tokenizer.rules.split_chinese,
        "model_max_length": config.seq_len,  # the run trained no positions beyond
        **({"model_input_names": list(family.inputs)} if (family := family_of(config)) else {}),
    }


def read_config(path: Path) -> dict:
    """Returns the config.json of a model.

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


def longest_text(folder: Path) -> int:
    """Returns the longest text in tokens that a folder's tokenizer_config.json allows; any length if it has none."""
    path = folder / SETTINGS_FILE
    length = read_config(path).get("model_max_length") if path.is_file() else None
    return length if isinstance(length, int) and length >= 8 else sys.maxsize

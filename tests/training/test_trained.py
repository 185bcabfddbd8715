"""Models in files are used as runs are: exports, foreign folders, and what they lack."""

import json
import shutil

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

from spanbert_jax.errors import InputError
from spanbert_jax.interop.huggingface import export_huggingface
from spanbert_jax.objectives import MLM, SBO
from spanbert_jax.training.export import export_model
from spanbert_jax.training.initial import shapes_of
from spanbert_jax.training.trained import is_run, restore
from tests.interop.models import assert_same, random_params
from tests.small import TOKENIZER, small_config

CONFIG = small_config(masking__boundaries="internal", masking__max_targets=7, model__norm_eps=1e-5)
PARAMS = random_params(shapes_of(CONFIG, TOKENIZER.vocab_size))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "hf"
    export_huggingface(folder, PARAMS, CONFIG, TOKENIZER, "")
    return folder


def params_of(model):
    return flatten_dict(jax.device_get(model.params), sep="/")


def test_an_export_is_the_model_that_was_exported(folder):
    (config, tokenizer, spec, objectives, _), notes = model, _ = restore(folder, None)
    assert notes == [] and objectives == (MLM, SBO) and tokenizer.fingerprint == TOKENIZER.fingerprint
    assert_same(params_of(model), PARAMS)
    for section, keys in {
        "model": set(CONFIG.model.keys()) - {"output_bias"},
        "masking": ("boundaries", "max_targets"),
    }.items():
        assert {key: config[section][key] for key in keys} == {key: CONFIG[section][key] for key in keys}
    assert config.seq_len == 64 and spec.norm_eps == 1e-5 and spec.attention == "xla"
    with pytest.raises(InputError, match="is not the folder of a run, so it has no checkpoint of step 3"):
        restore(folder, 3)


@pytest.mark.parametrize("format", ["huggingface", "original"])
def test_a_folder_is_exported_again(folder, format, tmp_path):
    assert export_model(folder, tmp_path / "out", format, None) == (str(folder), [])
    model, notes = restore(tmp_path / "out", None)
    assert notes == []
    assert_same(params_of(model), PARAMS)
    if format == "huggingface":
        for name in ("config.json", "tokenizer_config.json"):
            assert json.loads((tmp_path / "out" / name).read_text()) == json.loads((folder / name).read_text())
        assert "Converted by spanbert_jax" in (tmp_path / "out" / "README.md").read_text()


def test_what_a_foreign_folder_lacks_is_said(folder, tmp_path):
    """Like a released BERT with padded rows and a head of another task: no SBO head, no settings of ours."""
    foreign = tmp_path / "bert"
    shutil.copytree(folder, foreign)
    (foreign / "sbo_head.safetensors").unlink()
    (foreign / "tokenizer_config.json").unlink()
    weights = load_file(foreign / "model.safetensors")
    word = "bert.embeddings.word_embeddings.weight"
    weights[word] = np.concatenate([weights[word], weights[word][:64]])
    weights["classifier.weight"] = np.zeros((2, 32), np.float32)
    save_file(weights, foreign / "model.safetensors")
    model, notes = restore(foreign, None)
    assert model.objectives == (MLM,) and model.config.objectives.sbo_weight == 0
    assert model.config.seq_len == CONFIG.model.max_positions
    assert [note.partition(":")[0] for note in notes] == [
        "of the 4,160 rows of its vocabulary table, 64 behind the first 4,096 are left out",
        "it has no head of",
        "parts of other tasks, left out",
    ]
    assert notes[1].endswith(": span boundary objective")
    assert_same(params_of(model), {path: array for path, array in PARAMS.items() if not path.startswith("sbo/")})


def test_folders_that_cannot_be_used(folder, tmp_path):
    for name, words in {
        "config.json": "no config.json beside the weights",
        "vocab.txt": "no vocab.txt or tokenizer.json beside the weights",
    }.items():
        shutil.copytree(folder, tmp_path / name)
        for gone in (name, *(["tokenizer.json"] if name == "vocab.txt" else [])):
            (tmp_path / name / gone).unlink()
        with pytest.raises(InputError, match=words):
            restore(tmp_path / name, None)
    encoder = tmp_path / "encoder"
    export_huggingface(
        encoder, {path: array for path, array in PARAMS.items() if "encoder/" in path}, CONFIG, TOKENIZER, ""
    )
    with pytest.raises(InputError, match="has no head of the masked language model, which the format stablehlo needs"):
        export_model(encoder, tmp_path / "out", "stablehlo", None)
    (encoder / "vocab.txt").write_text("".join(token + "\n" for token in [*TOKENIZER.tokens, "covid"]))
    (encoder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="no rows for the last 1 tokens of its vocabulary"):
        restore(encoder, None)
    assert is_run(tmp_path / "nothing") and not is_run(encoder)
    with pytest.raises(InputError, match="has no config.json"):
        restore(tmp_path / "nothing", None)

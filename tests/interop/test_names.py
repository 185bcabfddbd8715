"""The table of names: the original's keys and shapes, and round trips bit for bit."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from spanbert_jax.configs import spanbert
from spanbert_jax.interop.names import ENCODER, in_original_style, name_of, normalised, their_shapes, to_ours, to_theirs
from spanbert_jax.interop.weights import duplicates, to_params
from spanbert_jax.model.spec import model_spec
from spanbert_jax.objectives import OBJECTIVES
from tests.interop.models import assert_same, random_params, shapes_of, small_config, spec_of

# Key -> shape of the original's pretraining state dicts, with {} for the number of a layer.
ORIGINAL = json.loads((Path(__file__).parents[1] / "goldens" / "orig_state_dict_keys.json").read_text())
CASED_VOCABULARY = 28996

SHAPES = shapes_of(spec_of(small_config()), tuple(OBJECTIVES.values()))  # of a model with every head
PARAMS = random_params(SHAPES)


@pytest.mark.parametrize("variant, original", [("base", "cased_bert_pair"), ("large", "cased_bert_pair_large")])
def test_keys_and_shapes_are_the_originals(variant, original):
    golden = ORIGINAL[original]
    expected = {
        name.format(number): tuple(shape)
        for name, shape in golden["shapes"].items()
        for number in range(golden["layers"] if "{}" in name else 1)
    }
    shapes = shapes_of(model_spec(spanbert.get_config(variant), CASED_VOCABULARY, "cpu"))
    ours = {name: np.broadcast_to(np.float32(0), shape) for name, shape in their_shapes(shapes).items()}
    assert {name: array.shape for name, array in in_original_style(ours).items()} == expected
    back = normalised({name: np.broadcast_to(np.float32(0), shape) for name, shape in expected.items()})
    assert {name: array.shape for name, array in back.items() if name not in duplicates()} == their_shapes(shapes)
    number = {path: int(np.prod(shape)) for path, shape in shapes.items()}
    assert sum(number.values()) == golden["n_params"]
    assert sum(count for path, count in number.items() if path.startswith("encoder/")) == golden["n_params_encoder"]


def test_every_parameter_has_a_name_and_every_name_a_parameter():
    assert all(name_of(path) for path in SHAPES) and len({name_of(path) for path in SHAPES}) == len(SHAPES)
    modern = small_config()
    modern.model.update(dict(norm_placement="pre", feed_forward="geglu", qk_norm=True, tied_output=False))
    both = {**SHAPES, **shapes_of(spec_of(modern))}
    assert all(name_of(path) for path in both)
    named = [*ENCODER, *(f"{o.name}/{path}" for o in OBJECTIVES.values() for path in o.exported)]
    assert all(any(path == name or path.startswith(f"{name}/") for path in both) for name in named)


def test_shapes_told_are_shapes_made():
    assert their_shapes(SHAPES) == {name: array.shape for name, array in to_theirs(PARAMS).items()}


@pytest.mark.parametrize("style", [dict, in_original_style], ids=["huggingface", "original"])
def test_there_and_back_is_bit_for_bit(style):
    params, missing = to_params(normalised(style(to_theirs(PARAMS))), SHAPES)
    assert not missing
    assert_same(params, PARAMS)


def test_a_linear_map_is_transposed():
    kernel = PARAMS["encoder/layers/mlp/hidden/kernel"]
    np.testing.assert_array_equal(to_theirs(PARAMS)["bert.encoder.layer.2.intermediate.dense.weight"], kernel[2].T)
    query = PARAMS[
        "encoder/layers/attention/query/kernel"
    ]  # [layers, D, H, K]: heads are their outputs, one after another
    np.testing.assert_array_equal(
        to_theirs(PARAMS)["bert.encoder.layer.1.attention.self.query.weight"][6:12], query[1][:, 1].T
    )


@pytest.mark.parametrize("dialect", ["no prefix", "gamma and beta"])
def test_dialects_of_an_encoder(dialect):
    theirs = {name: array for name, array in to_theirs(PARAMS).items() if name.startswith("bert.")}
    if dialect == "no prefix":
        theirs = {name.removeprefix("bert."): array for name, array in theirs.items()}
    else:
        theirs = {name.removeprefix("decoder."): array for name, array in in_original_style(theirs).items()}
        assert "bert.embeddings.LayerNorm.gamma" in theirs
    params, missing = to_params(normalised(theirs), SHAPES)
    assert missing == ["mlm", "nsp", "sbo"]
    assert_same(params, {path: array for path, array in PARAMS.items() if path.startswith("encoder/")})


def test_the_next_sentence_head_has_berts_names():
    theirs = to_theirs(PARAMS)
    assert {name: array.shape for name, array in theirs.items() if "pooler" in name or "seq_relationship" in name} == {
        "bert.pooler.dense.weight": (24, 24),
        "bert.pooler.dense.bias": (24,),
        "cls.seq_relationship.weight": (2, 24),
        "cls.seq_relationship.bias": (2,),
    }
    np.testing.assert_array_equal(theirs["cls.seq_relationship.weight"], PARAMS["nsp/output/kernel"].T)
    assert {"decoder.bert.pooler.dense.weight", "decoder.cls.seq_relationship.bias"} <= in_original_style(theirs).keys()


def test_a_model_without_that_head_drops_it_and_a_pooler_alone_is_none():
    without = {path: shape for path, shape in SHAPES.items() if not path.startswith("nsp/")}
    params, missing = to_params(to_theirs(PARAMS), without)
    assert not missing
    assert_same(params, {path: PARAMS[path] for path in without})
    pooler = {name: array for name, array in to_theirs(PARAMS).items() if not name.startswith("cls.seq_relationship.")}
    params, missing = to_params(pooler, SHAPES)
    assert missing == ["nsp"]
    assert_same(params, {path: PARAMS[path] for path in without})


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floats_become_float32(dtype):
    theirs = {name: array.astype(dtype) for name, array in to_theirs(PARAMS).items()}
    params, problems = to_ours(theirs, SHAPES)
    assert not problems
    assert_same(params, {path: array.astype(dtype).astype(np.float32) for path, array in PARAMS.items()})

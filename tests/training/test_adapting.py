"""Parameters made for another model: what a wider one computes, which layer becomes which, positions, vocabularies."""

import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from spanbert_jax.configs import modern
from spanbert_jax.data.sources.embedded import embedded_documents
from spanbert_jax.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from spanbert_jax.errors import InputError
from spanbert_jax.interop.huggingface import export_huggingface
from spanbert_jax.model.layout import ONE_DEVICE
from spanbert_jax.model.spec import model_spec
from spanbert_jax.objectives import MLM, SBO, pretraining
from spanbert_jax.training.adapting import longer_positions, other_vocabulary, tiled
from spanbert_jax.training.initial import read_initial, shapes_of
from tests.interop.models import assert_same, random_params
from tests.small import TOKENIZER, small_config


def modern_config(**model):
    config = small_config()
    config.model.update(modern.get_config("tiny").model)
    sizes = dict(layers=2, width=32, heads=4, mlp_width=48, max_positions=64, sbo_position_width=8)
    config.model.update(sizes | dict(norm_eps=1e-12) | model)
    return config


BERT = small_config(model__dropout=0.0, model__attention_dropout=0.0)


def logits_of(config, params) -> dict[str, np.ndarray]:
    """Of a row of text: those of MLM and SBO."""
    ids = TOKENIZER.encode([" ".join(next(iter(embedded_documents("valid"))))])[0][:60]
    row = np.array([[TOKENIZER.cls_id, *ids, TOKENIZER.sep_id]], np.int32)
    places = np.arange(1, 21, dtype=np.int32)[None]
    ones, zeros = np.ones_like(row), np.zeros_like(row)
    batch = dict(tokens=row, segments=ones, positions=np.arange(row.size, dtype=np.int32)[None], token_types=zeros)
    batch |= dict(mlm_positions=places, sbo_left=places - 1, sbo_right=places + 3, sbo_offset=places % 5)
    spec = model_spec(config, TOKENIZER.vocab_size, "cpu")
    return pretraining.apply(spec, ONE_DEVICE, (MLM, SBO), unflatten_dict(params, sep="/"), batch)


@pytest.mark.parametrize("config", [BERT, modern_config()], ids=["bert", "modern"])
def test_a_model_of_twice_the_width_computes_the_same(config):
    small = random_params(shapes_of(config, TOKENIZER.vocab_size))
    wide = config.copy_and_resolve_references()
    wide.model.update(dict(width=64, heads=8, mlp_width=2 * config.model.mlp_width))
    params = tiled(small, shapes_of(wide, TOKENIZER.vocab_size))
    assert {path: array.shape for path, array in params.items()} == shapes_of(wide, TOKENIZER.vocab_size)
    expected, found = logits_of(config, small), logits_of(wide, params)
    for head in ("mlm", "sbo"):
        assert np.abs(expected[head]).max() > 1
        np.testing.assert_allclose(found[head], expected[head], atol=2e-4)


def test_copies_lie_in_the_centre_and_layers_keep_their_depth():
    config, larger = small_config(), small_config(model__layers=5, model__width=40, model__heads=5)
    small = random_params(shapes_of(config, TOKENIZER.vocab_size))
    params = tiled(small, shapes_of(larger, TOKENIZER.vocab_size))
    word = small["encoder/embeddings/word"]
    np.testing.assert_array_equal(
        params["encoder/embeddings/word"], np.concatenate([word[:, -4:], word, word[:, :4]], axis=1)
    )
    norms = small["encoder/layers/mlp/norm/scale"]
    np.testing.assert_array_equal(params["encoder/layers/mlp/norm/scale"][:, 4:-4], norms[[0, 0, 0, 1, 1]])


@pytest.mark.parametrize(
    "change, words",
    [(dict(model__width=16), "smaller"), (dict(model__heads=2), "of another width of heads")],
    ids=["narrower", "wider heads"],
)
def test_what_cannot_be_tiled_is_refused(change, words):
    config, other = small_config(), small_config(**change)
    small = random_params(shapes_of(config, TOKENIZER.vocab_size))
    with pytest.raises(InputError, match=f"init.size 'tile': .* in this model: {words}"):
        tiled(small, shapes_of(other, TOKENIZER.vocab_size))


def test_positions():
    table = np.arange(8, dtype=np.float32).reshape(4, 2)
    params = {"encoder/embeddings/position": table}
    np.testing.assert_array_equal(
        longer_positions(params, 10, "tile")["encoder/embeddings/position"], table[[0, 1, 2, 3, 0, 1, 2, 3, 0, 1]]
    )
    longer = longer_positions(params, 7, "interpolate")["encoder/embeddings/position"]
    np.testing.assert_allclose(longer[::2], table)
    np.testing.assert_allclose(longer[1], (table[0] + table[1]) / 2)
    assert longer_positions({}, 7, "tile") == {}


def test_vocabularies():
    theirs = Tokenizer([*SPECIAL_TOKENS, "a", "b", "##b", "##c"], False, "")
    ours = [*SPECIAL_TOKENS, "b", "ab", "##bb", "abc", "xyz"]
    params = {
        "encoder/embeddings/word": np.arange(22, dtype=np.float32).reshape(11, 2),  # two rows of padding
        "mlm/bias": np.arange(11, dtype=np.float32),
        "encoder/norm/scale": np.ones(2, np.float32),
    }
    adapted, note = other_vocabulary(params, theirs, ours, "subwords")
    rows = np.array([0, 1, 2, 3, 4, 6, (5 + 7) / 2, (6 + 7) / 2, (5 + 7 + 8) / 3, 4], np.float32)
    np.testing.assert_allclose(adapted["mlm/bias"], rows)
    np.testing.assert_allclose(adapted["encoder/embeddings/word"][:, 0], 2 * rows)
    assert note.endswith("10 tokens of the vocabulary, 6 are its own, 3 means of subwords, 1 means of all rows")
    adapted, note = other_vocabulary(params, theirs, ours, "mean")
    np.testing.assert_allclose(adapted["mlm/bias"][6:], 4)
    assert "0 means of subwords, 4 means of all rows" in note


def test_a_run_starts_from_a_smaller_model_with_another_vocabulary(tmp_path):
    """What config.init says, from a folder: all three at once; without it, the message says what to give."""
    config = small_config()
    params = random_params(shapes_of(config, TOKENIZER.vocab_size))
    export_huggingface(tmp_path / "hf", params, config, TOKENIZER, "")
    other = Tokenizer([*TOKENIZER.tokens[:3000], "##ologically"], TOKENIZER.rules, "")
    larger = small_config(
        init__path=str(tmp_path / "hf"), model__layers=3, model__width=64, model__heads=8, model__max_positions=256
    )
    with pytest.raises(
        InputError,
        match="layers is 2 there, 3 .*--config.init.positions=tile or interpolate and --config.init.size=tile adapts",
    ):
        read_initial(larger, other)
    larger.init.update(dict(size="tile", positions="interpolate"))
    with pytest.raises(InputError, match="or --config.init.vocabulary=subwords to make rows"):
        read_initial(larger, other)
    larger.init.vocabulary = "subwords"
    initial = read_initial(larger, other)
    assert not initial.missing
    assert {path: a.shape for path, a in initial.params.items()} == shapes_of(larger, other.vocab_size)
    assert "model.layers is 2 there, 3 here" in initial.summary() and "3,000 are its own, 1 means" in initial.summary()
    assert_same(read_initial(larger, other).params, initial.params)

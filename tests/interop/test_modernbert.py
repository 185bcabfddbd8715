"""ModernBERT beside transformers: our exports in its classes, its folders in ours, packed and unpacked; refusals."""

import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

torch = pytest.importorskip("torch", reason="compares with torch")
transformers = pytest.importorskip("transformers", reason="compares with transformers")

from spanbert_jax.configs import modern, spanbert  # noqa: E402
from spanbert_jax.errors import InputError  # noqa: E402
from spanbert_jax.interop.families import model_fields, required_family  # noqa: E402
from spanbert_jax.interop.huggingface import export_huggingface  # noqa: E402
from spanbert_jax.interop.weights import load_weights, to_params  # noqa: E402
from spanbert_jax.model.encoder import FIELDS  # noqa: E402
from spanbert_jax.model.layout import ONE_DEVICE  # noqa: E402
from spanbert_jax.objectives import MLM, pretraining  # noqa: E402
from spanbert_jax.training.trained import restore  # noqa: E402
from tests.interop.models import MODEL, assert_same, random_params, shapes_of, spec_of, tokenizer_of  # noqa: E402
from tests.interop.test_transformers import rows_of  # noqa: E402

# Every local layer reads 8 positions of rows of 64; five layers are not a multiple of the three that repeat.
LOCAL = dict(layers=5, attention_pattern="local", window=8, global_every=3, rope_base=160_000.0, local_rope_base=500.0)
CHANGES = {
    "local attention": LOCAL,
    "global, SwiGLU": dict(feed_forward="swiglu"),
    "biases": LOCAL | dict(bias=True, norm_bias=True),
    "untied output": dict(tied_output=False),
}
LINES = [
    "The old lighthouse keeper climbed the stairs once more before the storm came in from the sea.",
    "She read every letter twice, then burned them all, one after another, in the kitchen stove.",
    "Nobody in the village knew where the stranger had come from, and nobody dared to ask him.",
    "a [MASK] b",
]


def config_of(change):
    config = modern.get_config("tiny")
    config.model.update(MODEL | dict(dropout=0.0, attention_dropout=0.0) | change)
    config.seq_len, config.data.vocab, config.masking.max_targets = 64, "cased", 5
    return config


@pytest.fixture(scope="module", params=CHANGES.values(), ids=CHANGES)
def exported(request, tmp_path_factory):
    """(config, parameters, folder of the export)."""
    config = config_of(request.param)
    shapes = shapes_of(spec_of(config))
    params = random_params(shapes)
    for path in params:  # the first norm, which is not used, has its first values
        if path.startswith("encoder/layers/attention/norm/"):
            params[path][0] = path.endswith("scale")
    folder = tmp_path_factory.mktemp("modern") / "hf"
    assert export_huggingface(folder, params, config, tokenizer_of(config), "") == []
    return config, params, folder


def logits_of(config, params, batch) -> np.ndarray:
    tree = unflatten_dict(params, sep="/")
    return np.asarray(pretraining.apply(spec_of(config), ONE_DEVICE, (MLM,), tree, batch)["mlm"])


def their_logits(model, batch) -> np.ndarray:
    with torch.no_grad():
        ids, mask = (torch.tensor(batch[name]).long() for name in ("tokens", "segments"))
        return model.eval()(input_ids=ids, attention_mask=mask).logits.numpy()


def test_logits_are_the_same_packed_or_not(exported):
    config, params, folder = exported
    model, info = transformers.AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert type(model).__name__ == "ModernBertForMaskedLM"
    assert not info["missing_keys"] and not info["unexpected_keys"]
    tokenizer = tokenizer_of(config)
    batch = rows_of(tokenizer, LINES, 64)
    text = batch["segments"] == 1
    expected = their_logits(model, batch)[text]
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(logits_of(config, params, batch)[text], expected, atol=1e-5, rtol=1e-5)
    # The same texts, two in a row: each is a segment with positions from 0.
    lengths = text.sum(axis=1)
    packed = {name: np.zeros((2, 64), np.int32) for name in (*FIELDS, "mlm_positions")}
    packed["tokens"][:] = tokenizer.pad_id
    packed["mlm_positions"][:] = np.arange(64)
    where = []
    for number, length in enumerate(lengths):
        row, start = number // 2, 0 if number % 2 == 0 else lengths[number - 1]
        place = slice(start, start + length)
        packed["tokens"][row, place] = batch["tokens"][number, :length]
        packed["positions"][row, place] = np.arange(length)
        packed["segments"][row, place] = 1 + number % 2
        where.append((row, place))
    ours = logits_of(config, params, packed)
    ours = np.concatenate([ours[row, place] for row, place in where])
    np.testing.assert_allclose(ours, expected, atol=1e-5, rtol=1e-5)


def test_there_and_back_is_bit_for_bit(exported):
    config, params, folder = exported
    weights, hf_config, _ = load_weights(folder)
    again, missing = to_params(weights, shapes_of(spec_of(config)))
    assert not missing
    assert_same(again, params)
    fields = model_fields(hf_config, "x")
    assert {key: config.model[key] for key in fields if key not in ("window", "global_every")} == {
        key: value for key, value in fields.items() if key not in ("window", "global_every")
    }
    trained, notes = restore(folder, None)
    assert not notes and trained.spec.layers == config.model.layers


def test_the_tokenizer_makes_no_token_types(exported):
    _, _, folder = exported
    assert set(transformers.AutoTokenizer.from_pretrained(folder)("a b")) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize("prefix", ["", "model.", "_orig_mod.backbone.", "module.model."])
def test_an_encoder_alone_under_any_prefix(exported, prefix, tmp_path):
    config, params, folder = exported
    if not config.model.tied_output:
        pytest.skip("an encoder alone has no output embeddings")
    model = transformers.AutoModel.from_pretrained(folder)
    torch.save({prefix + name: tensor for name, tensor in model.state_dict().items()}, tmp_path / "model.pt")
    again, missing = to_params(load_weights(tmp_path / "model.pt").weights, shapes_of(spec_of(config)))
    assert missing == ["mlm", "sbo"]
    assert_same(again, {path: params[path] for path in again})


def test_a_model_of_transformers_is_read(tmp_path):
    """With its own defaults: no biases in the head, the output tied, settings of before transformers 5 beside."""
    config = config_of({})
    tokenizer = tokenizer_of(config)
    theirs = transformers.ModernBertConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=48, num_hidden_layers=4,
        num_attention_heads=2, local_attention=16, pad_token_id=0, max_position_embeddings=128, decoder_bias=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.ModernBertForMaskedLM(theirs)
    model.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    trained, notes = restore(tmp_path, None)
    assert trained.config.model.window == 16 and trained.config.model.global_every == 3 and notes
    batch = rows_of(tokenizer, LINES, 64)
    ours = pretraining.apply(trained.spec, ONE_DEVICE, (MLM,), trained.params, batch)["mlm"]
    text = batch["segments"] == 1
    np.testing.assert_allclose(np.asarray(ours)[text], their_logits(model, batch)[text], atol=1e-5, rtol=1e-5)


SIZES = dict(model_type="modernbert", num_hidden_layers=4, hidden_size=8, num_attention_heads=2, intermediate_size=16)


def test_old_and_new_settings_say_the_same():
    old = model_fields(SIZES | dict(global_attn_every_n_layers=2, global_rope_theta=5e4, local_rope_theta=7.0), "x")
    new = dict(
        layer_types=["full_attention", "sliding_attention"] * 2,
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 5e4}, "sliding_attention": {"rope_theta": 7.0},
        },
    )  # fmt: skip
    assert old == model_fields(SIZES | new, "x")
    assert (old["rope_base"], old["local_rope_base"], old["global_every"]) == (5e4, 7.0, 2)


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(hidden_activation="relu"), "hidden_activation is 'relu', must be one of gelu, silu"),
        (dict(mlp_bias=True), "mlp_bias is True, must be False"),
        (dict(layer_types=["sliding_attention"] * 4), "layer_types must be full_attention in the first layer"),
        (dict(rope_parameters={"full_attention": {"rope_type": "yarn"}}), "rope_type of full_attention is 'yarn'"),
        (dict(model_type="roberta"), "model_type is 'roberta', must be 'bert' or 'modernbert'"),
    ],
    ids=str,
)
def test_settings_that_encoders_here_lack_are_refused(change, words):
    with pytest.raises(InputError, match=f"^there: .*{words}"):
        model_fields(SIZES | change, "there")


def test_an_encoder_of_no_family_is_refused_by_its_settings():
    config = config_of(dict(qk_norm=True, norm="rms"))
    with pytest.raises(InputError, match="transformers' ModernBERT has no counterpart.*norm is 'rms'.*qk_norm is True"):
        required_family(config)
    config = spanbert.get_config("tiny")
    config.model.token_types = False
    with pytest.raises(InputError, match="transformers' BERT has no counterpart.*model.token_types is False"):
        required_family(config)

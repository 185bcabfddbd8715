"""Encoder parts: what each computes, against a plain version; and models made of them, which are the same however they
are packed, divided over a mesh, or read layer by layer.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spanbert_jax.configs import modern
from spanbert_jax.model import parts
from spanbert_jax.model.encoder import Encoder, model_problems
from spanbert_jax.model.flops import encoder_flops
from spanbert_jax.model.layout import ONE_DEVICE
from spanbert_jax.model.spec import model_spec
from tests.small import TOKENIZER, batches_of, small_config, small_program

PARTS = dict(
    model__norm_placement="pre",
    model__first_norm=False,
    model__norm_bias=False,
    model__positions="rotary",
    model__token_types=False,
    model__feed_forward="geglu",
    model__bias=False,
)
LOCAL = PARTS | dict(
    model__attention_pattern="local", model__window=8, model__rope_base=1000.0, model__layers=5, model__global_every=2
)
MODELS = {
    "modern": PARTS,
    "local": LOCAL,
    "spans": PARTS
    | dict(model__attention_pattern="spans_and_global", model__span_length=5, model__layers=5, model__global_every=2),
    "rms, heads normalised, untied": PARTS
    | dict(model__norm="rms", model__qk_norm=True, model__tied_output=False, model__feed_forward="swiglu"),
    "post-norm, embeddings as they are": dict(model__embedding_norm=False, model__depth_scaled_init=True),
}


def spec_of(**changes):
    return model_spec(small_config(**changes), TOKENIZER.vocab_size, "cpu")


def test_rotary_positions_turn_pairs_by_angles():
    """The score of two positions depends on their distance alone, and position 0 is left as it is."""
    spec = spec_of(model__width=32, model__heads=4, model__local_rope_base=50.0)
    x = np.random.default_rng(0).normal(size=(1, 6, 4, 8)).astype(np.float32)
    for window, base in ((None, 10_000.0), (8, 50.0)):
        turned = np.asarray(parts.rotary(spec, jnp.asarray(x), jnp.arange(6)[None], window))
        for position in range(6):
            for i in range(4):
                angle = position / base ** (2 * i / 8)
                pair = x[0, position, :, i] + 1j * x[0, position, :, i + 4]
                expected = pair * np.exp(1j * angle)
                np.testing.assert_allclose(turned[0, position, :, i], expected.real, atol=1e-5)
                np.testing.assert_allclose(turned[0, position, :, i + 4], expected.imag, atol=1e-5)


def plain_encoder(params, spec, tokens):
    """Pre-norm, rotary, GeGLU, without biases, of one row without padding, in numpy."""

    def norm(x, p):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + spec.norm_eps) * p["scale"]

    def turned(x, base):  # [L, H, K]
        half = x.shape[-1] // 2
        angles = np.arange(len(x))[:, None] / base ** (np.arange(half) / half)
        pairs = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)[:, None]
        return np.concatenate([pairs.real, pairs.imag], -1)

    x = norm(params["embeddings"]["word"][tokens], params["embeddings"]["norm"])
    length = len(tokens)
    for number in range(spec.layers):
        layer = jax.tree.map(lambda leaf: leaf[number], params["layers"])  # noqa: B023
        attention, mlp = layer["attention"], layer["mlp"]
        local = spec.attention_pattern == "local" and number % spec.global_every
        y = x if number == 0 else norm(x, attention["norm"])
        q, k, v = (np.einsum("LD,DHK->LHK", y, attention[name]["kernel"]) for name in ("query", "key", "value"))
        base = spec.local_rope_base if local else spec.rope_base
        scores = np.einsum("LHK,RHK->HLR", turned(q, base), turned(k, base)) / np.sqrt(spec.head_width)
        distance = np.abs(np.arange(length)[:, None] - np.arange(length))
        scores = np.where(distance <= (spec.window // 2 if local else length), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = np.einsum("HLR,RHK->LHK", weights / weights.sum(-1, keepdims=True), v)
        x = x + np.einsum("LHK,HKD->LD", mixed, attention["output"]["kernel"])
        y = norm(x, mlp["norm"])
        hidden = np.asarray(jax.nn.gelu(y @ mlp["hidden"]["kernel"], approximate=False))
        x = x + (hidden * (y @ mlp["gate"]["kernel"])) @ mlp["output"]["kernel"]
    return norm(x, params["norm"])


@pytest.mark.parametrize("changes", [PARTS, LOCAL], ids=["global", "local"])
def test_the_encoder_equals_a_plain_one(changes):
    spec = spec_of(**changes)
    tokens = np.random.default_rng(0).integers(5, TOKENIZER.vocab_size, 37)
    row = np.ones((1, len(tokens)), int)
    inputs = (tokens[None], row, np.arange(len(tokens))[None], 0 * row)
    encoder = Encoder(spec, ONE_DEVICE)
    params = encoder.init(jax.random.key(0), *inputs)["params"]
    params = jax.tree.map(lambda leaf: leaf * 3 if leaf.ndim > 2 else leaf, params)  # so that attention is not even
    x, layers = encoder.apply({"params": params}, *inputs, every_layer=True)
    np.testing.assert_allclose(x[0], plain_encoder(jax.device_get(params), spec, tokens), atol=2e-5)
    assert layers.shape == (spec.layers, *x.shape)
    assert not np.allclose(layers[-2], layers[-1])


@pytest.mark.parametrize("name", MODELS)
def test_a_step_does_not_depend_on_mesh_and_microbatches(store, name):
    """Loss and gradient norm of packed rows with dropout, and the parameters after them."""

    def step(devices, **changes):
        config = small_config(data__max_blocks_per_row=4, **MODELS[name], **changes)
        program = small_program(config, devices)
        state = program.init(None)
        for _, batch in zip(range(2), batches_of(store, config)):
            state, metrics = program.train_step(state, program.put(batch))
        return jax.device_get((metrics, state.params))

    metrics, params = step(1)
    others, other_params = step(8, mesh__data=2, mesh__fsdp=2, mesh__tensor=2, accumulation=2)
    assert np.isfinite(metrics["loss"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), metrics, others)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3), params, other_params)


def test_windows_show_in_the_flops():
    config = modern.get_config("base")
    local = model_spec(config, 50_000, "cpu")
    config.model.attention_pattern = "global"
    whole = model_spec(config, 50_000, "cpu")
    products = encoder_flops(whole, 8192) - 22 * 4 * 8192 * 8192 * 768
    assert encoder_flops(local, 8192) == products + (8 * 8192 + 14 * 129) * 4 * 8192 * 768
    assert encoder_flops(local, 64) == encoder_flops(whole, 64)


def test_what_no_encoder_can_be_made_of_is_refused():
    config = small_config(model__positions="rotary", model__width=36, model__first_norm=False)
    assert [problem.split(":")[0] for problem in model_problems(config)] == [
        "model.positions 'rotary' rotates pairs of elements, and heads of model.width / model.heads = 9 elements have "
        "none left over",
        "model.first_norm=False leaves out a norm before a sublayer",
    ]

"""Attention within spans: each layer is plain attention over spans, computed linear in the row, by any kernel."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spanbert_jax.model import flash
from spanbert_jax.model.attention import within, xla
from spanbert_jax.model.encoder import Encoder, model_problems
from spanbert_jax.model.flops import encoder_flops
from spanbert_jax.model.layout import ONE_DEVICE
from spanbert_jax.model.parts import spans_of_segments
from spanbert_jax.model.spec import model_spec
from spanbert_jax.planning.costs import analyse
from tests.small import TOKENIZER, batches_of, small_config

SPAN = 8


def spec_of(**changes):
    changes = dict(model__span_length=SPAN, model__layers=3, model__global_every=2) | changes
    return model_spec(small_config(**changes), TOKENIZER.vocab_size, "cpu")


def inputs_of(store):
    """The encoder's arrays of real packed rows of 64 tokens, more than three spans."""
    batch = next(batches_of(store, small_config(data__max_blocks_per_row=4)))
    assert (batch["segments"].max(axis=1) > 1).any() and (batch["segments"] == 0).any()
    return [batch[name] for name in ("tokens", "segments", "positions", "token_types")]


def numbers_of_spans(segments, positions):
    """A number for each span of each row, in plain Python."""
    result = np.zeros_like(segments)
    for row in range(len(segments)):
        seen = {}
        for at, (segment, position) in enumerate(zip(segments[row], positions[row])):
            result[row, at] = seen.setdefault((segment, position // SPAN), len(seen))
    return result


def test_layers_read_the_own_span_alone(store):
    """All layers: the same as plain attention over spans, given as segments."""
    tokens, segments, positions, types = inputs_of(store)
    plain, spans = (Encoder(spec_of(model__attention_pattern=name), ONE_DEVICE) for name in ("global", "spans"))
    params = plain.init(jax.random.key(0), tokens, segments, positions, types)
    params = jax.tree.map(lambda leaf: leaf * 3 if leaf.ndim > 2 else leaf, params)  # so that attention is not even
    expected = jax.jit(plain.apply)(params, tokens, numbers_of_spans(segments, positions), positions, types)
    found = jax.jit(spans.apply)(params, tokens, segments, positions, types)
    text = segments > 0
    np.testing.assert_allclose(found[text], expected[text], atol=2e-5)
    assert np.abs(found - jax.jit(plain.apply)(params, tokens, segments, positions, types))[text].max() > 0.1


@pytest.mark.parametrize(
    "pattern, reached", [("spans_and_global", [set(range(32))] * 3), ("spans", [set(range(8, 16))] * 3)]
)
def test_what_a_token_reaches(store, pattern, reached):
    """In each layer: all of its row if the first layer reads all, else its span."""
    tokens, segments, positions, types = (np.asarray(x)[:1, :32] for x in inputs_of(store))
    segments, positions = np.ones_like(segments), np.arange(32)[None]
    encoder = Encoder(spec_of(model__attention_pattern=pattern), ONE_DEVICE)
    params = encoder.init(jax.random.key(0), tokens, segments, positions, types)
    states = jax.jit(functools.partial(encoder.apply, every_layer=True))

    def layers(tokens):
        return np.asarray(states(params, tokens, segments, positions, types)[1])[:, 0]

    changes = layers(tokens) - layers(np.where(np.arange(32) == 9, 7, tokens))  # [layers, L, D]
    assert [set(np.flatnonzero(np.abs(change).max(axis=-1) > 1e-7)) for change in changes] == reached


def test_spans_as_long_as_rows_are_the_plain_model(store):
    arrays = inputs_of(store)
    plain, spans = (
        Encoder(spec_of(model__attention_pattern=name, model__span_length=64), ONE_DEVICE)
        for name in ("global", "spans")
    )
    params = plain.init(jax.random.key(0), *arrays)
    text = arrays[1] > 0
    one, other = (np.asarray(jax.jit(each.apply)(params, *arrays))[text] for each in (plain, spans))
    np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("kernel", ["splash", "cudnn"])
def test_kernels_equal_plain_attention(kernel):
    spec, length = spec_of(), 128
    segments = np.repeat([[1, 2, 3, 0]], [37, 60, 21, 10], axis=1)
    positions = np.concatenate([np.arange(size) for size in (37, 60, 21, 10)])[None]
    q, k, v = (jnp.asarray(x, jnp.float32) for x in np.random.default_rng(0).normal(size=(3, 1, length, 2, 16)))
    spans = spans_of_segments(spec, jnp.asarray(segments), jnp.asarray(positions), 2 * SPAN)
    cudnn = functools.partial(flash.cudnn, implementation="xla")
    kernels = {
        "splash": functools.partial(flash.splash, window=2 * SPAN, interpret=True),
        "cudnn": functools.partial(within, cudnn, 2 * SPAN),
    }
    numbers = numbers_of_spans(segments, positions)
    expected = xla(q, k, v, numbers[:, None, :, None] == numbers[:, None, None, :], None)
    text = segments > 0
    np.testing.assert_allclose(kernels[kernel](q, k, v, spans)[text], expected[text], atol=5e-6)


def test_time_is_linear_in_the_row():
    """Both by the formula and as compiled."""
    spans, mixed, plain = (spec_of(model__attention_pattern=name) for name in ("spans", "spans_and_global", "global"))
    products = encoder_flops(plain, 512) - 3 * 4 * 512 * 512 * 32
    assert encoder_flops(spans, 512) == products + 3 * 4 * 512 * SPAN * 32
    assert encoder_flops(spans, 1024) == 2 * encoder_flops(spans, 512)
    assert encoder_flops(mixed, 512) == products + 4 * 512 * (2 * 512 + SPAN) * 32

    def compiled(spec, length):
        rows = jnp.zeros((1, length), int)
        encoder = Encoder(spec, ONE_DEVICE)
        params = jax.eval_shape(encoder.init, jax.random.key(0), rows, rows, rows, rows)
        text = jax.jit(encoder.apply).lower(params, rows, rows, rows, rows).compile().as_text()
        return analyse(text, {"data": 1}).flops

    assert compiled(spans, 1024) == pytest.approx(2 * compiled(spans, 512), rel=0.01)
    assert compiled(plain, 1024) > 2.5 * compiled(plain, 512)


@pytest.mark.parametrize("name", ["spans", "spans_and_global"])
def test_auto_takes_a_flash_kernel(name):
    config = small_config(model__attention_pattern=name, model__attention_dropout=0.0, seq_len=128)
    assert model_problems(config, "tpu") == []
    assert model_spec(config, 100, "tpu").attention == "splash"

"""Each implementation of attention is the same function of packed rows, runs where it says it does, and is chosen where
it can run.
"""

import functools
import importlib.util
import itertools
import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spanbert_jax.configs import base
from spanbert_jax.model import flash
from spanbert_jax.model.attention import attend, attend_in_blocks, visible, xla
from spanbert_jax.model.encoder import model_problems
from spanbert_jax.model.layout import Layout
from spanbert_jax.model.spec import IMPLEMENTATIONS, model_spec
from tests.small import batches_of, small_config, small_program

ROWS = 3
cudnn = functools.partial(flash.cudnn, implementation="xla")  # all but cuDNN itself
# name -> function (q, k, v, segments, window)
KERNELS = {
    "splash": functools.partial(flash.splash, interpret=True),
    "cudnn": lambda q, k, v, segments, window=None: cudnn(q, k, v, visible(segments, window, None)),
}
BLOCKS = {
    "xla": functools.partial(attend_in_blocks, xla, seeds=None),
    "cudnn": functools.partial(attend_in_blocks, cudnn, seeds=None),
}
SHAPES = {"BERT's": (128, 12, 64), "odd": (256, 1, 20), "several blocks": (640, 3, 8)}  # L, H, K


@pytest.fixture(scope="module")
def packed(store):
    """segments [ROWS, L] of real packed rows, by L."""

    @functools.cache
    def rows(length):
        config = small_config(seq_len=length, data__max_blocks_per_row=4, model__max_positions=length)
        segments = np.concatenate([batch["segments"] for batch in itertools.islice(batches_of(store, config), 6)])
        several, padded = segments.max(axis=1) > 1, (segments == 0).any(axis=1)
        chosen = np.flatnonzero(several & padded)[:ROWS]
        assert len(chosen) == ROWS
        return segments[chosen]

    return rows


def inputs(segments, heads, head_width, dtype=jnp.float32):
    """q, k, v and a gradient of what comes out, random [B, L, H, K]."""
    draw = np.random.default_rng(0).normal
    return [jnp.asarray(draw(size=(*segments.shape, heads, head_width)), dtype) for _ in range(4)]


def outcome(function, q, k, v, gradient, segments):
    """What comes out, and the gradients of q, k and v; float32."""
    out, pull = jax.vjp(lambda q, k, v: function(q, k, v, segments), q, k, v)
    assert out.dtype == q.dtype and out.shape == q.shape
    return [np.asarray(x, np.float32) for x in (out, *pull(gradient))]


def plain(q, k, v, segments, window=None):
    return xla(q, k, v, visible(segments, window, None), None)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_equal_plain_attention(packed, kernel, shape):
    length, heads, head_width = SHAPES[shape]
    segments = packed(length)
    text = segments > 0
    q, k, v, gradient = inputs(segments, heads, head_width)
    gradient *= text[:, :, None, None]  # nobody reads padding
    for ours, reference in zip(
        outcome(KERNELS[kernel], q, k, v, gradient, segments), outcome(plain, q, k, v, gradient, segments)
    ):
        assert np.abs(reference[text]).max() > 0.1
        np.testing.assert_allclose(ours[text], reference[text], atol=5e-6)


@pytest.mark.parametrize("window", [2, 30, 200])
@pytest.mark.parametrize("kernel", [*(("whole", name) for name in KERNELS), *(("blocks", name) for name in BLOCKS)])
def test_windows_equal_plain_attention(packed, kernel, window):
    """Also where blocks of half a window do not divide the row, and where a row has fewer than three of them."""
    segments = packed(256)
    text = segments > 0
    q, k, v, gradient = inputs(segments, 2, 16)
    gradient *= text[:, :, None, None]
    function = {"whole": KERNELS, "blocks": BLOCKS}[kernel[0]][kernel[1]]
    window = dict(window=window)
    ours = outcome(functools.partial(function, **window), q, k, v, gradient, segments)
    references = outcome(functools.partial(plain, **window), q, k, v, gradient, segments)
    for our, reference in zip(ours, references):
        assert np.abs(reference[text]).max() > 0.1
        np.testing.assert_allclose(our[text], reference[text], atol=5e-6)


def test_a_window_reads_its_half_on_each_side():
    segments = jnp.ones((1, 9), int)
    mask = np.asarray(visible(segments, 4, None))[0, 0]
    assert mask[4].tolist() == [False, False, True, True, True, True, True, False, False]


@pytest.mark.parametrize("kernel", KERNELS)
def test_bfloat16_is_close_to_float32(packed, kernel):
    segments = packed(128)
    halves = inputs(segments, 2, 64, jnp.bfloat16)
    exact = outcome(plain, *(x.astype(jnp.float32) for x in halves), segments)
    for ours, reference in zip(outcome(KERNELS[kernel], *halves, segments), exact):
        assert np.abs(ours - reference).max() < 0.02 * np.abs(reference).max()


@pytest.mark.parametrize("kernel", [*KERNELS, "xla"])
def test_padding_stays_finite(packed, kernel):
    """Even where a row is nothing else, scores are large, and a gradient comes in."""
    segments = packed(128).copy()
    segments[0] = 0
    q, k, v, gradient = inputs(segments, 2, 64)
    for x in outcome(KERNELS.get(kernel, plain), 30 * q, 30 * k, v, gradient, segments):
        assert np.isfinite(x).all()


def flash_config(name, **changes):
    return small_config(**dict(model__attention=name, model__attention_dropout=0.0, seq_len=128) | changes)


@pytest.fixture(scope="module")
def step_with(store):
    """(names in the program, metrics, parameters) of the first train step with an attention on a mesh."""

    @functools.cache
    def step(name, data=1, fsdp=1, tensor=1):
        config = flash_config(
            name,
            model__layers=1,
            model__heads=2,
            batch_size=8,
            eval__batch_size=8,
            mesh__data=data,
            mesh__fsdp=fsdp,
            mesh__tensor=tensor,
        )
        program = small_program(config, data * fsdp * tensor)
        state, batch = program.init(None), program.put(next(batches_of(store, config)))
        names = program.train_step.lower(state, batch).as_text(debug_info=True)
        state, metrics = program.train_step(state, batch)
        return names, *jax.device_get((metrics, state.params))

    return step


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [{}, dict(data=4, tensor=2)], ids=["one device", "mesh"])
def test_a_step_of_a_model_with_splash(step_with, mesh):
    """Is that of plain attention on one device, all other dropout on."""
    names, metrics, params = step_with("splash", **mesh)
    plain_names, plain_metrics, plain_params = step_with("xla")
    assert "splash_mha_fwd" in names and "splash_mha_dkv" in names and "splash_mha" not in plain_names
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4), metrics, plain_metrics)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=1e-3), params, plain_params
    )  # Adam magnifies rounding


def test_a_kernel_does_not_forget_dropout(packed):
    spec = model_spec(flash_config("splash", model__attention_dropout=0.1), 100, "cpu")
    segments = packed(128)
    q, k, v, _ = inputs(segments, 4, 8)
    layout = Layout(interpret=True)
    with pytest.raises(ValueError, match="no dropout"):
        attend(spec, layout, q, k, v, segments, None, None, jnp.zeros(ROWS, jnp.uint32))
    with pytest.raises(ValueError, match="no pattern"):
        attend(spec, layout, q, k, v, segments, jnp.ones((ROWS, 1, 128, 128), bool), None, None)
    attend(spec, layout, q, k, v, segments, None, None, None)


@pytest.mark.parametrize(
    "platform, changes, chosen",
    [
        ("tpu", {}, "splash"),
        ("gpu", {}, "cudnn"),
        ("cpu", {}, "xla"),
        ("other gpu", {}, "xla"),
        ("tpu", dict(model__attention_dropout=0.1), "xla"),
        ("gpu", dict(model__attention_dropout=0.1), "xla"),
        ("tpu", dict(seq_len=64), "xla"),
        ("gpu", dict(seq_len=64), "cudnn"),
        ("gpu", dict(seq_len=65), "xla"),
        ("tpu", dict(model__dtype="float32"), "splash"),
        ("gpu", dict(model__dtype="float32"), "xla"),
        ("gpu", dict(model__dtype="bfloat16"), "cudnn"),
        ("gpu", dict(model__heads=8), "xla"),
        ("tpu", dict(model__heads=8), "splash"),
        ("gpu", dict(model__width=640), "xla"),
    ],
)
def test_auto_takes_the_platforms_kernel_where_it_can(platform, changes, chosen):
    config = flash_config("auto", **changes)
    assert model_problems(config, platform) == []
    spec = model_spec(config, 100, platform)
    assert spec.attention == chosen
    assert spec.attention_dropout == config.model.attention_dropout  # the model does not depend on the hardware


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@pytest.mark.parametrize("rate", [0.0, 0.1])
@pytest.mark.parametrize("platform", [None, "cpu", "gpu", "tpu", "other gpu"])
def test_a_name_is_taken_or_refused_but_never_changed(name, rate, platform):
    config = flash_config(name, model__attention_dropout=rate)
    problems = model_problems(config, platform)
    runs = name == "xla" or platform in (None, *flash.PLATFORMS[name])
    drops = name == "xla" or not rate
    assert len(problems) == (not runs) + (not drops)
    if platform:
        spec = model_spec(config, 100, platform)
        assert spec.attention == name
        assert spec.attention_dropout == rate


@pytest.mark.parametrize(
    "platform, capability, told",
    [
        ("gpu", "9.0", "gpu"),
        ("gpu", "12.0", "gpu"),
        ("gpu", "8.0", "gpu"),
        ("gpu", "7.5", "old gpu"),
        ("gpu", "7.0", "old gpu"),
        ("gpu", "gfx942", "other gpu"),
    ],
)
def test_platform_of_a_gpu(platform, capability, told):
    assert flash.platform_of(SimpleNamespace(platform=platform, compute_capability=capability)) == told


@pytest.mark.parametrize(
    "platform, dtype",
    [("cpu", "float32"), ("old gpu", "float32"), ("gpu", "bfloat16"), ("other gpu", "bfloat16"), ("tpu", "bfloat16")],
)
def test_activations_are_bfloat16_where_there_are_products_of_them(platform, dtype):
    config = base.get_config()
    assert model_spec(config, 100, platform).dtype == dtype
    assert model_spec(config, 100, platform).attention == "xla"  # attention dropout


def test_platform_of_others():
    assert flash.platform_of(SimpleNamespace(platform="tpu")) == "tpu"
    assert flash.platform_of(jax.devices()[0]) == "cpu"


COMPILE = """
import jax, jax.numpy as jnp
from jax.experimental import topologies
from spanbert_jax.configs import base
from spanbert_jax.model import flash
from spanbert_jax.model.attention import HEADS, SEGMENTS
from spanbert_jax.training import sharding

devices = topologies.get_topology_desc("v5e:2x2", "tpu").devices
assert flash.platform_of(devices[0]) == "tpu"
config = base.get_config()
config.mesh.tensor = 2
mesh = sharding.make_mesh(config.mesh, devices)
attention = sharding.layout_on(mesh, False).shard_map(flash.splash, (HEADS, HEADS, HEADS, SEGMENTS), HEADS)
rows = sharding.batch_sharding(mesh)
x = jax.ShapeDtypeStruct((2, 512, 2, 64), jnp.bfloat16, sharding=rows)
segments = jax.ShapeDtypeStruct((2, 512), jnp.int32, sharding=rows)
def total(q, k, v, segments):
    return attention(q, k, v, segments).astype(jnp.float32).sum()

gradients = jax.grad(total, argnums=(0, 1, 2))
text = jax.jit(gradients).lower(x, x, x, segments).compile().as_text()
assert text.count('custom_call_target="tpu_custom_call"') == 2, text  # forward, and backward fused
"""


@pytest.mark.slow
def test_splash_compiles_for_a_tpu():
    """Forward and backward, over a mesh, heads of 64."""
    if not importlib.util.find_spec("libtpu"):
        pytest.skip("compiling for a TPU needs libtpu")
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "PYTHONPATH": os.getcwd(),
    }
    process = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, process.stderr[-3000:]

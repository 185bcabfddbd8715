"""Costs of programs that are small enough to check, of lines that other compilers write, and of the real train step."""

import math
import time

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from spanbert_jax.model.flops import encoder_flops
from spanbert_jax.planning.collectives import Collective
from spanbert_jax.planning.costs import analyse
from tests.planning.programs import MESH, compiled_text, hlo_program, per_device
from tests.small import small_config, small_program


def test_matmul_split_over_one_axis():
    costs = analyse(compiled_text(lambda a, b: a @ b, ((8, 16), P(None, "y")), ((16, 32), P("y"))), MESH)
    reduced = Collective("all-reduce", ("y",), 2, "f32", 4 * 8 * 32, 1, "jit(<lambda>)/dot_general")
    assert costs.collectives == (reduced,)
    assert costs.flops == 2 * 8 * 32 * 8
    product, all_reduce = 4 * (8 * 8 + 8 * 32 + 8 * 32), 4 * (8 * 32 + 8 * 32)
    assert costs.bytes == product + all_reduce


def test_collective_in_the_body_of_a_loop_counts_per_trip():
    def function(a, b):
        def body(a, layer):
            return jnp.tanh(a @ jax.lax.all_gather(layer, "z", axis=0, tiled=True)), None

        return jax.lax.scan(body, a, b)[0]

    program = per_device(function, (P(), P(None, "z")), P())
    costs = analyse(compiled_text(program, ((8, 16), P()), ((40, 16, 16), P(None, "z"))), MESH)
    [gathered] = costs.collectives
    assert (gathered.kind, gathered.axes, gathered.group) == ("all-gather", ("z",), 2)
    assert (gathered.bytes, gathered.count) == (4 * 16 * 16, 40)
    assert costs.flops == 40 * 2 * 8 * 16 * 16
    stack, gathers, products = 4 * 40 * 8 * 16, 40 * 4 * (8 * 16 + 16 * 16), 40 * 4 * (8 * 16 + 16 * 16 + 8 * 16)
    # Each trip reads its slice of the stack, not the whole.
    assert stack + gathers + products < costs.bytes < 40 * stack


def test_nested_loops_multiply():
    def inner(a, _):
        return jnp.tanh(a @ a), None

    def outer(a, _):
        a = jax.lax.scan(inner, a, length=4)[0]
        return jax.lax.psum(a, "x"), None

    program = per_device(lambda a: jax.lax.scan(outer, a, length=3)[0], P(), P())
    costs = analyse(compiled_text(program, ((16, 16), P())), MESH)
    assert costs.flops == 3 * 4 * 2 * 16**3
    assert [(each.axes, each.count) for each in costs.collectives] == [(("x",), 3)]


def test_most_expensive_branch_counts():
    def function(a):
        return jax.lax.cond(a[0, 0] > 0, lambda a: a @ a @ a, lambda a: jnp.sin(a @ a), a)

    text = jax.jit(function).lower(jnp.ones((16, 16))).compile().as_text()
    assert " conditional(" in text
    assert analyse(text, {"x": 1}).flops == 2 * 2 * 16**3


# (left, kernel, result, attributes, FLOPs)
CONVOLUTIONS = [
    ("[8,4]", "[4,6]", "[8,6]", "dim_labels=bf_io->bf", 2 * 8 * 4 * 6),
    # One dimension of 8 positions and a window of 3: with padding, the 2 pairs at the ends meet no input.
    ("[1,8,1]", "[3,1,1]", "[1,8,1]", "window={size=3 pad=1_1}, dim_labels=b0f_0io->b0f", 2 * (3 * 8 - 2)),
    ("[1,8,1]", "[3,1,1]", "[1,6,1]", "window={size=3}, dim_labels=b0f_0io->b0f", 2 * 3 * 6),
    ("[1,8,1]", "[3,1,1]", "[1,4,1]", "window={size=3 stride=2 pad=0_1}, dim_labels=b0f_0io->b0f", 2 * (3 * 4 - 1)),
    ("[1,8,1]", "[3,1,1]", "[1,4,1]", "window={size=3 rhs_dilate=2}, dim_labels=b0f_0io->b0f", 2 * 3 * 4),
    # Einsums of a TPU. The projections to queries, keys and values: [B, L, D] x [D, 3, H, K] -> [B, L, 3, H, K].
    (
        "[32,512,768,1,1]",
        "[768,3,12,64,1]",
        "[32,512,3,12,64]",
        "window={size=1x3x12 pad=0_0x2_2x11_11 rhs_reversal=0x1x1}, dim_labels=0bf12_i12o0->0b12f",
        2 * 32 * 512 * 768 * 3 * 12 * 64,
    ),
    # Their backward pass: [B, L, 3, H, K] x [D, 3, H, K] -> [B, L, D].
    (
        "[32,512,3,12,64]",
        "[768,3,12,64,1]",
        "[32,512,768,1,1]",
        "window={size=3x1x12}, dim_labels=1b02f_o02i1->1bf02",
        2 * 32 * 512 * 768 * 3 * 12 * 64,
    ),
    # Attention scores: [B, L, H, K] x [B, L, H, K] -> [B, H, L, L].
    (
        "[32,512,12,64]",
        "[32,512,12,64]",
        "[32,12,512,512]",
        "window={size=32x12 stride=31x11 lhs_dilate=32x12}, dim_labels=0b1f_0o1i->01bf",
        2 * 32 * 12 * 512 * 512 * 64,
    ),
    # The gradient of a weight: [B, L, F] x [B, L, D] -> [F, D].
    (
        "[32,512,3072]",
        "[32,512,768]",
        "[3072,768,1]",
        "window={size=32}, dim_labels=0fb_0io->bf0",
        2 * 32 * 512 * 3072 * 768,
    ),
]


@pytest.mark.parametrize("left, kernel, result, attributes, flops", CONVOLUTIONS)
def test_flops_of_convolutions(left, kernel, result, attributes, flops):
    text = hlo_program(f"""%a = bf16{left} parameter(0)
        %b = bf16{kernel} parameter(1)
        %c = bf16{result}{{1,0:T(8,128)}} convolution(%a, %b), {attributes}, metadata={{op_name="dim_labels=x"}}""")
    assert analyse(text, {"x": 1}).flops == flops


GEMM_CONFIG = (
    'backend_config={"gemm_backend_config":{"alpha_real":1,"dot_dimension_numbers":'
    '{"lhs_contracting_dimensions":["2"],"rhs_contracting_dimensions":["1"],"lhs_batch_dimensions":["0"]}}}'
)


@pytest.mark.parametrize("target", ["__cublas$gemm", "__cublas$lt$matmul$f8"])
def test_flops_of_matmul_calls_of_a_gpu(target):
    text = hlo_program(f"""%a = bf16[4,8,16] parameter(0)
        %b = bf16[4,16,32] parameter(1)
        %c = (bf16[4,8,32]{{2,1,0}}, s8[9]{{0}}) custom-call(%a, %b), custom_call_target="{target}", {GEMM_CONFIG}""")
    assert analyse(text, {"x": 1}).flops == 2 * 4 * 8 * 16 * 32


def test_other_custom_calls_have_no_flops():
    text = hlo_program(f"""%a = bf16[8,16] parameter(0)
        %b = (bf16[8,16]) custom-call(%a), custom_call_target="other", {GEMM_CONFIG}""")
    assert analyse(text, {"x": 1}).flops == 0


@pytest.mark.parametrize(
    "changes",
    [
        dict(mesh__data=4, mesh__fsdp=2, model__remat="full", accumulation=2),
        # Along the tensor axis some of the heads' products are repeated. They are small with few slots and many layers.
        dict(mesh__data=2, mesh__fsdp=2, mesh__tensor=2, model__remat="none", model__layers=6, masking__rate=0.02),
    ],
)
def test_costs_of_the_train_step_match_the_formula(changes):
    config = small_config(**changes, model__width=128, model__mlp_width=256)
    program = small_program(config, 8)
    [batch] = program.batch_shapes(config.batch_size)
    text = program.train_step.lower(program.state, batch).compile().as_text()
    start = time.perf_counter()
    costs = analyse(text, dict(program.mesh.shape))
    assert time.perf_counter() - start < 5 * max(1, len(text) / 3e6)
    is_full = config.model.remat == "full"
    recomputed = config.batch_size * encoder_flops(program.spec, config.seq_len) if is_full else 0
    expected = (program.flops_per_step + recomputed) / 8
    # A product may be repeated where that is cheaper than moving its inputs.
    assert expected <= costs.flops <= expected * 1.02
    shard_elements = [math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in jax.tree.leaves(program.state)]
    assert costs.bytes > 2 * 4 * sum(shard_elements)  # at least, the state is read and written
    used_axes = {axis for each in costs.collectives for axis in each.axes}
    assert used_axes == {axis for axis, size in program.mesh.shape.items() if size > 1}

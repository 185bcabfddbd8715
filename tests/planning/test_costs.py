"""Costs of programs small enough to work out by hand, of lines as other machines' compilers write them, and of the real training step."""

import math
import time

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from spanbert_jax.data.batches import slots_of
from spanbert_jax.errors import InputError
from spanbert_jax.model.flops import forward_flops
from spanbert_jax.planning.costs import Collective, analyse
from spanbert_jax.training.program import batch_shapes
from tests.small import small_config, small_program

MESH = {"x": 2, "y": 2, "z": 2}


def compiled(function, *arguments) -> str:
    """The text of a function of whole arrays, given as (shape, layout), over the eight devices."""
    mesh = jax.make_mesh(tuple(MESH.values()), tuple(MESH), axis_types=(AxisType.Auto,) * 3)
    shapes = [
        jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, layout)) for shape, layout in arguments
    ]
    return jax.jit(function, out_shardings=NamedSharding(mesh, P())).lower(*shapes).compile().as_text()


def by_device(function, layouts, result=P()):
    """The function run on each device's part, its collectives written out."""
    mesh = jax.make_mesh(tuple(MESH.values()), tuple(MESH), axis_types=(AxisType.Auto,) * 3)
    return jax.shard_map(function, mesh=mesh, in_specs=layouts, out_specs=result, check_vma=False)


def program(entry: str, others: str = "") -> str:
    """A module of these instructions; the last is the root."""
    *lines, root = [line.strip() for line in entry.strip().splitlines()]
    return (
        f"HloModule m\n{others}\nENTRY %main () -> f32[] {{\n"
        + "".join(f"  {line}\n" for line in lines)
        + f"  ROOT {root}\n}}\n"
    )


def test_a_matmul_split_over_one_axis():
    costs = analyse(compiled(lambda a, b: a @ b, ((8, 16), P(None, "y")), ((16, 32), P("y"))), MESH)
    (reduced,) = costs.collectives
    assert reduced == Collective("all-reduce", ("y",), 2, "f32", 4 * 8 * 32, 1, "jit(<lambda>)/dot_general")
    assert costs.flops == 2 * 8 * 32 * 8
    assert costs.bytes == 4 * (8 * 8 + 8 * 32 + 8 * 32) + 4 * (
        8 * 32 + 8 * 32
    )  # the product, then the sum over devices


def test_a_loop_that_gathers_in_its_body():
    def f(a, b):
        def body(a, layer):
            return jnp.tanh(a @ jax.lax.all_gather(layer, "z", axis=0, tiled=True)), None

        return jax.lax.scan(body, a, b)[0]

    text = compiled(by_device(f, (P(), P(None, "z"))), ((8, 16), P()), ((40, 16, 16), P(None, "z")))
    costs = analyse(text, MESH)
    (gathered,) = costs.collectives
    assert (gathered.kind, gathered.axes, gathered.group, gathered.bytes, gathered.count) == (
        "all-gather",
        ("z",),
        2,
        4 * 16 * 16,
        40,
    )
    assert costs.flops == 40 * 2 * 8 * 16 * 16
    stack, gathers, products = 4 * 40 * 8 * 16, 40 * 4 * (8 * 16 + 16 * 16), 40 * 4 * (8 * 16 + 16 * 16 + 8 * 16)
    assert (
        stack + gathers + products < costs.bytes < 40 * stack
    )  # each trip reads its slice of the stack, not the whole


def test_a_sum_over_two_axes():
    costs = analyse(
        compiled(by_device(lambda a: jax.lax.psum(a, ("x", "z")), P(("x", "z"))), ((16, 8), P(("x", "z")))), MESH
    )
    assert [(each.kind, each.axes, each.group, each.bytes, each.count) for each in costs.collectives] == [
        ("all-reduce", ("x", "z"), 4, 4 * 4 * 8, 1)
    ]


def test_each_kind_of_collective():
    def f(a):
        a = jax.lax.ppermute(a, "x", [(0, 1), (1, 0)])
        a = jax.lax.all_to_all(jnp.sin(a), "y", split_axis=0, concat_axis=1, tiled=True)
        return jax.lax.psum_scatter(jnp.sin(a), "z", scatter_dimension=0, tiled=True)

    costs = analyse(compiled(by_device(f, P(), P(("x", "y", "z"))), ((8, 8), P())), MESH)
    written = [(each.kind, each.axes, each.group, each.dtype, each.bytes) for each in costs.collectives][
        :3
    ]  # then it becomes whole again
    assert written == [
        ("collective-permute", ("x",), 2, "f32", 4 * 64),
        ("all-to-all", ("y",), 2, "f32", 4 * 64),
        ("reduce-scatter", ("z",), 2, "f32", 4 * 64),
    ]


def test_loops_within_loops():
    def inner(a, _):
        return jnp.tanh(a @ a), None

    def outer(a, _):
        a = jax.lax.scan(inner, a, length=4)[0]
        return jax.lax.psum(a, "x"), None

    text = compiled(by_device(lambda a: jax.lax.scan(outer, a, length=3)[0], P()), ((16, 16), P()))
    costs = analyse(text, MESH)
    assert costs.flops == 3 * 4 * 2 * 16**3
    assert [(each.axes, each.count) for each in costs.collectives] == [(("x",), 3)]


def test_the_dearest_branch_is_counted():
    def f(a):
        return jax.lax.cond(a[0, 0] > 0, lambda a: a @ a @ a, lambda a: jnp.sin(a @ a), a)

    text = jax.jit(f).lower(jnp.ones((16, 16))).compile().as_text()
    assert " conditional(" in text
    assert analyse(text, {"x": 1}).flops == 2 * 2 * 16**3


@pytest.mark.parametrize(
    "left, right, result, attributes, flops",
    [
        ("[8,4]", "[4,6]", "[8,6]", "dim_labels=bf_io->bf", 2 * 8 * 4 * 6),
        # One dimension of 8 places and a window of 3: with padding, the 2 pairs at the ends meet nothing.
        ("[1,8,1]", "[3,1,1]", "[1,8,1]", "window={size=3 pad=1_1}, dim_labels=b0f_0io->b0f", 2 * (3 * 8 - 2)),
        ("[1,8,1]", "[3,1,1]", "[1,6,1]", "window={size=3}, dim_labels=b0f_0io->b0f", 2 * 3 * 6),
        ("[1,8,1]", "[3,1,1]", "[1,4,1]", "window={size=3 stride=2 pad=0_1}, dim_labels=b0f_0io->b0f", 2 * (3 * 4 - 1)),
        ("[1,8,1]", "[3,1,1]", "[1,4,1]", "window={size=3 rhs_dilate=2}, dim_labels=b0f_0io->b0f", 2 * 3 * 4),
        # A TPU's einsums. Projections BLD,DTHK->BLTHK and back; scores BLHK,BMHK->BHLM; a weight's gradient BLD,BLF->DF.
        (
            "[32,512,768,1,1]",
            "[768,3,12,64,1]",
            "[32,512,3,12,64]",
            "window={size=1x3x12 pad=0_0x2_2x11_11 rhs_reversal=0x1x1}, dim_labels=0bf12_i12o0->0b12f",
            2 * 32 * 512 * 768 * 3 * 12 * 64,
        ),
        (
            "[32,512,3,12,64]",
            "[768,3,12,64,1]",
            "[32,512,768,1,1]",
            "window={size=3x1x12}, dim_labels=1b02f_o02i1->1bf02",
            2 * 32 * 512 * 768 * 3 * 12 * 64,
        ),
        (
            "[32,512,12,64]",
            "[32,512,12,64]",
            "[32,12,512,512]",
            "window={size=32x12 stride=31x11 lhs_dilate=32x12}, dim_labels=0b1f_0o1i->01bf",
            2 * 32 * 12 * 512 * 512 * 64,
        ),
        (
            "[32,512,3072]",
            "[32,512,768]",
            "[3072,768,1]",
            "window={size=32}, dim_labels=0fb_0io->bf0",
            2 * 32 * 512 * 3072 * 768,
        ),
    ],
)
def test_matmuls_as_convolutions(left, right, result, attributes, flops):
    text = program(f"""%a = bf16{left} parameter(0)
        %b = bf16{right} parameter(1)
        %c = bf16{result}{{1,0:T(8,128)(2,1)}} convolution(%a, %b), {attributes}, metadata={{op_name="dim_labels=x"}}""")
    assert analyse(text, {"x": 1}).flops == flops


def test_matmuls_of_a_gpu():
    config = (
        'backend_config={"gemm_backend_config":{"alpha_real":1,"dot_dimension_numbers":'
        '{"lhs_contracting_dimensions":["2"],"rhs_contracting_dimensions":["1"],"lhs_batch_dimensions":["0"]}}}'
    )
    for target in ("__cublas$gemm", "__cublas$lt$matmul$f8"):
        text = program(f"""%a = bf16[4,8,16] parameter(0)
            %b = bf16[4,16,32] parameter(1)
            %c = (bf16[4,8,32]{{2,1,0}}, s8[1024]{{0}}) custom-call(%a, %b), custom_call_target="{target}", {config}""")
        assert analyse(text, {"x": 1}).flops == 2 * 4 * 8 * 16 * 32
    text = program(
        '%a = bf16[8,16] parameter(0)\n%b = (bf16[8,16]) custom-call(%a), custom_call_target="other", ' + config
    )
    assert analyse(text, {"x": 1}).flops == 0


SLICED = """
%sliced (p: f32[12,100], q: s32[]) -> bf16[1,100] {
  %p = f32[12,100] parameter(0)
  %q = s32[] parameter(1)
  %zero = s32[] constant(0)
  %half = bf16[12,100] convert(%p)
  ROOT %slice = bf16[1,100] dynamic-slice(%half, %q, %zero), dynamic_slice_sizes={1,100}
}

%updated (p.1: f32[12,100], q.1: s32[], r.1: bf16[1,100]) -> f32[12,100] {
  %p.1 = f32[12,100] parameter(0)
  %q.1 = s32[] parameter(1)
  %r.1 = bf16[1,100] parameter(2)
  %zero.1 = s32[] constant(0)
  %long = f32[1,100] convert(%r.1)
  %update = f32[12,100] dynamic-update-slice(%p.1, %long, %q.1, %zero.1)
  ROOT %again = f32[12,100] bitcast(%update)
}

%filled (q.2: s32[], r.2: f32[1,100]) -> f32[12,100] {
  %q.2 = s32[] parameter(0)
  %r.2 = f32[1,100] parameter(1)
  %zero.2 = s32[] constant(0)
  %none = f32[] constant(0)
  %blank = f32[12,100] broadcast(%none), dimensions={}
  ROOT %fill = f32[12,100] dynamic-update-slice(%blank, %r.2, %q.2, %zero.2)
}

%turned (p.3: f32[12,100]) -> f32[12,100] {
  %p.3 = f32[12,100]{1,0:T(8,128)} parameter(0)
  ROOT %turn = f32[12,100]{0,1:T(8,128)} copy(%p.3)
}
"""


@pytest.mark.parametrize(
    "line, moved",
    [
        ("f32[12,100] copy(%big)", 2 * 4800),
        ("f32[12,100]{1,0:T(8,128)S(1)} copy(%big)", 4800),
        ("f32[1,100] copy(%near)", 400),
        ("f32[1,100]{1,0:S(1)} copy(%near)", 0),
        ("f32[2,600] bitcast(%big)", 0),
        ("f32[100] iota(), iota_dimension=0", 400),
        ("f32[1,100] dynamic-slice(%big, %at, %at), dynamic_slice_sizes={1,100}", 2 * 400 + 8),
        ("f32[3,100] gather(%big, %ids), offset_dims={1}", 2 * 1200 + 12),
        ("f32[12,100] dynamic-update-slice(%big, %row, %at, %at)", 2 * 400 + 8),
        (
            "f32[12,100] scatter(%big, %ids, %rows), to_apply=%add",
            3 * 1200 + 12,
        ),  # rows are read, as is what they are added to
        ("bf16[1,100] fusion(%big, %at), kind=kLoop, calls=%sliced", 400 + 4 + 200),
        ("f32[12,100] fusion(%big, %at, %half), kind=kLoop, calls=%updated", 200 + 4 + 400),
        ("f32[12,100] fusion(%at, %row), kind=kLoop, calls=%filled", 400 + 4 + 4800),
        ("f32[12,100] fusion(%big), kind=kLoop, output_to_operand_aliasing={{}: (0, {})}, calls=%turned", 2 * 4800),
        ("f32[12,100]{1,0:S(1)} dynamic-update-slice(%buffer, %row, %at, %at)", 400 + 8),
        ("(f32[12,100]{1,0:S(1)}, f32[12,100], u32[]{:S(2)}) copy-start(%big)", 4800),
        ("((f32[12,100]), f32[2,100], s32[]{:S(2)}) slice-start(%big), slice={[0:2], [0:100]}", 2 * 800),
        ("f32[12,100] copy-done(%big)", 0),
        (
            "(f32[2,100], f32[1,100]) all-reduce(%rows, %row), replica_groups={{0,1}}, to_apply=%add",
            (3 + 1 + 2 + 1) * 400,
        ),
    ],
)
def test_bytes_of_main_memory(line, moved):
    text = program(
        f"""%big = f32[12,100] parameter(0)
        %near = f32[1,100]{{1,0:T(8,128)S(1)}} parameter(1)
        %at = s32[] parameter(2)
        %ids = s32[3] parameter(3)
        %row = f32[1,100] parameter(4)
        %rows = f32[3,100] parameter(5)
        %half = bf16[1,100] parameter(6)
        %buffer = f32[12,100]{{1,0:T(8,128)S(1)}} parameter(7)
        %out = {line}""",
        SLICED,
    )
    assert analyse(text, {"x": 2}).bytes == moved


# An all-gather that a TPU spreads over three fusions, the second of which also multiplies.
GROUPS = """channel_id=5, replica_groups=mesh['axis_0'=1,'axis_1'=4,'axis_2'=2], device_ids=([2,4]T(1,0)) {'axis_1'}"""
CHAIN = f"""
%starts (s: bf16[1,8]) -> (bf16[1,8], bf16[4,8], u32[]) {{
  %s = bf16[1,8] parameter(0)
  %gather.1 = bf16[4,8] all-gather(%s), {GROUPS}, frontend_attributes={{chain_id="3"}}, metadata={{op_name="layer"}}
  ROOT %begin = (bf16[1,8], bf16[4,8], u32[]{{:S(2)}}) custom-call(%gather.1), custom_call_target="AsyncCollectiveStart"
}}

%goes_on (t: bf16[1,8], u: bf16[4,8], v: u32[], a: bf16[16,32], b: bf16[32,64]) -> (bf16[16,64], bf16[1,8], bf16[4,8], bf16[4,8], u32[]) {{
  %t = bf16[1,8] parameter(0)
  %u = bf16[4,8] parameter(1)
  %v = u32[]{{:S(2)}} parameter(2)
  %a = bf16[16,32] parameter(3)
  %b = bf16[32,64] parameter(4)
  %product = bf16[16,64] convolution(%a, %b), dim_labels=bf_io->bf
  %gather.2 = bf16[4,8] all-gather(%t), {GROUPS}, frontend_attributes={{chain_id="3"}}, metadata={{op_name="layer"}}
  ROOT %both = (bf16[16,64], bf16[1,8], bf16[4,8], bf16[4,8], u32[]{{:S(2)}}) tuple(%product, %t, %u, %gather.2, %v)
}}

%ends (w: bf16[1,8], x: bf16[4,8], y: u32[]) -> bf16[4,8] {{
  %w = bf16[1,8] parameter(0)
  %x = bf16[4,8] parameter(1)
  %y = u32[]{{:S(2)}} parameter(2)
  %gather.3 = bf16[4,8] all-gather(%w), {GROUPS}, frontend_attributes={{chain_id="3"}}, metadata={{op_name="layer"}}
  ROOT %done = bf16[4,8] custom-call(%w, %x, %gather.3, %y), custom_call_target="AsyncCollectiveDone"
}}
"""


def test_a_collective_spread_over_fusions_counts_once():
    text = program(
        """%shard = bf16[1,8] parameter(0)
        %left = bf16[16,32] parameter(1)
        %right = bf16[32,64] parameter(2)
        %one = (bf16[1,8], bf16[4,8], u32[]{:S(2)}) fusion(%shard), kind=kCustom, STARTED, calls=%starts
        %one.0 = bf16[1,8] get-tuple-element(%one), index=0
        %one.1 = bf16[4,8] get-tuple-element(%one), index=1
        %one.2 = u32[]{:S(2)} get-tuple-element(%one), index=2
        %two = (bf16[16,64], bf16[1,8], bf16[4,8], bf16[4,8], u32[]{:S(2)}) fusion(%one.0, %one.1, %one.2, %left, %right), PASSED_ON, calls=%goes_on
        %two.1 = bf16[1,8] get-tuple-element(%two), index=1
        %two.2 = bf16[4,8] get-tuple-element(%two), index=2
        %two.4 = u32[]{:S(2)} get-tuple-element(%two), index=4
        %three = bf16[4,8] fusion(%two.1, %two.2, %two.4), kind=kCustom, output_to_operand_aliasing={{}: (1, {})}, calls=%ends""",
        CHAIN,
    )
    text = text.replace(
        "PASSED_ON", "output_to_operand_aliasing={{1}: (0, {}), {2}: (1, {}), {3}: (1, {}), {4}: (2, {})}"
    )
    text = text.replace("STARTED", "output_to_operand_aliasing={{0}: (0, {})}")
    costs = analyse(text, {"data": 2, "model": 4})
    assert costs.collectives == (Collective("all-gather", ("model",), 4, "bf16", 2 * 4 * 8, 1, "layer"),)
    assert costs.flops == 2 * 16 * 32 * 64
    assert costs.bytes == 2 * (8 + 4 * 8) + 2 * (16 * 32 + 32 * 64 + 16 * 64)


def test_an_all_reduce_of_which_a_slice_is_kept_is_a_reduce_scatter():
    def text(attribute):
        return program(
            '%x = f32[8,4] parameter(0)\n%out = f32[2,4] fusion(%x), kind=kCustom, calls=%scattered, metadata={op_name="gradient"}',
            f"""
%scattered (p: f32[8,4]) -> f32[2,4] {{
  %p = f32[8,4] parameter(0)
  %sum = f32[8,4] all-reduce(%p), channel_id=1, replica_groups={{{{0,1,2,3}},{{4,5,6,7}}}}, to_apply=%add{attribute}
  %at = s32[] constant(0)
  ROOT %part = f32[2,4] dynamic-slice(%sum, %at, %at), dynamic_slice_sizes={{2,4}}
}}
""",
        )

    mesh = {"data": 2, "model": 4}
    marked = ', frontend_attributes={from-cross-replica-sharding="true"}'
    assert analyse(text(marked), mesh).collectives == (
        Collective("reduce-scatter", ("model",), 4, "f32", 128, 1, "gradient"),
    )
    assert analyse(text(""), mesh).collectives == (Collective("all-reduce", ("model",), 4, "f32", 128, 1, "gradient"),)


def test_pairs_of_start_and_done_count_once():
    text = program("""%x = f32[8,4] parameter(0)
        %y = f32[8] parameter(1)
        %g = (f32[8,4], f32[16,4]) all-gather-start(%x), replica_groups=[4,2]<=[8], dimensions={0}
        %h = f32[16,4] all-gather-done(%g)
        %r = (f32[8,4], f32[8]) all-reduce-start(%x, %y), replica_groups=[1,8]<=[8], to_apply=%add
        %s = (f32[8,4], f32[8]) all-reduce-done(%r)
        %p = (f32[8,4], f32[8,4], u32[], u32[]) collective-permute-start(%x), source_target_pairs={{0,4},{4,0},{1,5},{5,1}}
        %q = f32[8,4] collective-permute-done(%p)
        %one = f32[8,4] all-reduce(%x), replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}, to_apply=%add""")
    costs = analyse(text, MESH)
    assert [(each.kind, each.axes, each.group, each.bytes) for each in costs.collectives] == [
        ("all-gather", ("z",), 2, 256),
        ("all-reduce", ("x", "y", "z"), 8, 160),
        ("collective-permute", ("x",), 2, 128),
    ]
    assert costs.bytes == (128 + 256) + 2 * 160 + 2 * 128 + 2 * 128


def test_a_program_of_a_larger_mesh_is_refused():
    text = program("%x = f32[8,4] parameter(0)\n%y = f32[8,4] all-reduce(%x), replica_groups=[1,8]<=[8], to_apply=%add")
    with pytest.raises(InputError, match="collective of partition 7, but the mesh {'x': 4} has 4 positions"):
        analyse(text, {"x": 4})


@pytest.mark.parametrize(
    "changes",
    [
        dict(mesh__data=4, mesh__fsdp=2, model__remat="full", accumulation=2),
        # Along the tensor axis some of the heads' products are repeated: few slots and many layers, so that they are a small part.
        dict(mesh__data=2, mesh__fsdp=2, mesh__tensor=2, model__remat="none", model__layers=6, masking__rate=0.02),
    ],
)
def test_the_training_step_does_what_the_formula_says(changes):
    config = small_config(**changes, model__width=128, model__mlp_width=256)
    step = small_program(config, 8)
    text = (
        step.train_step.lower(step.state, batch_shapes(config, step.mesh, slots_of(config), config.batch_size))
        .compile()
        .as_text()
    )
    start = time.perf_counter()
    costs = analyse(text, dict(step.mesh.shape))
    assert time.perf_counter() - start < 5 * max(1, len(text) / 3e6)
    again = forward_flops(step.spec, config.batch_size, config.seq_len, 0) if config.model.remat == "full" else 0
    expected = (step.flops_per_step + again) / 8
    assert (
        expected <= costs.flops <= expected * 1.02
    )  # a product may be repeated where that is cheaper than moving what it takes
    parameters = 4 * sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) for leaf in jax.tree.leaves(step.state))
    assert costs.bytes > 2 * parameters  # at the least, the state is read and written
    assert {axis for each in costs.collectives for axis in each.axes} == {
        axis for axis, size in step.mesh.shape.items() if size > 1
    }

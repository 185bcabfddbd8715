"""Collectives of compiled programs, and the syntaxes of their groups of devices."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from spanbert_jax.errors import InputError
from spanbert_jax.planning.collectives import Collective, device_groups
from spanbert_jax.planning.costs import analyse
from tests.planning.programs import MESH, compiled_text, hlo_program, per_device


@pytest.mark.parametrize(
    "attributes, groups",
    [
        ("replica_groups={{0,1},{2,3}}, dimensions={0}", [(0, 1), (2, 3)]),
        ("replica_groups={{0},{1},{2},{3}}", [(0,), (1,), (2,), (3,)]),
        ("channel_id=1, replica_groups={}, to_apply=%add", [tuple(range(8))]),
        ("to_apply=%add", [tuple(range(8))]),
        ("replica_groups=[2,4]<=[8], dimensions={0}", [(0, 1, 2, 3), (4, 5, 6, 7)]),
        ("replica_groups=[4,2]<=[2,4]T(1,0), dimensions={0}", [(0, 4), (1, 5), (2, 6), (3, 7)]),
        ("replica_groups=[4,2]<=[2,2,2]T(0,2,1)", [(0, 2), (1, 3), (4, 6), (5, 7)]),
        ("replica_groups=mesh['x'=2,'y'=4] {'y'}, use_global_device_ids=true", [(0, 1, 2, 3), (4, 5, 6, 7)]),
        ("replica_groups=mesh['x'=2,'y'=4] {'x'}", [(0, 4), (1, 5), (2, 6), (3, 7)]),
        ("replica_groups=mesh['x'=2,'y'=2,'z'=2] {'x','z'}", [(0, 1, 4, 5), (2, 3, 6, 7)]),
        ("replica_groups=mesh['x'=1,'y'=4,'z'=2], device_ids=([2,4]T(1,0)) {'y'}, x={0}", [(0, 1, 2, 3), (4, 5, 6, 7)]),
        ("replica_groups=mesh['x'=1,'y'=4,'z'=2], device_ids=([2,4]T(1,0)) {'z'}", [(0, 4), (1, 5), (2, 6), (3, 7)]),
        ("replica_groups=mesh['x'=2,'y'=2], device_ids=(3,1,2,0) {'y'}", [(3, 1), (2, 0)]),
        ("replica_groups=mesh['x'=8] {'x':(2)2}", [(0, 2), (1, 3), (4, 6), (5, 7)]),
        ("source_target_pairs={{0,1},{1,0},{2,3}}, metadata", [(2, 3), (0, 1)]),
        ("source_target_pairs={{2,0},{0,1},{1,2},{3,3}}", [(2, 0, 1), (3,)]),
    ],
)
def test_every_syntax_of_groups_is_read(attributes, groups):
    assert device_groups(attributes, 8) == groups


def test_unknown_syntax_of_groups_is_refused():
    with pytest.raises(InputError, match="replica_groups is unknown: replica_groups=some<2>"):
        device_groups("replica_groups=some<2>", 8)


def test_program_of_a_larger_mesh_is_refused():
    text = hlo_program("""%x = f32[8,4] parameter(0)
        %y = f32[8,4] all-reduce(%x), replica_groups=[1,8]<=[8], to_apply=%add""")
    with pytest.raises(InputError, match="collective of partition 7, but the mesh {'x': 4} has 4 positions"):
        analyse(text, {"x": 4})


def test_sum_over_two_axes():
    psum = per_device(lambda a: jax.lax.psum(a, ("x", "z")), P(("x", "z")), P())
    costs = analyse(compiled_text(psum, ((16, 8), P(("x", "z")))), MESH)
    [reduced] = costs.collectives
    assert (reduced.kind, reduced.axes, reduced.group) == ("all-reduce", ("x", "z"), 4)
    assert (reduced.bytes, reduced.count) == (4 * 4 * 8, 1)


def test_kinds_of_collectives():
    def function(a):
        a = jax.lax.ppermute(a, "x", [(0, 1), (1, 0)])
        a = jax.lax.all_to_all(jnp.sin(a), "y", split_axis=0, concat_axis=1, tiled=True)
        return jax.lax.psum_scatter(jnp.sin(a), "z", scatter_dimension=0, tiled=True)

    costs = analyse(compiled_text(per_device(function, P(), P(("x", "y", "z"))), ((8, 8), P())), MESH)
    explicit = costs.collectives[:3]  # the others make the result whole on each device
    assert [(each.kind, each.axes, each.group, each.dtype, each.bytes) for each in explicit] == [
        ("collective-permute", ("x",), 2, "f32", 4 * 64),
        ("all-to-all", ("y",), 2, "f32", 4 * 64),
        ("reduce-scatter", ("z",), 2, "f32", 4 * 64),
    ]


def test_pairs_of_start_and_done_count_once():
    text = hlo_program("""%x = f32[8,4] parameter(0)
        %y = f32[8] parameter(1)
        %g = (f32[8,4], f32[16,4]) all-gather-start(%x), replica_groups=[4,2]<=[8], dimensions={0}
        %h = f32[16,4] all-gather-done(%g)
        %r = (f32[8,4], f32[8]) all-reduce-start(%x, %y), replica_groups=[1,8]<=[8], to_apply=%add
        %s = (f32[8,4], f32[8]) all-reduce-done(%r)
        %p = (f32[8,4], f32[8,4], u32[], u32[]) collective-permute-start(%x), source_target_pairs={{0,4},{4,0},{1,5}}
        %q = f32[8,4] collective-permute-done(%p)
        %one = f32[8,4] all-reduce(%x), replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}, to_apply=%add""")
    costs = analyse(text, MESH)
    assert [(each.kind, each.axes, each.group, each.bytes) for each in costs.collectives] == [
        ("all-gather", ("z",), 2, 256),
        ("all-reduce", ("x", "y", "z"), 8, 160),
        ("collective-permute", ("x",), 2, 128),
    ]
    assert costs.bytes == (128 + 256) + 2 * 160 + 2 * 128 + 2 * 128


SCATTERED = """
%scattered (p: f32[8,4]) -> f32[2,4] {{
  %p = f32[8,4] parameter(0)
  %sum = f32[8,4] all-reduce(%p), channel_id=1, replica_groups={{{{0,1,2,3}},{{4,5,6,7}}}}, to_apply=%add{attribute}
  %at = s32[] constant(0)
  ROOT %shard = f32[2,4] dynamic-slice(%sum, %at, %at), dynamic_slice_sizes={{2,4}}
}}
"""


@pytest.mark.parametrize(
    "attribute, kind",
    [(', frontend_attributes={from-cross-replica-sharding="true"}', "reduce-scatter"), ("", "all-reduce")],
)
def test_marked_all_reduce_of_which_a_slice_is_kept_is_a_reduce_scatter(attribute, kind):
    text = hlo_program(
        """%x = f32[8,4] parameter(0)
        %out = f32[2,4] fusion(%x), kind=kCustom, calls=%scattered, metadata={op_name="gradient"}""",
        SCATTERED.format(attribute=attribute),
    )
    expected = Collective(kind, ("model",), 4, "f32", 128, 1, "gradient")
    assert analyse(text, {"data": 2, "model": 4}).collectives == (expected,)


# An all-gather that a TPU spreads over three fusions, the second of which also multiplies.
GROUPS = "channel_id=5, replica_groups=mesh['axis_0'=1,'axis_1'=4,'axis_2'=2], device_ids=([2,4]T(1,0)) {'axis_1'}"
CHAIN = f"""
%starts (s: bf16[1,8]) -> (bf16[1,8], bf16[4,8], u32[]) {{
  %s = bf16[1,8] parameter(0)
  %gather.1 = bf16[4,8] all-gather(%s), {GROUPS}, frontend_attributes={{chain_id="3"}}, metadata={{op_name="layer"}}
  ROOT %begin = (bf16[1,8], bf16[4,8], u32[]{{:S(2)}}) custom-call(%gather.1), custom_call_target="AsyncCollectiveStart"
}}

%continues (t: bf16[1,8], u: bf16[4,8], v: u32[], a: bf16[16,32], b: bf16[32,64]) -> (bf16[16,64], bf16[1,8], u32[]) {{
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
START_ALIASES = "output_to_operand_aliasing={{0}: (0, {})}"
CONTINUE_ALIASES = "output_to_operand_aliasing={{1}: (0, {}), {2}: (1, {}), {3}: (1, {}), {4}: (2, {})}"
CONTINUE_SHAPE = "(bf16[16,64], bf16[1,8], bf16[4,8], bf16[4,8], u32[]{:S(2)})"
THREE_FUSIONS = f"""
%shard = bf16[1,8] parameter(0)
%left = bf16[16,32] parameter(1)
%right = bf16[32,64] parameter(2)
%one = (bf16[1,8], bf16[4,8], u32[]{{:S(2)}}) fusion(%shard), kind=kCustom, {START_ALIASES}, calls=%starts
%one.0 = bf16[1,8] get-tuple-element(%one), index=0
%one.1 = bf16[4,8] get-tuple-element(%one), index=1
%one.2 = u32[]{{:S(2)}} get-tuple-element(%one), index=2
%two = {CONTINUE_SHAPE} fusion(%one.0, %one.1, %one.2, %left, %right), {CONTINUE_ALIASES}, calls=%continues
%two.1 = bf16[1,8] get-tuple-element(%two), index=1
%two.2 = bf16[4,8] get-tuple-element(%two), index=2
%two.4 = u32[]{{:S(2)}} get-tuple-element(%two), index=4
%three = bf16[4,8] fusion(%two.1, %two.2, %two.4), output_to_operand_aliasing={{{{}}: (1, {{}})}}, calls=%ends
"""


def test_collective_spread_over_fusions_counts_once():
    costs = analyse(hlo_program(THREE_FUSIONS, CHAIN), {"data": 2, "model": 4})
    assert costs.collectives == (Collective("all-gather", ("model",), 4, "bf16", 2 * 4 * 8, 1, "layer"),)
    assert costs.flops == 2 * 16 * 32 * 64
    assert costs.bytes == 2 * (8 + 4 * 8) + 2 * (16 * 32 + 32 * 64 + 16 * 64)

"""The parts of a compiled program's text: shapes, operands, groups of devices, and how often loops run."""

import jax
import jax.numpy as jnp
import pytest

from spanbert_jax.errors import InputError
from spanbert_jax.planning.hlo import Array, device_groups, parse

# A loop in the manner of a TPU: no note of its trips, the counter behind copies, parts of it in fusions.
LOOP = """HloModule loop

%compared (a: s32[], b: s32[]) -> pred[] {{
  %a = s32[] parameter(0)
  %b = s32[] parameter(1)
  ROOT %lt = pred[] compare(%a, %b), direction={direction}
}}

%condition (c: (s32[], f32[4], s32[])) -> pred[] {{
  %c = (s32[], f32[4]{{0:T(128)}}, s32[]) parameter(0)
  %number = s32[] get-tuple-element(%c), index=0
  %limit = s32[] constant({bound})
  %carried_limit = s32[] get-tuple-element(%c), index=2
  ROOT %test = pred[] fusion({sides}), kind=kLoop, calls=%compared
}}

%body (p: (s32[], f32[4], s32[])) -> (s32[], f32[4], s32[]) {{
  %p = (s32[], f32[4]{{0:T(128)}}, s32[]) parameter(0)
  %at = s32[] get-tuple-element(%p), index=0
  %at_copy = s32[]{{:T(128)S(6)}} copy(%at)
  %step = s32[] constant({step})
  %next = s32[] add(%at_copy, %step)
  %x = f32[4] get-tuple-element(%p), index=1
  %end = s32[] get-tuple-element(%p), index=2
  ROOT %out = (s32[], f32[4], s32[]) tuple(%next, %x, %end)
}}

ENTRY %main (x.1: f32[4]) -> f32[4] {{
  %x.1 = f32[4]{{0:T(128)}} parameter(0)
  %start = s32[] constant({start})
  %start_copy = s32[] copy(%start)
  %bound.1 = s32[] constant({bound})
  %init = (s32[], f32[4], s32[]) tuple(%start_copy, %x.1, %bound.1)
  %loop = (s32[], f32[4], s32[]) while(%init), condition=%condition, body=%body, metadata={{op_name="jit(f)/while"}}
  ROOT %result = f32[4] get-tuple-element(%loop), index=1
}}
"""


def trips(text: str) -> list[int | None]:
    """Of the loops of a program, in order."""
    module = parse(text)
    return [
        module.trip_count(computation, one)
        for computation in module.computations.values()
        for one in computation.instructions.values()
        if one.opcode == "while"
    ]


def test_shapes_operands_and_attributes():
    text = """HloModule m
ENTRY %main.3_spmd (p: bf16[2,3]) -> (f32[], bf16[2,3]) {
  %p = bf16[2,3]{1,0:T(8,128)(2,1)S(1)} parameter(0), metadata={op_name="x[\\'a\\']"}
  %s-start.1 = ((bf16[2,3]{1,0:T(8,128)(2,1)}, pred[5]), s4[3,3], /*index=2*/u32[]{:S(2)}) slice-start(bf16[2,3]{1,0} %p), slice={[0:2], [0:3]}
  %c = f32[] constant(-1.5e+3)
  ROOT %t = (f32[], bf16[2,3]) tuple(%c, /*index=1*/%p), metadata={op_name="jit(f)/dot(%q)" x=1}, backend_config={"calls=%no":"%no"}
}
"""
    entry = parse(text).entry
    assert entry.name == "main.3_spmd" and entry.root.name == "t" and entry.parameters == ("p",)
    p, start, c, t = entry.instructions.values()
    assert p.parts == ((Array("bf16", (2, 3), 1),),) and p.arrays[0].bytes == 12 and p.literal == "0"
    assert start.parts == (
        (Array("bf16", (2, 3), 0), Array("pred", (5,), 0)),
        (Array("s4", (3, 3), 0),),
        (Array("u32", (), 2),),
    )
    assert (
        [array.bytes for array in start.arrays] == [12, 5, 5, 4]
        and start.opcode == "slice-start"
        and start.operands == ("p",)
    )
    assert c.literal == "-1.5e+3" and c.operands == ()
    assert t.operands == ("c", "p") and t.op_name == "jit(f)/dot(%q)" and t.called("calls") == ""
    assert entry.users["p"] == [(start, 0), (t, 1)]


@pytest.mark.parametrize("text", ["", "HloModule m\n%f (p: f32[]) -> f32[] {\n  ROOT %p = f32[] parameter(0)\n}\n"])
def test_what_is_no_program_is_refused(text):
    with pytest.raises(InputError, match="no ENTRY computation"):
        parse(text)


@pytest.mark.parametrize(
    "written, groups",
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
def test_groups_of_devices(written, groups):
    assert device_groups(written, 8) == groups


def test_an_unknown_way_to_write_groups_is_refused():
    with pytest.raises(InputError, match="replica_groups .* not known: replica_groups=some<2>"):
        device_groups("replica_groups=some<2>", 8)


@pytest.mark.parametrize("sides", ["%number, %limit", "%number, %carried_limit"])
@pytest.mark.parametrize(
    "direction, start, bound, step, times",
    [
        ("LT", 0, 12, 1, 12),
        ("LT", 1, 12, 1, 11),
        ("LE", 0, 12, 4, 4),
        ("GT", 12, 0, -1, 12),
        ("GE", 6, 0, -3, 3),
        ("NE", 0, 8, 2, 4),
        ("LT", 5, 5, 1, 0),
    ],
)
def test_trips_are_read_off_a_loop_that_counts(direction, start, bound, step, times, sides):
    assert trips(LOOP.format(direction=direction, start=start, bound=bound, step=step, sides=sides)) == [times]


def test_trips_are_read_off_a_comparison_the_other_way_round():
    assert trips(LOOP.format(direction="GT", start=0, bound=7, step=1, sides="%limit, %number")) == [7]


def test_trips_that_cannot_be_told_are_none():
    text = LOOP.format(direction="LT", start=0, bound=7, step=1, sides="%number, %limit")
    assert trips(text) == [7]
    assert trips(text.replace("%start = s32[] constant(0)", "%start = s32[] parameter(1)")) == [None]
    assert trips(text.replace("%next = s32[] add(", "%next = s32[] multiply(")) == [None]


def test_trips_of_a_real_loop_with_and_without_the_note():
    def f(x):
        return jax.lax.fori_loop(3, 10, lambda _, y: jnp.sin(y @ y), x)

    text = jax.jit(f).lower(jnp.ones((64, 64))).compile().as_text()
    assert '"known_trip_count":{"n":"7"}' in text and trips(text) == [7]
    assert trips(text.replace("known_trip_count", "unknown")) == [7]

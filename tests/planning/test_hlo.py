"""Parsing of compiled programs: shapes, operands, attributes, and the trip counts of loops."""

import jax
import jax.numpy as jnp
import pytest

from spanbert_jax.errors import InputError
from spanbert_jax.planning.hlo import Array, parse

# A loop as a TPU's compiler writes it: no note of the trip count, the counter copied, the comparison in a fusion.
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


def trip_counts(text: str) -> list[int | None]:
    """Returns the trip counts of the loops of a program, in order."""
    module = parse(text)
    return [
        module.trip_count(computation, instruction)
        for computation in module.computations.values()
        for instruction in computation.instructions.values()
        if instruction.opcode == "while"
    ]


def test_shapes_operands_and_attributes():
    text = """HloModule m
ENTRY %main.3_spmd (p: bf16[2,3]) -> (f32[], bf16[2,3]) {
  %p = bf16[2,3]{1,0:T(8,128)(2,1)S(1)} parameter(0), metadata={op_name="x[\\'a\\']"}
  %s-start.1 = ((bf16[2,3]{1,0:T(8,128)(2,1)}, pred[5]), s4[3,3], /*index=2*/u32[]{:S(2)}) \
slice-start(bf16[2,3]{1,0} %p), slice={[0:2], [0:3]}
  %c = f32[] constant(-1.5e+3)
  ROOT %t = (f32[], bf16[2,3]) tuple(%c, /*index=1*/%p), metadata={op_name="jit(f)/dot(%q)" x=1}, \
backend_config={"calls=%no":"%no"}
}
"""
    entry = parse(text).entry
    assert (entry.name, entry.root.name, entry.parameters) == ("main.3_spmd", "t", ("p",))
    parameter, start, constant, root = entry.instructions.values()
    assert parameter.outputs == ((Array("bf16", (2, 3), 1),),) and parameter.literal == "0"
    assert parameter.arrays[0].bytes == 12
    bf16, pred, s4, u32 = Array("bf16", (2, 3), 0), Array("pred", (5,), 0), Array("s4", (3, 3), 0), Array("u32", (), 2)
    assert start.outputs == ((bf16, pred), (s4,), (u32,)) and start.computed_arrays == (s4,)
    assert [array.bytes for array in start.arrays] == [12, 5, 5, 4]
    assert (start.opcode, start.operands) == ("slice-start", ("p",))
    assert (constant.literal, constant.operands) == ("-1.5e+3", ())
    assert (root.operands, root.op_name, root.called("calls")) == (("c", "p"), "jit(f)/dot(%q)", "")
    assert entry.users["p"] == [(start, 0), (root, 1)]


@pytest.mark.parametrize("text", ["", "HloModule m\n%f (p: f32[]) -> f32[] {\n  ROOT %p = f32[] parameter(0)\n}\n"])
def test_other_texts_are_refused(text):
    with pytest.raises(InputError, match="no ENTRY computation"):
        parse(text)


@pytest.mark.parametrize("sides", ["%number, %limit", "%number, %carried_limit"])
@pytest.mark.parametrize(
    "direction, start, bound, step, count",
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
def test_trip_count_of_a_counting_loop(direction, start, bound, step, count, sides):
    text = LOOP.format(direction=direction, start=start, bound=bound, step=step, sides=sides)
    assert trip_counts(text) == [count]


def test_trip_count_with_the_sides_of_the_comparison_swapped():
    assert trip_counts(LOOP.format(direction="GT", start=0, bound=7, step=1, sides="%limit, %number")) == [7]


def test_unknown_trip_counts_are_none():
    text = LOOP.format(direction="LT", start=0, bound=7, step=1, sides="%number, %limit")
    assert trip_counts(text) == [7]
    assert trip_counts(text.replace("%start = s32[] constant(0)", "%start = s32[] parameter(1)")) == [None]
    assert trip_counts(text.replace("%next = s32[] add(", "%next = s32[] multiply(")) == [None]


def test_trip_count_of_a_real_loop_with_and_without_the_note():
    def function(x):
        return jax.lax.fori_loop(3, 10, lambda _, y: jnp.sin(y @ y), x)

    text = jax.jit(function).lower(jnp.ones((64, 64))).compile().as_text()
    assert '"known_trip_count":{"n":"7"}' in text and trip_counts(text) == [7]
    assert trip_counts(text.replace("known_trip_count", "unknown")) == [7]

"""Main memory traffic of instructions as compilers for TPU and GPU write them."""

import pytest

from spanbert_jax.planning.costs import analyse
from tests.planning.programs import hlo_program

FUSED = """
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
        # The rows are read, as is what they are added to.
        ("f32[12,100] scatter(%big, %ids, %rows), to_apply=%add", 3 * 1200 + 12),
        ("bf16[1,100] fusion(%big, %at), kind=kLoop, calls=%sliced", 400 + 4 + 200),
        ("f32[12,100] fusion(%big, %at, %half), kind=kLoop, calls=%updated", 200 + 4 + 400),
        ("f32[12,100] fusion(%at, %row), kind=kLoop, calls=%filled", 400 + 4 + 4800),
        ("f32[12,100] fusion(%big), kind=kLoop, output_to_operand_aliasing={{}: (0, {})}, calls=%turned", 2 * 4800),
        ("f32[12,100]{1,0:S(1)} dynamic-update-slice(%buffer, %row, %at, %at)", 400 + 8),
        ("(f32[12,100]{1,0:S(1)}, f32[12,100], u32[]{:S(2)}) copy-start(%big)", 4800),
        ("((f32[12,100]), f32[2,100], s32[]{:S(2)}) slice-start(%big), slice={[0:2], [0:100]}", 2 * 800),
        ("f32[12,100] copy-done(%big)", 0),
        ("(f32[2,100], f32[1,100]) all-reduce(%rows, %row), replica_groups={{0,1}}, to_apply=%add", 7 * 400),
    ],
)
def test_bytes_of_main_memory(line, moved):
    text = hlo_program(
        f"""%big = f32[12,100] parameter(0)
        %near = f32[1,100]{{1,0:T(8,128)S(1)}} parameter(1)
        %at = s32[] parameter(2)
        %ids = s32[3] parameter(3)
        %row = f32[1,100] parameter(4)
        %rows = f32[3,100] parameter(5)
        %half = bf16[1,100] parameter(6)
        %buffer = f32[12,100]{{1,0:T(8,128)S(1)}} parameter(7)
        %out = {line}""",
        FUSED,
    )
    assert analyse(text, {"x": 2}).bytes == moved

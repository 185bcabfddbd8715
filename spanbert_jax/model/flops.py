"""Floating-point operations of a training step, by formula.

The compiler's own count is no help: it counts the body of the scan over layers once.
"""

from spanbert_jax.model.spec import ModelSpec


def forward_flops(spec: ModelSpec, rows: int, seq_len: int, slots: int) -> int:
    """Multiplications and additions of the matrix products of a forward pass (2 a multiply-add; the rest is below 1 %).

    Args:
      rows: B.
      seq_len: L.
      slots: M, of the MLM head and of the SBO head each.
    """
    d, layer = spec.width, sum(_layer_flops(spec, seq_len))
    mlm = 2 * slots * (d * d + d * spec.vocab_size)
    sbo = 2 * slots * ((2 * d + spec.sbo_position_width) * d + d * d + d * spec.vocab_size) if spec.sbo else 0
    nsp = 2 * (d * d + 2 * d) if spec.nsp else 0
    return rows * (spec.layers * layer + mlm + sbo + nsp)


def _layer_flops(spec: ModelSpec, seq_len: int) -> tuple[int, int]:
    """(projections and perceptron, scores and mixing) of one layer's forward pass over one row."""
    d, f = spec.width, spec.mlp_width
    return 2 * seq_len * (4 * d * d + 2 * d * f), 4 * seq_len * seq_len * d


def train_flops(spec: ModelSpec, rows: int, seq_len: int, slots: int) -> int:
    """Of a forward and backward pass: the backward's products are twice the forward's (rematerialised work is not counted)."""
    return 3 * forward_flops(spec, rows, seq_len, slots)


def kernel_flops(spec: ModelSpec, rows: int, seq_len: int) -> int:
    """What a flash kernel does in a train step that no compiler counts: its backward pass has five products for the forward's two."""
    if spec.attention == "xla":
        return 0
    _, attention = _layer_flops(spec, seq_len)
    return int(rows * spec.layers * attention * (3.5 if spec.remat == "none" else 4.5))


def remat_flops(spec: ModelSpec, rows: int, seq_len: int) -> int:
    """What a train step computes a second time under spec.remat: nothing, scores and mixing ("dots"), or the layers' forward pass ("full")."""
    products, attention = _layer_flops(spec, seq_len)
    return rows * spec.layers * {"none": 0, "dots": attention, "full": products + attention}[spec.remat]

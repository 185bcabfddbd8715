"""Floating-point operations of an encoder's matrix products, by formula: 2 per multiply-add. The rest is below 1 %.

The compiler's count cannot be used, since it counts the body of the scan over layers only once.
"""

from spanbert_jax.model.extensions import extensions_of
from spanbert_jax.model.parts import FEED_FORWARDS, PATTERNS, layer_windows
from spanbert_jax.model.spec import ModelSpec

BACKWARD = 2  # products of the backward pass per product of the forward pass


def encoder_flops(spec: ModelSpec, seq_len: int) -> int:
    """Returns the FLOPs of a forward pass over one row of L = seq_len positions, without the embeddings."""
    return sum(_layers_flops(spec, seq_len)) + sum(each.flops(spec, seq_len) for each in extensions_of(spec))


def _layers_flops(spec: ModelSpec, seq_len: int) -> tuple[int, int]:
    """Returns (projections and feed-forward, scores and mixing) of a forward pass of all layers over one row.

    A position of a layer with a window reads one half of it on each side and itself, or its span.
    """
    d, f, windows = spec.width, spec.mlp_width, layer_windows(spec)
    products = 2 * seq_len * (4 * d * d + FEED_FORWARDS[spec.feed_forward].products * d * f)
    reads = PATTERNS[spec.attention_pattern].reads
    of_pattern = [seq_len if window is None else min(seq_len, reads(spec, window)) for window in windows]
    read = sum(of_pattern[number % len(windows)] for number in range(spec.layers))
    return spec.layers * products, 4 * seq_len * read * d


def kernel_flops(spec: ModelSpec, rows: int, seq_len: int) -> int:
    """Returns the FLOPs of flash kernels in a train step, which compilers do not count."""
    if spec.attention == "xla":
        return 0
    _, attention = _layers_flops(spec, seq_len)
    # Two products forward, five backward; with remat the two forward ones twice.
    return int(rows * attention * (3.5 if spec.remat == "none" else 4.5))


def remat_flops(spec: ModelSpec, rows: int, seq_len: int) -> int:
    """Returns the FLOPs that a train step repeats: scores and mixing (remat "dots") or all layers ("full")."""
    products, attention = _layers_flops(spec, seq_len)
    return rows * {"none": 0, "dots": attention, "full": products + attention}[spec.remat]

"""The original's tiny model (docs/original.md 0): its weights, its inputs in our batch format, and what it computed."""

from pathlib import Path

import numpy as np

from spanbert_jax.interop.names import normalised, to_ours
from spanbert_jax.model.spec import ModelSpec

GOLDEN = np.load(Path(__file__).parents[1] / "goldens" / "golden_model.npz")
TIED = ("cls.predictions.decoder.weight", "cls.pair_target_predictions.decoder.weight")

SPEC = ModelSpec(
    layers=3,
    width=32,
    heads=4,
    mlp_width=64,
    max_positions=40,
    sbo_position_width=200,
    norm="layer",
    norm_bias=True,
    norm_placement="post",
    first_norm=True,
    embedding_norm=True,
    qk_norm=False,
    positions="learned",
    rope_base=10_000.0,
    local_rope_base=10_000.0,
    token_types=True,
    tied_output=True,
    feed_forward="gelu",
    attention_pattern="global",
    window=128,
    global_every=3,
    span_length=32,
    bias=True,
    dropout=0.1,
    attention_dropout=0.1,
    init_std=0.02,
    depth_scaled_init=False,
    norm_eps=1e-12,
    attention="xla",
    remat="none",
    scan_unroll=1,
    dtype=np.dtype("float32"),
    vocab_size=97,
    max_targets=7,
)


def tree_of(prefix: str, shapes: dict[str, tuple]) -> dict[str, np.ndarray]:
    """The golden arrays "w/..." or "g/..." by our parameter paths."""
    theirs = {name[2:]: GOLDEN[name] for name in GOLDEN.files if name.startswith(prefix)}
    ours, problems = to_ours({name: array for name, array in normalised(theirs).items() if name not in TIED}, shapes)
    assert not problems and ours.keys() == shapes.keys()
    return ours


def batch() -> dict[str, np.ndarray]:
    """The golden input: every masked position a slot, and every target of a pair row a slot of its own."""
    tokens = GOLDEN["src_tokens"].astype(np.int32)
    rows, length = tokens.shape
    result = dict(
        tokens=tokens,
        segments=(tokens != 0).astype(np.int32),
        positions=np.tile(np.arange(length, dtype=np.int32), (rows, 1)),
        token_types=GOLDEN["segment_labels"].astype(np.int32),
    )
    everywhere = result["positions"]
    targets = GOLDEN["lm_target"].astype(np.int32)
    result |= dict(mlm_positions=everywhere, mlm_targets=targets, mlm_weights=(targets != 0).astype(np.float32))
    pairs, pair_targets = GOLDEN["pairs"].astype(np.int32), GOLDEN["pair_targets"].astype(np.int32)
    _, spans, most = pair_targets.shape
    slots = pair_targets.reshape(rows, -1)
    result |= dict(
        sbo_left=np.repeat(pairs[..., 0], most, axis=1),
        sbo_right=np.repeat(pairs[..., 1], most, axis=1),
        sbo_offset=np.tile(np.arange(most, dtype=np.int32), (rows, spans)),
        sbo_targets=slots,
        sbo_weights=(slots != 0).astype(np.float32),
    )
    return result

"""Flash attention within segments: kernels that never write the [L, L] scores to memory.

cudnn   NVIDIA's kernel for GPUs, through jax.nn
splash  the Pallas kernel for TPUs that comes with JAX; interpreted (slowly) on a CPU

Neither supports dropout of attention probabilities. Both compute scores and softmax in float32.
"""

from typing import Literal

import jax
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash_lib
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

PLATFORMS = {"cudnn": ("gpu",), "splash": ("tpu", "cpu")}  # on which each kernel runs
FASTEST = {"gpu": "cudnn", "tpu": "splash"}  # what "auto" prefers; on a CPU, splash is for tests only

OLD_GPU = "old gpu"  # see platform_of

WINDOWS = ("global", "local", "spans", "spans_and_global")  # patterns that are no more than windows and segments

LANES = 128  # of a TPU's vector registers: splash splits rows into blocks whose size is a multiple of this
MAX_BLOCK = 512  # positions; the scores of a block take 1 MiB of VMEM, besides what the backward pass needs


def platform_of(device: jax.Device) -> str:
    """Returns "cpu", "tpu", "gpu", "old gpu" or "other gpu".

    cuDNN's kernel excludes the last two: older than Ampere, which has no products of bfloat16 either; another maker's.
    """
    if device.platform != "gpu":
        return device.platform
    capability = getattr(device, "compute_capability", "")  # "9.0" of an H100, "7.0" of a V100, "gfx942" of an MI300
    if not capability[:1].isdigit():
        return "other gpu"
    return "gpu" if float(capability) >= 8 else OLD_GPU


def obstacles(kernel: str, config, platform: str | None = None) -> list[str]:
    """Returns what prevents a config from running with a kernel, one line each.

    Args:
      kernel: "cudnn" or "splash".
      config: the whole config.
      platform: as platform_of names it; None: unknown, not checked.
    """
    model, head_width = config.model, config.model.width // max(config.model.heads, 1)
    hardware = "an NVIDIA GPU, Ampere or newer" if kernel == "cudnn" else "a TPU"
    problems = []

    def demand(holds: bool, problem: str, remedy: str):
        if not holds:
            problems.append(f"model.attention {kernel!r} {problem}: {remedy}, or model.attention 'xla'")

    demand(
        model.attention_dropout == 0,
        f"cannot drop attention probabilities, and model.attention_dropout is {model.attention_dropout}",
        "make that 0",
    )
    demand(
        model.attention_pattern in WINDOWS,
        f"supports windows and spans only, and model.attention_pattern is {model.attention_pattern!r}",
        f"make that one of {', '.join(WINDOWS)}",
    )
    demand(
        platform is None or platform in PLATFORMS[kernel],
        f"is for {hardware}, not for the platform {platform!r}",
        "make it 'auto'",
    )
    if kernel == "splash":
        demand(
            config.seq_len % LANES == 0,
            f"splits rows into blocks of {LANES} tokens, not seq_len {config.seq_len}",
            f"make that a multiple of {LANES}",
        )
    else:
        demand(
            head_width % 8 == 0 and head_width <= 128,
            f"needs heads of 8, 16, ... or 128, not model.width / model.heads = {head_width}",
            "change one of these",
        )
        demand(config.seq_len % 2 == 0, f"needs an even seq_len, not {config.seq_len}", "change that")
        demand(model.dtype != "float32", "computes in 16 bits, not in model.dtype 'float32'", "make that 'bfloat16'")
    return problems


def cudnn(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array,
    seeds: None = None,
    implementation: Literal["xla", "cudnn"] = "cudnn",
) -> jax.Array:
    """Computes attention.xla with cuDNN, without dropout, for bfloat16 or float16 and K <= 128, a multiple of 8.

    A mask [B, 1, L, R] is the only form that jax.nn accepts for packed rows; it has as many elements as the scores of
    one head. `implementation` is that of jax.nn; "xla" is for machines without cuDNN.
    """
    del seeds
    return jax.nn.dot_product_attention(q, k, v, mask=mask, implementation=implementation)


def splash(
    q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array, window: int | None = None, interpret: bool = False
) -> jax.Array:
    """Computes attention.attend with Pallas' splash kernel, for L a multiple of 128 and any K.

    Blocks of scores that lie outside the window are not computed. With `interpret` it runs on any platform, slowly.
    """
    _, length, heads, head_width = q.shape
    shape = (length, length)
    mask = masks.FullMask(shape) if window is None else masks.LocalMask(shape, (window // 2, window // 2), 0)
    kernel = splash_lib.make_splash_mha_single_device(
        masks.MultiHeadMask([mask] * heads), block_sizes=_blocks(length), interpret=interpret
    )

    def row(q, k, v, segments):  # [H, L, K] each, and [L]
        return kernel(q, k, v, segment_ids=splash_lib.SegmentIds(segments, segments))

    scale = np.float32(1.0 / np.sqrt(head_width)).astype(q.dtype)  # the kernel does not scale
    q, k, v = (x.swapaxes(1, 2) for x in (q * scale, k, v))
    return jax.vmap(row)(q, k, v, segments).swapaxes(1, 2)


def _blocks(length: int) -> splash_lib.BlockSizes:
    """Returns the largest blocks that divide a length: with few, the fused backward kernel adds few partial sums."""
    size = next(size for size in range(MAX_BLOCK, 0, -LANES) if length % size == 0)
    return splash_lib.BlockSizes(
        block_q=size, block_kv=size, block_q_dkv=size, block_kv_dkv=size, use_fused_bwd_kernel=True
    )

"""Flash attention within segments: kernels that never write the [L, L] scores to memory. What each computes, and what it demands.

cudnn   NVIDIA's, through jax.nn; a GPU
splash  Pallas' for TPUs, which comes with JAX; a TPU, or in slow motion a CPU

Neither can drop attention probabilities. Scores and softmax are float32 inside both.
"""

import jax
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash_lib
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

PLATFORMS = {"cudnn": ("gpu",), "splash": ("tpu", "cpu")}  # that a kernel runs on
FASTEST = {"gpu": "cudnn", "tpu": "splash"}  # what "auto" takes where it can; interpreting splash on a CPU is for tests

LANES = 128  # of a TPU's vector registers: splash cuts rows into blocks of a multiple of this
MAX_BLOCK = 512  # positions; the scores of a block, 1 MiB, lie in VMEM beside what the backward pass needs


def platform_of(device: jax.Device) -> str:
    """ "cpu", "tpu", "gpu", or "other gpu": one that cuDNN's kernel does not know, of another maker or older than Ampere."""
    capability = getattr(device, "compute_capability", "")  # "9.0" of an H100, "gfx942" of an MI300
    if device.platform == "gpu" and not (capability[:1].isdigit() and float(capability) >= 8):
        return "other gpu"
    return device.platform


def obstacles(kernel: str, config, platform: str | None = None) -> list[str]:
    """What keeps a config from running with a kernel of PLATFORMS, one line each; [] if nothing does.

    Args:
      kernel: "cudnn" or "splash".
      config: the whole config.
      platform: as platform_of tells it; None: not known, any will do.
    """
    model, head_width = config.model, config.model.width // max(config.model.heads, 1)
    problems = []

    def demand(holds: bool, problem: str, remedy: str):
        if not holds:
            problems.append(f"model.attention {kernel!r} {problem}: {remedy}, or model.attention 'xla'")

    demand(
        model.attention_dropout == 0 or model.skip_attention_dropout,
        f"cannot drop attention probabilities, and model.attention_dropout is {model.attention_dropout}",
        "make that 0, or model.skip_attention_dropout True to leave that dropout out",
    )
    demand(
        platform is None or platform in PLATFORMS[kernel],
        f"is for {'an NVIDIA GPU, Ampere or newer' if kernel == 'cudnn' else 'a TPU'}, not for the platform {platform!r}",
        "make it 'auto'",
    )
    if kernel == "splash":
        demand(
            config.seq_len % LANES == 0,
            f"cuts rows into blocks of {LANES} tokens, not seq_len {config.seq_len}",
            f"make that a multiple of {LANES}",
        )
    else:
        demand(
            head_width % 8 == 0 and head_width <= 128,
            f"wants heads of 8, 16, ... or 128, not model.width / model.heads = {head_width}",
            "change one of these",
        )
        demand(config.seq_len % 2 == 0, f"wants an even seq_len, not {config.seq_len}", "change that")
        demand(model.dtype != "float32", "computes in 16 bits, not in model.dtype 'float32'", "make that 'bfloat16'")
    return problems


def cudnn(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array, implementation: str = "cudnn") -> jax.Array:
    """Attention by cuDNN, as attention.attend; q, k, v bfloat16 or float16, K <= 128 and a multiple of 8.

    The segments go in as a mask [B, 1, L, L]: the one form that packed rows can take in jax.nn, and as many bytes as the scores of one
    head. `implementation` is jax.nn's, for machines without cuDNN.
    """
    same = segments[:, None, :, None] == segments[:, None, None, :]  # [B, 1, L, L]
    return jax.nn.dot_product_attention(q, k, v, mask=same, implementation=implementation)


def splash(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array, interpret: bool = False) -> jax.Array:
    """Attention by Pallas' splash kernel, as attention.attend; L a multiple of 128, any K.

    With `interpret` it runs on any platform, slowly.
    """
    _, length, heads, head_width = q.shape
    kernel = splash_lib.make_splash_mha_single_device(
        masks.MultiHeadMask([masks.FullMask((length, length))] * heads),
        block_sizes=_blocks(length),
        interpret=interpret,
    )

    def row(q, k, v, segments):  # [H, L, K] each, and [L]
        return kernel(q, k, v, segment_ids=splash_lib.SegmentIds(segments, segments))

    scale = np.float32(1.0 / np.sqrt(head_width)).astype(q.dtype)  # the kernel does not scale
    return jax.vmap(row)(*(x.swapaxes(1, 2) for x in (q * scale, k, v)), segments).swapaxes(1, 2)


def _blocks(length: int) -> splash_lib.BlockSizes:
    """The largest blocks that divide a length; one alone up to MAX_BLOCK, so that the fused backward kernel has no partial sums to add up."""
    size = next(size for size in range(MAX_BLOCK, 0, -LANES) if length % size == 0)
    return splash_lib.BlockSizes(
        block_q=size, block_kv=size, block_q_dkv=size, block_kv_dkv=size, use_fused_bwd_kernel=True
    )

"""Published figures of accelerators, and the measured one of a CPU."""

import time

import jax
import jax.numpy as jnp

# Dense bfloat16 matrix products, FLOP/s of one JAX device, by a part of its device_kind. Sources: cloud.google.com/tpu/docs (system
# architecture pages of v4, v5e, v5p, v6e), NVIDIA data sheets of V100 (fp16), A100 and H100 (SXM, without sparsity).
PEAK_FLOPS = {
    "TPU v4": 275e12, "TPU v5 lite": 197e12, "TPU v5e": 197e12, "TPU v5p": 459e12, "TPU v5": 459e12, "TPU v6": 918e12,
    "V100": 125e12, "A100": 312e12, "H100": 989e12,
}


def peak_flops(device: jax.Device) -> float | None:
    """FLOP/s of one device: published for known accelerators, measured for a CPU (half a second), None for others."""
    if device.platform == "cpu":
        return measured_matmul_flops() / jax.local_device_count()
    return next((flops for kind, flops in PEAK_FLOPS.items() if kind in device.device_kind), None)


def measured_matmul_flops() -> float:
    """The host's best FLOP/s over a few float32 products of two 2048 x 2048 matrices."""
    size = 2048
    x = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda a: a @ a).lower(x).compile()
    product(x).block_until_ready()

    def seconds() -> float:
        start = time.perf_counter()
        product(x).block_until_ready()
        return time.perf_counter() - start

    return 2 * size**3 / min(seconds() for _ in range(4))

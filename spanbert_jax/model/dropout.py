"""Dropout by a counter hash: the mask does not depend on mesh, machine or microbatches, and costs few operations.

Each row of the batch has a seed, so its mask is the same in whichever microbatch and on whichever device it is. The
bits are an elementwise hash of (seed, site, element index): XLA fuses them into the multiplication and shards them like
the activation, and the backward pass needs no stored mask. jax.random's Threefry would also work but costs about fifty
times as much on a CPU.
"""

import jax
import jax.numpy as jnp
import numpy as np

_GOLDEN = np.uint32(0x9E3779B9)  # 2^32 / golden ratio: spreads consecutive counters


def _mix(bits: jax.Array) -> jax.Array:
    """Maps uint32 one-to-one by multiplications and xor-shifts.

    Each input bit flips each output bit with a probability close to 1/2.
    """
    bits = (bits ^ (bits >> 16)) * np.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> 15)) * np.uint32(0x846CA68B)
    return bits ^ (bits >> 16)


def row_seeds(key: jax.Array, rows: int) -> jax.Array:
    """Returns the seeds of a batch, uint32 [rows], from a JAX key."""
    return jax.random.bits(key, (rows,), jnp.uint32)


def fold_in(seeds: jax.Array, number: jax.Array | int) -> jax.Array:
    """Returns other seeds [B] from seeds [B] and the number of a layer or of a site within it."""
    return _mix(seeds + _GOLDEN * (jnp.uint32(number) + np.uint32(1)))


def element_bits(seeds: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns random bits for each element of [B, *shape], uint32, from seeds [B]."""
    index = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(index.ndim)):
        index += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * np.uint32(stride & 0xFFFFFFFF)
        stride *= shape[axis]
    row = seeds.reshape((-1,) + (1,) * index.ndim)
    return _mix(_mix(index * _GOLDEN + row) + row)  # keyed twice: bits of two rows are not shifts of each other


def dropout(x: jax.Array, rate: float, seeds: jax.Array | None) -> jax.Array:
    """Returns x with a share `rate` of its elements zeroed and the others divided by 1 - rate.

    Args:
      x: activations [B, ...].
      rate: in [0, 1); 0 returns x itself.
      seeds: uint32 [B], different for every site at which dropout is applied; None outside training, returns x itself.
    """
    if seeds is None or rate == 0.0:
        return x
    keep = element_bits(seeds, x.shape[1:]) < np.uint32(round((1.0 - rate) * 2**32))
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros((), x.dtype)).astype(x.dtype)

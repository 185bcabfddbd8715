"""Dropout by a counter hash: the same mask on every mesh, machine and microbatch split, at the cost of a few integer operations an element.

Each row of the batch carries a seed, so a row is dropped alike whichever microbatch or device it lands on. The bits are a hash of
(seed, site, element index), elementwise, so XLA fuses them into the multiplication and shards them like the activation itself; the
backward pass needs no stored mask. jax.random's Threefry would do too but costs about fifty times as much on a CPU.
"""

import jax
import jax.numpy as jnp
import numpy as np

_GOLDEN = np.uint32(0x9E3779B9)  # 2^32 / golden ratio: spreads consecutive counters


def _mix(bits: jax.Array) -> jax.Array:
    """A bijection of uint32 in which every input bit flips every output bit with probability close to 1/2 (multiply and xor-shift)."""
    bits = (bits ^ (bits >> 16)) * np.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> 15)) * np.uint32(0x846CA68B)
    return bits ^ (bits >> 16)


def row_seeds(key: jax.Array, rows: int) -> jax.Array:
    """Seeds of a batch, uint32 [rows], from a JAX key."""
    return jax.random.bits(key, (rows,), jnp.uint32)


def fold_in(seeds: jax.Array, number: jax.Array | int) -> jax.Array:
    """Other seeds [B] from seeds [B] and the number of a layer or of a place within one."""
    return _mix(seeds + _GOLDEN * (jnp.uint32(number) + np.uint32(1)))


def element_bits(seeds: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Random bits of each element of [B, *shape], uint32, from seeds [B]."""
    index = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(index.ndim)):
        index += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * np.uint32(stride & 0xFFFFFFFF)
        stride *= shape[axis]
    row = seeds.reshape((-1,) + (1,) * index.ndim)
    return _mix(_mix(index * _GOLDEN + row) + row)  # keyed twice: two rows' bits are not shifts of each other


def dropout(x: jax.Array, rate: float, seeds: jax.Array | None) -> jax.Array:
    """x [B, ...] with a share `rate` of its elements zeroed and the others divided by 1 - rate; x itself without seeds or rate.

    Args:
      x: activations whose first axis is the row.
      rate: in [0, 1).
      seeds: uint32 [B], different for every place dropout is applied at; None outside training.
    """
    if seeds is None or rate == 0.0:
        return x
    keep = element_bits(seeds, x.shape[1:]) < np.uint32(round((1.0 - rate) * 2**32))
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros((), x.dtype)).astype(x.dtype)

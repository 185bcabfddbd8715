"""Matrix products in the activations' type, whose kernels' gradients are summed in float32: over the batch, and over the devices that share it.

Left to itself, JAX gives a kernel that was cast to bfloat16 a bfloat16 gradient, and the compiler sums that over the mesh before it is cast back.
"""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from spanbert_jax.model.spec import ModelSpec

PRODUCT = "product"  # by which rematerialisation knows a result worth keeping: inside a custom gradient it does not see the product itself


def product(equation: str, x: jax.Array, kernel: jax.Array, dtype) -> jax.Array:
    """einsum(equation, x, kernel) with the kernel cast to x's type.

    Args:
      equation: of two operands, such as "BLD,DF->BLF".
      x: activations.
      kernel: float32; so is its gradient, whatever the type of x.
      dtype: of the result; products are summed in float32 on their way there.
    """
    return checkpoint_name(_product(equation, x, kernel, dtype), PRODUCT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def _product(equation, x, kernel, dtype):
    return jnp.einsum(equation, x, kernel.astype(x.dtype), preferred_element_type=dtype)


def _forward(equation, x, kernel, dtype):
    return _product(equation, x, kernel, dtype), (x, kernel)


def _backward(equation, dtype, saved, gradient):
    x, kernel = saved
    of_x, of_kernel, of_product = re.split(",|->", equation)
    gradient = gradient.astype(x.dtype)
    to_x = jnp.einsum(f"{of_product},{of_kernel}->{of_x}", gradient, kernel.astype(x.dtype))
    to_kernel = jnp.einsum(f"{of_x},{of_product}->{of_kernel}", x, gradient, preferred_element_type=jnp.float32)
    return to_x, to_kernel


_product.defvjp(_forward, _backward)


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """x + bias, in x's type; added in float32, so that the bias's gradient, a sum over all rows, is one of float32 too."""
    return (x.astype(jnp.float32) + bias).astype(x.dtype)


class Linear(nn.Module):
    """Linear map with bias: kernel [of `shape`] ~ Normal(0, init_std), bias 0 over the kernel's letters that the equation keeps."""

    spec: ModelSpec
    equation: str
    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, x):
        """x by the equation's first letters -> activations by its last ones, in spec.dtype."""
        _, of_kernel, of_product = re.split(",|->", self.equation)
        kernel = self.param("kernel", nn.initializers.normal(self.spec.init_std), self.shape)
        bias = self.param(
            "bias",
            nn.initializers.zeros,
            tuple(size for letter, size in zip(of_kernel, self.shape) if letter in of_product),
        )
        return add_bias(product(self.equation, x.astype(self.spec.dtype), kernel, self.spec.dtype), bias)

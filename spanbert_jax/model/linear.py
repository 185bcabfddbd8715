"""Matrix products in the activations' type, with float32 gradients of kernels, summed over rows and devices in float32.

By default JAX gives a kernel that was cast to bfloat16 a bfloat16 gradient, and the compiler sums that over the mesh
before it is cast back.
"""

import functools
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from spanbert_jax.model.spec import ModelSpec

# The name by which rematerialisation finds the products to keep: it does not see those inside a custom gradient.
PRODUCT = "product"


def product(equation: str, x: jax.Array, kernel: jax.Array, dtype) -> jax.Array:
    """Returns einsum(equation, x, kernel) with the kernel cast to x's type.

    Args:
      equation: of two operands, such as "BLD,DF->BLF".
      x: activations.
      kernel: float32; its gradient is float32 too, whatever the type of x.
      dtype: of the result; the sums of products are float32 before they are cast to it.
    """
    return checkpoint_name(_product(equation, x, kernel, dtype), PRODUCT)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def _product(equation, x, kernel, dtype):
    return jnp.einsum(equation, x, kernel.astype(x.dtype), preferred_element_type=dtype)


def _forward(equation, x, kernel, dtype):
    return _product(equation, x, kernel, dtype), (x, kernel)


def _backward(equation, dtype, saved, gradient):
    x, kernel = saved
    x_letters, kernel_letters, result_letters = re.split(",|->", equation)
    gradient = gradient.astype(x.dtype)
    to_x = jnp.einsum(f"{result_letters},{kernel_letters}->{x_letters}", gradient, kernel.astype(x.dtype))
    return to_x, _kernel_gradient(x, x_letters, gradient, result_letters, kernel_letters)


def _kernel_gradient(x, x_letters, gradient, result_letters, kernel_letters):
    """Returns einsum(x, gradient -> kernel) in float32, summed over the axes that the kernel does not have.

    Where these lead both operands they are merged into one, since XLA's CPU compiler transposes operands of sums over
    several axes, at the cost of the product itself.
    """
    summed = "".join(letter for letter in x_letters if letter not in kernel_letters)
    if x_letters.startswith(summed) and result_letters.startswith(summed):
        x_letters, result_letters = (letters.replace(summed, "N", 1) for letters in (x_letters, result_letters))
        x, gradient = (array.reshape(-1, *array.shape[len(summed) :]) for array in (x, gradient))
    equation = f"{x_letters},{result_letters}->{kernel_letters}"
    return jnp.einsum(equation, x, gradient, preferred_element_type=jnp.float32)


_product.defvjp(_forward, _backward)


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """Returns x + bias in x's type, added in float32 so that the gradient of the bias, a sum over rows, is float32."""
    return (x.astype(jnp.float32) + bias).astype(x.dtype)


class Linear(nn.Module):
    """A linear map, given by an einsum equation such as "BLD,DF->BLF".

    The kernel of `shape` is drawn from Normal(0, std), with init_std by default; std = 0 makes it 0. The bias is 0, or
    what `bias_init` draws; its axes are those of the kernel that the result has too. The result has the type `dtype`,
    by default that of activations.
    """

    spec: ModelSpec
    equation: str
    shape: tuple[int, ...]
    bias: bool = True
    dtype: Any = None
    std: float | None = None
    bias_init: nn.initializers.Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, x):
        """Returns the einsum of x and the kernel, plus the bias, in `dtype`."""
        _, kernel_letters, result_letters = re.split(",|->", self.equation)
        std = self.spec.init_std if self.std is None else self.std
        kernel = self.param("kernel", nn.initializers.normal(std), self.shape)
        y = product(self.equation, x.astype(self.spec.dtype), kernel, self.dtype or self.spec.dtype)
        if not self.bias:
            return y
        kept = tuple(size for letter, size in zip(kernel_letters, self.shape) if letter in result_letters)
        return add_bias(y, self.param("bias", self.bias_init, kept))

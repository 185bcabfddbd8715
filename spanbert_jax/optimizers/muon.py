"""Muon: the momentum of a matrix, with all its singular values made about 1 (Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon). The kernels of encoder layers and of the hidden layers of heads are trained
by it; embeddings, tables, norms, biases and the kernels that end in classes by AdamW, as Jordan et al. advise.

An orthogonal update U of a matrix [rows, columns] is scaled by 0.2 sqrt(max(rows, columns)), as Liu et al. (2025,
arXiv:2502.16982, section 2.2) do: the root mean square of its elements is then 0.2 whatever the shape, about that of
AdamW's updates, so one learning rate and one weight decay serve both. optimizer.matrix_rate multiplies both for
matrices.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from spanbert_jax.model.layout import Layout, param_path
from spanbert_jax.optimizers.adamw import adam, stored_in_bfloat16
from spanbert_jax.optimizers.groups import LAYERS

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Jordan et al.: steep at 0, so that small singular values grow fast
ITERATIONS = 5
UPDATE_RMS = 0.2


def muon(optimizer, rate: optax.Schedule, decay: optax.GradientTransformation, layout: Layout) -> tuple:
    """Returns the transformations of Muon and AdamW; see spanbert_jax.optimizers.OPTIMIZERS."""

    def kinds(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: "matrix" if is_matrix(param_path(path), leaf.ndim) else "other", params
        )

    orthogonalised = scale_by_muon(optimizer.matrix_momentum, jnp.dtype(optimizer.matrix_dtype), layout)
    if optimizer.state_dtype == "bfloat16":
        orthogonalised = stored_in_bfloat16(orthogonalised)
    moments = optax.partition({"matrix": orthogonalised, "other": adam(optimizer)}, kinds)

    def matrix_rate(path, update):
        return update * optimizer.matrix_rate if is_matrix(param_path(path), update.ndim) else update

    rates = optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(matrix_rate, updates))
    return moments, decay, rates, optax.scale_by_learning_rate(rate)


def is_matrix(path: str, ndim: int) -> bool:
    """Returns whether Muon trains a parameter: a kernel of the encoder layers, or of a head unless it is its output."""
    return path.endswith("/kernel") and (LAYERS in path or (ndim == 2 and not path.endswith("output/kernel")))


class MuonState(NamedTuple):
    """The state of Muon."""

    count: jax.Array  # type: ignore[assignment]  # int32 []: steps done; named as in optax
    mu: Any  # moving average of the gradients


def scale_by_muon(momentum: float, dtype, layout: Layout) -> optax.GradientTransformation:
    """Returns the transformation from gradients of matrices to orthogonal updates, with Nesterov's momentum.

    Args:
      momentum: decay of the moving average of the gradients.
      dtype: of the Newton-Schulz iteration.
      layout: on the mesh.
    """

    def init(params):
        return MuonState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def update(grads, state, params=None):
        del params
        average = jax.tree.map(lambda mu, grad: momentum * mu + (1 - momentum) * grad, state.mu, grads)
        ahead = jax.tree.map(lambda mu, grad: momentum * mu + (1 - momentum) * grad, average, grads)
        return orthogonal_updates(ahead, dtype, layout), MuonState(state.count + 1, average)

    return optax.GradientTransformation(init, update)


def orthogonal_updates(tree, dtype, layout: Layout):
    """Returns a tree of kernels, each replaced by its scaled orthogonal factor.

    Matrices of one shape, those of all layers and kernels, are iterated on together, and spread over the devices of the
    mesh: each device computes some whole matrices, so that there is no communication within the iteration.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    members: dict[tuple[int, ...], list[int]] = {}  # numbers of the leaves, by the shape of their matrices
    matrices = [as_matrices(param_path(path), leaf) for path, leaf in leaves]
    for number, x in enumerate(matrices):
        members.setdefault(x.shape[1:], []).append(number)
    for numbers in members.values():
        x = jnp.concatenate([matrices[number] for number in numbers])
        x = layout.whole_matrices(newton_schulz, normalised(x).astype(dtype)).astype(jnp.float32)
        x *= UPDATE_RMS * math.sqrt(max(x.shape[1:]))
        for number in numbers:
            matrices[number], x = x[: len(matrices[number])], x[len(matrices[number]) :]
    return jax.tree.unflatten(
        structure, [from_matrices(param_path(path), leaf.shape, x) for (path, leaf), x in zip(leaves, matrices)]
    )


def as_matrices(path: str, kernel: jax.Array) -> jax.Array:
    """Returns a kernel as matrices [n, D, other], one for each layer that the encoder's scan stacks.

    Kernels of encoder layers read the model width D, as those of queries, keys and values [layers, D, H, K] do, but for
    those named "output", which write it, such as that of attention [layers, H, K, D]. So do the kernels [other, D] of
    heads. What writes is transposed, and with it its orthogonal factor.
    """
    stacked = kernel if LAYERS in path else kernel[None]
    if writes(path):
        return stacked.reshape(len(stacked), -1, stacked.shape[-1]).mT
    return stacked.reshape(*stacked.shape[:2], -1)


def writes(path: str) -> bool:
    """Returns whether the last axis of a kernel is the model width."""
    return LAYERS not in path or path.endswith("output/kernel")


def from_matrices(path: str, shape: tuple[int, ...], x: jax.Array) -> jax.Array:
    """Returns the kernel of a shape that as_matrices made x of."""
    return (x.mT if writes(path) else x).reshape(shape)


def normalised(x: jax.Array) -> jax.Array:
    """Returns matrices [n, rows, columns] divided by their norm, which is at least their largest singular value."""
    return x / jnp.maximum(jnp.sqrt(jnp.sum(x**2, axis=(1, 2), keepdims=True)), 1e-30)


def newton_schulz(x: jax.Array) -> jax.Array:
    """Returns U S' V^T of matrices U S V^T, all of S' about 1 (0.7 to 1.2), except where S is nearly 0.

    Args:
      x: [n, rows, columns], all of S at most 1.
    """
    a, b, c = (jnp.asarray(coefficient, x.dtype) for coefficient in COEFFICIENTS)

    def iterate(_, x):
        gram = x @ x.mT  # [n, rows, rows]
        return a * x + (b * gram + c * gram @ gram) @ x

    if x.shape[1] <= x.shape[2]:
        return jax.lax.fori_loop(0, ITERATIONS, iterate, x)
    return jax.lax.fori_loop(0, ITERATIONS, iterate, x.mT).mT  # the same, with smaller products

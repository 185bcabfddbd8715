"""Parameter groups: which parameters decay, and factors of their learning rate and decay, chosen by path."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
import optax

from spanbert_jax.model.layout import param_path

EMBEDDINGS, LAYERS = "encoder/embeddings/", "encoder/layers/"  # what the paths of these parameters begin with


class Group(NamedTuple):
    """The parameters whose whole path matches a regular expression, with factors of their rate and weight decay."""

    pattern: str
    rate: float
    decay: float


def parse_group(text: str) -> Group:
    """Parses a group such as "REGEX rate=0.1 decay=0"; a factor that is not given is 1.

    Raises:
      ValueError: the text is not such a group.
    """
    pattern, *settings = text.split()
    factors = {"rate": 1.0, "decay": 1.0}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in factors:
            raise ValueError(f"{setting!r} sets neither rate nor decay")
        factors[key] = float(value)
    re.compile(pattern)
    return Group(pattern, **factors)


def group_problems(texts: tuple[str, ...]) -> list[str]:
    """Returns what is wrong with config.optimizer.groups, one line each."""
    problems = []
    for text in texts:
        try:
            parse_group(text)
        except (ValueError, re.error) as error:
            problems.append(f'optimizer.groups: {text!r} is no "REGEX rate=0.1 decay=0": {error}')
    return problems


def group_of(path: str, groups: list[Group]) -> Group:
    """Returns the first group that matches a parameter; if none does, a group whose factors are 1."""
    return next((group for group in groups if re.fullmatch(group.pattern, path)), Group("", 1.0, 1.0))


def decays(path: str) -> bool:
    """Returns whether a parameter decays by default: kernels and embeddings do, biases and norms do not."""
    return path.rpartition("/")[2] not in ("bias", "scale")


def axes_of_tensor(path: str, leaf: jax.Array) -> tuple[int, ...]:
    """Returns the axes of a parameter that belong to one tensor: all but that of layers, which the scan stacks."""
    return tuple(range(1 if LAYERS in path else 0, leaf.ndim))


def group_decays(optimizer) -> list[float]:
    """Returns the weight decay of each group, and last that of parameters in none."""
    return [optimizer.weight_decay * parse_group(text).decay for text in optimizer.groups] + [optimizer.weight_decay]


def weight_decay(optimizer, factors: Sequence[float] | jax.Array) -> optax.GradientTransformation:
    """Returns decoupled weight decay, to be followed by the learning rate (Loshchilov and Hutter 2019).

    Args:
      optimizer: config.optimizer.
      factors: what group_decays returns, or an array of it, float32 [groups + 1].
    """
    patterns = [parse_group(text).pattern for text in optimizer.groups]

    def mask(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: optimizer.decay_biases_and_norms or decays(param_path(path)), params
        )

    if not patterns:
        return optax.add_decayed_weights(factors[-1], mask=mask)

    def decayed(path, update, param, in_mask):
        number = next((n for n, pattern in enumerate(patterns) if re.fullmatch(pattern, param_path(path))), -1)
        return update + factors[number] * param if in_mask else update

    return optax.stateless(
        lambda updates, params: jax.tree_util.tree_map_with_path(decayed, updates, params, mask(params))
    )


def layer_rates(optimizer, layers: int) -> np.ndarray:
    """Returns the factors of the rates of the embeddings and of each layer, float32 [1 + layers].

    With optimizer.layer_decay d, layer i of n = 1, 2, ... has the factor d^(n + 1 - i), the embeddings d^(n + 1), and
    heads 1 (as in the program of BEiT; Bao et al. 2022). The embeddings and the first `frozen_layers` layers have 0, if
    there are any.
    """
    depth = np.arange(layers + 1)
    rates = np.float32(optimizer.layer_decay) ** (layers + 1 - depth)
    return np.where(optimizer.frozen_layers and depth <= optimizer.frozen_layers, 0, rates).astype(np.float32)


def group_rates(optimizer) -> tuple[optax.GradientTransformation, ...]:
    """Returns a transformation that multiplies updates by the rates of their group and layer; none if all are 1."""
    groups = [parse_group(text) for text in optimizer.groups]
    by_layer = optimizer.layer_decay != 1 or optimizer.frozen_layers
    if not groups and not by_layer:
        return ()

    def scaled(layers: int, path, update):
        path = param_path(path)
        rate = group_of(path, groups).rate
        if by_layer and path.startswith(EMBEDDINGS):
            return update * (rate * layer_rates(optimizer, layers)[0])
        if by_layer and path.startswith(LAYERS):  # stacked on the first axis
            factors = rate * layer_rates(optimizer, layers)[1:]
            return update * factors.reshape(-1, *[1] * (update.ndim - 1))
        return update * rate

    def scale(updates, params):
        leaves = jax.tree_util.tree_leaves_with_path(updates)
        layers = next((len(leaf) for path, leaf in leaves if param_path(path).startswith(LAYERS)), 0)
        return jax.tree_util.tree_map_with_path(lambda path, update: scaled(layers, path, update), updates)

    return (optax.stateless(scale),)

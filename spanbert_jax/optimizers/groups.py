"""Parameter groups: which parameters decay, and factors of their learning rate and decay, chosen by path."""

import re
from typing import NamedTuple

import jax
import optax

from spanbert_jax.model.layout import param_path


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


def weight_decay(optimizer) -> optax.GradientTransformation:
    """Returns decoupled weight decay, to be followed by the learning rate (Loshchilov and Hutter 2019)."""
    groups = [parse_group(text) for text in optimizer.groups]

    def mask(params):
        return jax.tree_util.tree_map_with_path(
            lambda path, _: optimizer.decay_biases_and_norms or decays(param_path(path)), params
        )

    if not groups:
        return optax.add_decayed_weights(optimizer.weight_decay, mask=mask)

    def decayed(path, update, param, in_mask):
        factor = optimizer.weight_decay * group_of(param_path(path), groups).decay
        return update + factor * param if in_mask else update

    return optax.stateless(
        lambda updates, params: jax.tree_util.tree_map_with_path(decayed, updates, params, mask(params))
    )


def group_rates(optimizer) -> tuple[optax.GradientTransformation, ...]:
    """Returns a transformation that multiplies the updates of each group by its rate factor; none without groups."""
    groups = [parse_group(text) for text in optimizer.groups]

    def scaled(path, update):
        return update * group_of(param_path(path), groups).rate

    scale = optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(scaled, updates))
    return (scale,) if groups else ()

"""What a model is made of: the sizes and choices that its modules read."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from spanbert_jax.model import flash

IMPLEMENTATIONS = ("xla", *flash.PLATFORMS)  # of attention

Constrain = Callable[[jax.Array, str], jax.Array]
ShardMap = Callable[[Callable, tuple[str, ...], str], Callable]


def unconstrained(x: jax.Array, letters: str) -> jax.Array:
    """The Constrain of one device: leaves x as it is."""
    del letters
    return x


def unmapped(fn: Callable, inputs: tuple[str, ...], output: str) -> Callable:
    """The ShardMap of one device: leaves the function as it is."""
    del inputs, output
    return fn


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """Fields as in config.model (configs/base.py has a comment on each), with what data and objectives decide beside them."""

    layers: int
    width: int
    heads: int
    mlp_width: int
    max_positions: int
    sbo_position_width: int
    dropout: float
    attention_dropout: float
    init_std: float
    norm_eps: float
    attention: str
    remat: str
    scan_unroll: int
    dtype: Any  # of activations; parameters are always float32
    vocab_size: int
    max_targets: int  # rows of the SBO head's position table
    sbo: bool  # whether there is an SBO head
    nsp: bool  # and one for next sentence prediction
    constrain: Constrain = unconstrained  # lays an activation out over the mesh, by its dimension letters
    shard_map: ShardMap = (
        unmapped  # has each device compute a function on its own shards, by the letters of inputs and output
    )
    interpret: bool = False  # Pallas kernels, as a CPU must
    vocab_multiple: int = 1  # what V is rounded up to in the vocabulary projection

    @property
    def head_width(self) -> int:
        """K, width of one attention head."""
        return self.width // self.heads


def validate(config, platform: str | None = None) -> list[str]:
    """What of config.model this room cannot do, one line each; on a platform, as flash.platform_of tells it, if that is known."""
    name, known = config.model.attention, ("auto", *IMPLEMENTATIONS)
    if name not in known:
        return [f"model.attention must be one of {', '.join(known)}, not {name!r}"]
    return flash.obstacles(name, config, platform) if name in flash.PLATFORMS else []


def implementation(config, platform: str) -> str:
    """Which of IMPLEMENTATIONS a config uses on a platform: "auto" is the platform's kernel if nothing is in its way, else "xla"."""
    if config.model.attention != "auto":
        return config.model.attention
    kernel = flash.FASTEST.get(platform)
    return kernel if kernel and not flash.obstacles(kernel, config, platform) else "xla"


def model_spec(config, vocab_size: int, platform: str, constrain: Constrain = unconstrained) -> ModelSpec:
    """ModelSpec of a valid config for the platform it runs on, as flash.platform_of tells it."""
    fields = {
        name: config.model[name]
        for name in config.model
        if name not in ("dtype", "output_bias", "skip_attention_dropout")
    }
    fields["attention"] = implementation(config, platform)
    if config.model.skip_attention_dropout and fields["attention"] in flash.PLATFORMS:
        fields["attention_dropout"] = 0.0
    dtype = config.model.dtype
    if dtype == "auto":
        dtype = "float32" if platform == "cpu" else "bfloat16"
    return ModelSpec(
        **fields,
        dtype=jnp.dtype(dtype),
        vocab_size=vocab_size,
        max_targets=config.masking.max_targets,
        sbo=config.objectives.sbo_weight != 0,
        nsp=config.objectives.nsp_weight != 0,
        interpret=platform == "cpu",
        constrain=constrain,
    )

"""What a model is made of: the sizes and choices that its modules read."""

import dataclasses
from typing import Any, Callable

import jax
import jax.numpy as jnp

from spanbert_jax.model.attention import IMPLEMENTATIONS

Constrain = Callable[[jax.Array, str], jax.Array]


def unconstrained(x: jax.Array, letters: str) -> jax.Array:
    """The Constrain of one device: leaves x as it is."""
    del letters
    return x


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
    dtype: Any                # of activations; parameters are always float32
    vocab_size: int
    max_targets: int          # rows of the SBO head's position table
    sbo: bool                 # whether there is an SBO head
    nsp: bool                 # and one for next sentence prediction
    constrain: Constrain = unconstrained  # lays an activation out over the mesh, by its dimension letters

    @property
    def head_width(self) -> int:
        """K, width of one attention head."""
        return self.width // self.heads


def validate(config) -> list[str]:
    """What of config.model this room does not know, one line each."""
    known = ("auto", *IMPLEMENTATIONS)
    return [] if config.model.attention in known else [f"model.attention must be one of {', '.join(known)}, not {config.model.attention!r}"]


def model_spec(config, vocab_size: int, platform: str, constrain: Constrain = unconstrained) -> ModelSpec:
    """ModelSpec of a config for the platform ("cpu", "gpu" or "tpu") it runs on."""
    fields = {name: config.model[name] for name in config.model if name not in ("dtype", "output_bias")}
    dtype = config.model.dtype
    if dtype == "auto":
        dtype = "float32" if platform == "cpu" else "bfloat16"
    return ModelSpec(**fields, dtype=jnp.dtype(dtype), vocab_size=vocab_size, max_targets=config.masking.max_targets,
                     sbo=config.objectives.sbo_weight != 0, nsp=config.objectives.nsp_weight != 0, constrain=constrain)

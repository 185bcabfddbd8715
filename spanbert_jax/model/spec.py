"""The sizes and choices that the modules of a model read."""

import contextlib
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from spanbert_jax.model import flash

IMPLEMENTATIONS = ("xla", *flash.PLATFORMS)  # of attention


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """The knobs of config.model under the same names (see configs/base.py), resolved for a platform."""

    layers: int
    width: int
    heads: int
    mlp_width: int
    max_positions: int
    sbo_position_width: int
    norm: str
    norm_bias: bool
    norm_placement: str
    first_norm: bool
    embedding_norm: bool
    qk_norm: bool
    positions: str
    rope_base: float
    local_rope_base: float
    token_types: bool
    tied_output: bool
    feed_forward: str
    attention_pattern: str
    window: int
    global_every: int
    span_length: int
    bias: bool
    dropout: float
    attention_dropout: float
    init_std: float
    depth_scaled_init: bool
    norm_eps: float
    attention: str  # one of IMPLEMENTATIONS
    remat: str
    scan_unroll: int
    dtype: Any  # of activations; parameters are always float32
    vocab_size: int
    max_targets: int  # T, number of rows of the SBO head's position table
    extensions: tuple[str, ...] = ()  # names of entries of EXTENSIONS in extensions/
    options: tuple[tuple[str, Any], ...] = ()  # (name, value) of other knobs of config.model, for parts from outside

    @property
    def head_width(self) -> int:
        """K, the width of one attention head."""
        return self.width // self.heads

    @property
    def output_std(self) -> float:
        """The standard deviation of initial kernels that write to the residual stream (Shoeybi et al. 2019)."""
        return self.init_std / (2 * self.layers) ** 0.5 if self.depth_scaled_init else self.init_std

    def exact_products(self) -> contextlib.AbstractContextManager:
        """While entered, functions that are traced compute float32 products exactly if activations are float32.

        By default a TPU rounds their operands to bfloat16, and a GPU to TF32. Products of bfloat16 are not affected.
        """
        return jax.default_matmul_precision("highest" if self.dtype == jnp.float32 else None)

    def option(self, name: str) -> Any:
        """Returns the value of another knob of config.model."""
        return dict(self.options)[name]


def implementation(config, platform: str) -> str:
    """Returns which of IMPLEMENTATIONS a config uses on a platform.

    "auto" is the platform's flash kernel if nothing prevents it, else "xla".
    """
    if config.model.attention != "auto":
        return config.model.attention
    kernel = flash.FASTEST.get(platform)
    return kernel if kernel and not flash.obstacles(kernel, config, platform) else "xla"


def model_spec(config, vocab_size: int, platform: str) -> ModelSpec:
    """Returns the ModelSpec of a valid config on a platform, as flash.platform_of names it."""
    values = config.model.to_dict() | {"attention": implementation(config, platform)}
    if values["dtype"] == "auto":
        values["dtype"] = "float32" if platform in ("cpu", flash.OLD_GPU) else "bfloat16"
    values |= {"dtype": jnp.dtype(values["dtype"]), "vocab_size": vocab_size, "max_targets": config.masking.max_targets}
    values["extensions"] = tuple(values["extensions"])
    fields = {field.name for field in dataclasses.fields(ModelSpec)}
    options = tuple((name, value) for name, value in values.items() if name not in fields)
    return ModelSpec(**{name: value for name, value in values.items() if name in fields}, options=options)

"""Dynamic attention heads, against numpy."""

import flax.linen as nn
import jax
import numpy as np

from spanbert_jax.model.extensions import dynamic_heads
from spanbert_jax.model.layout import ONE_DEVICE
from spanbert_jax.model.spec import model_spec
from tests.small import TOKENIZER, small_config

SPEC = model_spec(small_config(), TOKENIZER.vocab_size, "cpu")


class Host(nn.Module):
    """A module in which the hook makes its own."""

    @nn.compact
    def __call__(self, x, mixed):
        return dynamic_heads.heads(SPEC, ONE_DEVICE, x, mixed)


def test_gates_equal_numpy():
    draw = np.random.default_rng(0)
    x, mixed, kernel = (draw.normal(size=shape).astype(np.float32) for shape in ((2, 5, 32), (2, 5, 4, 8), (32, 4)))
    found = Host().apply({"params": {dynamic_heads.NAME: {"kernel": kernel}}}, x, mixed)
    np.testing.assert_allclose(found, 2 / (1 + np.exp(-(x @ kernel)))[..., None] * mixed, atol=1e-5)
    start = Host().init(jax.random.key(0), x, mixed)
    np.testing.assert_array_equal(Host().apply(start, x, mixed), mixed)

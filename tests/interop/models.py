"""Small models of ours with every parameter away from its start, so that none can be lost without a test noticing."""

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from spanbert_jax.configs import spanbert
from spanbert_jax.data.tokenizer import Tokenizer, load_tokenizer
from spanbert_jax.model.spec import ModelSpec, model_spec
from spanbert_jax.objectives import MLM, SBO
from spanbert_jax.objectives.pretraining import Objectives, init_params

MODEL = dict(
    layers=3,
    width=24,
    heads=4,
    mlp_width=40,
    max_positions=64,
    sbo_position_width=10,
    dropout=0.1,
    attention_dropout=0.1,
)


def small_config(vocab: str = "tiny") -> ConfigDict:
    config = spanbert.get_config("tiny")
    config.model.update(MODEL)
    config.seq_len = 64
    config.data.vocab = vocab
    config.masking.max_targets = 5
    return config


def tokenizer_of(config) -> Tokenizer:
    return load_tokenizer(config.data.vocab, config.data.lowercase)


def spec_of(config) -> ModelSpec:
    return model_spec(config, tokenizer_of(config).vocab_size, "cpu")


def shapes_of(spec: ModelSpec, objectives: Objectives = (MLM, SBO)) -> dict[str, tuple[int, ...]]:
    shapes = jax.eval_shape(lambda: init_params(spec, objectives, jax.random.key(0)))
    return {path: leaf.shape for path, leaf in flatten_dict(shapes, sep="/").items()}


def random_params(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        path: (rng.normal(0, 0.2, shape) + path.endswith("/scale")).astype(np.float32) for path, shape in shapes.items()
    }


def assert_same(params, expected) -> None:
    """Bit for bit."""
    assert params.keys() == expected.keys()
    for path in expected:
        assert params[path].dtype == expected[path].dtype and np.array_equal(params[path], expected[path]), path

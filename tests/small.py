"""A run small enough for a test: the tiny model shrunk, on a part of the embedded corpus."""

import itertools

import jax
from ml_collections import ConfigDict

from spanbert_jax.configs import spanbert
from spanbert_jax.data.batches import Feed
from spanbert_jax.data.mixture import Mixture
from spanbert_jax.data.sources.embedded import embedded_documents
from spanbert_jax.data.store import open_store, write_store
from spanbert_jax.data.tokenizer import load_tokenizer
from spanbert_jax.training import sharding
from spanbert_jax.training.pretraining import pretraining_program
from spanbert_jax.training.program import Program

MODEL = dict(layers=2, width=32, heads=4, mlp_width=64, sbo_position_width=8, dropout=0.1, attention_dropout=0.1)
TOKENIZER = load_tokenizer("tiny", "auto")


def small_config(**changes) -> ConfigDict:
    """The config, with "a.b" or "a" keys changed; double underscores stand for dots."""
    config = spanbert.get_config("tiny")
    config.update(dict(seq_len=64, batch_size=16, total_steps=20, log_every=5))
    config.model.update(MODEL)
    config.optimizer.update(dict(warmup_steps=2, learning_rate=5e-3))
    config.eval.update(dict(every=10, batch_size=16, max_rows=64))
    config.checkpoint.update(dict(every=10))
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    return config


def small_store(folder):
    """A store of a dozen documents in the folder."""
    documents = {
        split: itertools.islice(embedded_documents(split), count) for split, count in (("train", 12), ("valid", 2))
    }
    write_store(folder, TOKENIZER, documents)
    return open_store(folder)


def small_program(config, devices: int) -> Program:
    """The program on the first `devices` devices."""
    mesh = sharding.make_mesh(config.mesh, jax.devices()[:devices])
    return pretraining_program(config, mesh, TOKENIZER.vocab_size)


def batches_of(store, config, start: int = 0):
    """Training batches from a step on, as numpy."""
    return Feed(config, Mixture([store]), TOKENIZER).training(start)

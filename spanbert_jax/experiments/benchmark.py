"""Benchmarks. A suite is a function that returns {name of a figure, with its unit: number}; some take arguments.

pipeline    masked rows from the input pipeline, seek time, and memory against the size of the corpus
prepare     scripts/prepare_data.py compared with bare tokenisation; see preparation_speed.py
train_step  the whole train step and that of BertForMaskedLM in torch; see step_speed.py
packing     text per second in packed rows and in padded ones; see step_speed.py
start       seconds to the first step, of compilation and of the import; see start_speed.py
checkpoint  seconds of saving and restoring; see start_speed.py
recipes     what the quickstart's recipe learns in the time of SpanBERT's plain one; see recipes.py
finetune    steps of fine-tuning and those of transformers in torch; see step_speed.py
finetune_quality     metrics of fine-tuning and those of transformers in torch; see finetune_quality.py
pretraining_quality  losses and metrics of recipes of pretraining in equal time; see pretraining_quality.py
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from spanbert_jax.configs import base
from spanbert_jax.data.batches import Feed
from spanbert_jax.data.mixture import Mixture
from spanbert_jax.experiments.finetune_quality import finetune_quality
from spanbert_jax.experiments.preparation_speed import TOKENIZER, embedded_store, preparation
from spanbert_jax.experiments.pretraining_quality import pretraining_quality
from spanbert_jax.experiments.recipes import recipes
from spanbert_jax.experiments.start_speed import checkpoint, start
from spanbert_jax.experiments.step_speed import finetune_step, packing, train_step


def resident_bytes() -> int:
    """Returns the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def pipeline() -> dict:
    """Measures rows of 512 tokens with MLM and SBO slots in batches of 256, from corpora of 1 and 16 million tokens."""
    config = base.get_config()
    config.data.max_blocks_per_row = 8
    figures: dict[str, float] = {"seq_len": config.seq_len, "batch_size": config.batch_size}
    with tempfile.TemporaryDirectory() as folder:
        for copies in (1, 16):
            store = embedded_store(Path(folder) / str(copies), copies)
            feed = Feed(config, Mixture([store]), TOKENIZER)
            batches = feed.training(0)
            next(batches)
            speeds = [_tokens_per_second(batches, config, 8) for _ in range(5)]
            figures[f"corpus_{copies}x_tokens"] = store.split("train").num_tokens
            figures[f"corpus_{copies}x_tokens_per_second"] = round(statistics.median(speeds))
            figures[f"corpus_{copies}x_resident_bytes"] = resident_bytes()
        began = time.perf_counter()
        next(feed.training(1_000_000))
        figures["seek_to_step_1000000_seconds"] = round(time.perf_counter() - began, 3)
    return figures


def _tokens_per_second(batches, config, number: int) -> float:
    began = time.perf_counter()
    for _ in range(number):
        next(batches)
    return number * config.batch_size * config.seq_len / (time.perf_counter() - began)


SUITES: dict[str, Callable[..., dict]] = {
    "pipeline": pipeline,
    "prepare": preparation,
    "train_step": train_step,
    "packing": packing,
    "start": start,
    "checkpoint": checkpoint,
    "recipes": recipes,
    "finetune": finetune_step,
    "finetune_quality": finetune_quality,
    "pretraining_quality": pretraining_quality,
}

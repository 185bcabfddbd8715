"""Benchmarks. A suite is a function that returns {name of a figure, with its unit: number}; "prepare" takes a source.

pipeline    masked rows from the input pipeline, seek time, and memory against the size of the corpus
prepare     scripts/prepare_data.py compared with bare tokenisation; see preparation_speed.py
train_step  the whole train step and that of BertForMaskedLM in torch, in turns, so that changes in the speed of the
            machine affect both
"""

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from spanbert_jax.configs import base
from spanbert_jax.data.batches import Feed
from spanbert_jax.data.mixture import Mixture
from spanbert_jax.data.sources import EMBEDDED, find_units
from spanbert_jax.data.store import Store, open_store, write_store
from spanbert_jax.data.tokenizer import load_tokenizer
from spanbert_jax.devices import measured_matmul_flops
from spanbert_jax.experiments.preparation_speed import preparation
from spanbert_jax.training import sharding
from spanbert_jax.training.pretraining import pretraining_program

TOKENIZER = load_tokenizer("cased", "auto")
STEPS_PER_TURN = 2


def embedded_store(folder: Path, copies: int) -> Store:
    """Writes a store of `copies` copies of the embedded corpus, and opens it."""
    train, valid = find_units(EMBEDDED, "", "", "", "blank")
    documents = {
        "train": itertools.chain.from_iterable(train.documents() for _ in range(copies)),
        "valid": valid.documents(),
    }
    write_store(folder, TOKENIZER, documents)
    return open_store(folder)


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


def train_step() -> dict:
    """Measures 4 layers of width 512, L = 128, B = 16, float32, dropout 0.1, 28,996 tokens in the vocabulary.

    This project trains MLM and SBO, torch MLM alone; torch is left out if it is not installed.
    """
    config = base.get_config()
    config.update(dict(seq_len=128, batch_size=16))
    config.data.max_blocks_per_row = 1
    config.model.update(dict(layers=4, width=512, heads=8, mlp_width=2048, dtype="float32", scan_unroll=4))
    ours, flops = _our_step(config)
    contenders = {"ours": ours}
    figures: dict[str, float] = {"flops_per_step": flops}
    theirs = _torch_step(config)
    if theirs is not None:
        contenders["torch_bert_mlm"] = theirs
    peak: list[float] = []
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(6):
        for name, step in contenders.items():
            step()  # not counted: it warms up, and threads of the other contender may still be spinning
            began = time.perf_counter()
            for _ in range(STEPS_PER_TURN):
                step()
            seconds[name].append((time.perf_counter() - began) / STEPS_PER_TURN)
        peak.append(measured_matmul_flops())
    tokens = config.batch_size * config.seq_len
    for name, times in seconds.items():
        figures[f"{name}_tokens_per_second"] = round(tokens / statistics.median(times))
    if theirs is not None:
        ratios = [b / a for a, b in zip(seconds["ours"], seconds["torch_bert_mlm"])]
        figures["speedup_over_torch"] = round(statistics.median(ratios), 2)
    figures["matmul_peak_flops_per_second"] = round(max(peak))
    figures["share_of_matmul_peak"] = round(flops / statistics.median(seconds["ours"]) / max(peak), 3)
    return figures


def _our_step(config) -> tuple[Callable[[], None], int]:
    """Returns a function that does one pretraining step on a real batch, and its floating-point operations."""
    with tempfile.TemporaryDirectory() as folder:
        store = embedded_store(Path(folder) / "store", 1)
        batch = next(Feed(config, Mixture([store]), TOKENIZER).training(0))
    mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
    program = pretraining_program(config, mesh, TOKENIZER.vocab_size)
    state = program.init(None)

    def step():
        nonlocal state
        state, metrics = program.train_step(state, program.put(batch))
        jax.block_until_ready((state, metrics))

    assert program.flops_per_step is not None
    return step, program.flops_per_step


def _torch_step(config) -> Callable[[], None] | None:
    """Returns a function that does one AdamW step of Hugging Face's BertForMaskedLM of the same size.

    Returns None if torch or transformers is not installed.
    """
    try:
        import torch
        import transformers
    except ImportError:
        return None
    model = transformers.BertForMaskedLM(
        transformers.BertConfig(
            vocab_size=TOKENIZER.vocab_size,
            hidden_size=config.model.width,
            num_hidden_layers=config.model.layers,
            num_attention_heads=config.model.heads,
            intermediate_size=config.model.mlp_width,
            max_position_embeddings=config.model.max_positions,
        )
    )
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    rng = np.random.default_rng(0)
    tokens = torch.tensor(rng.integers(1000, TOKENIZER.vocab_size, (config.batch_size, config.seq_len)))
    labels = torch.where(torch.tensor(rng.random(tokens.shape) < 0.15), tokens, -100)

    def step():
        optimizer.zero_grad()
        model(input_ids=tokens, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


SUITES: dict[str, Callable[..., dict]] = {"pipeline": pipeline, "prepare": preparation, "train_step": train_step}

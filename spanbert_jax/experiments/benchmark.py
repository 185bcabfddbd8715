"""Benchmarks: figures, not tests. Each suite is a function () -> dict of figures, the unit in the name.

pipeline    masked rows out of the input pipeline, seek time, and memory against the size of the corpus
prepare     scripts/prepare_data.py beside bare tokenisation; see preparation_speed.py
train_step  the whole update, and beside it that of BertForMaskedLM in torch, in turns, so that a drifting machine treats both alike
"""

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from configs import base
from spanbert_jax.data.batches import Feed, slots_of
from spanbert_jax.data.mixture import Mixture
from spanbert_jax.data.sources import EMBEDDED, find_units
from spanbert_jax.data.store import Store, open_store, write_store
from spanbert_jax.data.tokenizer import load_tokenizer
from spanbert_jax.devices import measured_matmul_flops
from spanbert_jax.experiments.preparation_speed import preparation
from spanbert_jax.training import sharding
from spanbert_jax.training.program import build_program

TOKENIZER = load_tokenizer("cased", "auto")
UPDATES_A_TURN = 2


def embedded_store(folder: Path, copies: int) -> Store:
    """A store of the embedded corpus so many times over."""
    train, valid = find_units(EMBEDDED, "", "", "", "blank")
    documents = {
        "train": itertools.chain.from_iterable(train.documents() for _ in range(copies)),
        "valid": valid.documents(),
    }
    write_store(folder, TOKENIZER, documents)
    return open_store(folder)


def resident_bytes() -> int:
    """Memory of this process that is in RAM now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def pipeline() -> dict:
    """Rows of 512 tokens with MLM and SBO slots, batches of 256, from a corpus of 1 and of 16 million tokens."""
    config = base.get_config()
    config.data.max_blocks_per_row = 8
    figures = {"seq_len": config.seq_len, "batch_size": config.batch_size}
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
    """4 layers x 512, L=128, B=16, float32, dropout 0.1, 28,996 tokens: MLM and SBO here, MLM alone in torch (left out where it is missing)."""
    config = base.get_config()
    config.update(dict(seq_len=128, batch_size=16))
    config.data.max_blocks_per_row = 1
    config.model.update(dict(layers=4, width=512, heads=8, mlp_width=2048, dtype="float32", scan_unroll=4))
    ours, flops = _our_update(config)
    contenders = {"ours": ours}
    figures = {"flops_per_step": flops}
    theirs = _torch_update(config)
    if theirs is not None:
        contenders["torch_bert_mlm"] = theirs
    peak, seconds = [], {name: [] for name in contenders}
    for turn in range(6):
        for name, update in contenders.items():
            update()  # not counted: it warms up, and the threads of the one before it may still be spinning
            began = time.perf_counter()
            for _ in range(UPDATES_A_TURN):
                update()
            seconds[name].append((time.perf_counter() - began) / UPDATES_A_TURN)
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


def _our_update(config) -> tuple[Callable[[], None], int]:
    """(one update of the pretraining step on a real batch, its floating-point operations)."""
    with tempfile.TemporaryDirectory() as folder:
        store = embedded_store(Path(folder) / "store", 1)
        batch = next(Feed(config, Mixture([store]), TOKENIZER).training(0))
    mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
    program = build_program(config, mesh, TOKENIZER.vocab_size, slots_of(config))
    holder = [program.init(None)]

    def update():
        holder[0], metrics = program.train_step(holder[0], sharding.put_batch(mesh, batch))
        jax.block_until_ready((holder[0], metrics))

    return update, program.flops_per_step


def _torch_update(config) -> Callable[[], None] | None:
    """One update of Hugging Face's BertForMaskedLM of the same size with AdamW, or None without torch and transformers."""
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

    def update():
        optimizer.zero_grad()
        model(input_ids=tokens, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return update


SUITES = {"pipeline": pipeline, "prepare": preparation, "train_step": train_step}

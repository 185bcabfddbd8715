"""Steps of training and fine-tuning, and those of transformers in torch.

They are taken in turns, so that changes in the speed of the machine affect both.
"""

import contextlib
import importlib.util
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from spanbert_jax.configs import base
from spanbert_jax.configs.tasks import classification
from spanbert_jax.data.batches import Feed
from spanbert_jax.data.mixture import Mixture
from spanbert_jax.data.sources import EMBEDDED, find_units
from spanbert_jax.data.store import Store, open_store, write_store
from spanbert_jax.devices import measured_matmul_flops
from spanbert_jax.experiments.preparation_speed import TOKENIZER, embedded_store
from spanbert_jax.finetuning.finetune import prepare, task_program
from spanbert_jax.finetuning.start import start_of
from spanbert_jax.tasks import TASKS
from spanbert_jax.training import sharding
from spanbert_jax.training.pretraining import pretraining_program

TURNS, STEPS_PER_TURN = 6, 2  # measurements of each contender, and steps in one
BASE = dict(layers=12, width=768, heads=12, mlp_width=3072)
SIZES = {"small": dict(layers=4, width=512, heads=8, mlp_width=2048), "base256": BASE, "base512": BASE}
BATCHES = {"small": (128, 16), "base256": (256, 4), "base512": (512, 2)}  # L, B
SENTENCES_OF_SHORT_DOCUMENTS = 2
MINILM = dict(layers=6, width=384, heads=12, mlp_width=1536, dtype="float32", scan_unroll=6)


def in_turns(contenders: dict[str, Callable[[], None]], after: Callable[[], None] = lambda: None) -> dict:
    """Returns the seconds of a step in each of TURNS turns, by contender; `after` is called after each turn."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(TURNS):
        for name, step in contenders.items():
            step()  # not counted: it warms up, and threads of the other contender may still be spinning
            began = time.perf_counter()
            for _ in range(STEPS_PER_TURN):
                step()
            seconds[name].append((time.perf_counter() - began) / STEPS_PER_TURN)
        after()
    return seconds


def train_step(size: str) -> dict:
    """Measures a train step on the embedded corpus, float32, dropout 0.1, 28,996 tokens in the vocabulary.

    This project trains MLM and SBO, torch MLM alone; torch is left out if it is not installed.

    Args:
      size: of SIZES.
    """
    config = base.get_config()
    config.update(dict(zip(("seq_len", "batch_size"), BATCHES[size])))
    config.data.max_blocks_per_row = 1
    config.model.update(SIZES[size] | dict(dtype="float32", scan_unroll=SIZES[size]["layers"]))
    ours, flops = pretraining_step(config)
    figures: dict[str, float] = {"flops_per_step": flops}
    peak: list[float] = []
    with torch_step(config, "BertForMaskedLM") as theirs:
        contenders = {"ours": ours} | ({} if theirs is None else {"torch_bert_mlm": theirs})
        seconds = in_turns(contenders, lambda: peak.append(measured_matmul_flops()))
    tokens = config.batch_size * config.seq_len
    for name, times in seconds.items():
        figures[f"{name}_tokens_per_second"] = round(tokens / statistics.median(times))
    figures |= speedup(seconds, "torch_bert_mlm")
    figures["matmul_peak_flops_per_second"] = round(max(peak))
    figures["share_of_matmul_peak"] = round(flops / statistics.median(seconds["ours"]) / max(peak), 3)
    return figures


def speedup(seconds: dict[str, list[float]], other: str) -> dict[str, float]:
    """Returns the median, least and largest ratio of the seconds of another contender and ours in a turn, if any."""
    if other not in seconds:
        return {}
    ratios = [b / a for a, b in zip(seconds["ours"], seconds[other])]
    return {
        "speedup_over_torch": round(statistics.median(ratios), 2),
        "least_speedup": round(min(ratios), 2),
        "largest_speedup": round(max(ratios), 2),
    }


def packing() -> dict:
    """Measures tokens of text per second on documents of about 220 tokens: packed, and padded to rows.

    4 layers of width 256, L = 512, B = 8, float32, dropout 0.1, MLM and SBO.
    """
    contenders: dict[str, Callable[[], None]] = {}
    tokens = {}
    with tempfile.TemporaryDirectory() as folder:
        store = short_documents(Path(folder) / "store")
        for name, blocks in (("packed", 16), ("padded", 1)):
            config = base.get_config()
            config.update(dict(seq_len=512, batch_size=8))
            config.data.max_blocks_per_row = blocks
            config.model.update(dict(layers=4, width=256, heads=4, mlp_width=1024, dtype="float32", scan_unroll=4))
            batch = next(Feed(config, Mixture([store]), TOKENIZER).training(0))
            tokens[name] = int((batch["segments"] > 0).sum())
            mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
            program = pretraining_program(config, mesh, TOKENIZER.vocab_size)
            contenders[name] = repeated(program, batch)
    turns = in_turns(contenders)
    speeds = {name: [tokens[name] / each for each in times] for name, times in turns.items()}
    return {
        **{f"{name}_tokens_of_text_per_step": each for name, each in tokens.items()},
        **{f"{name}_tokens_of_text_per_second": round(statistics.median(each)) for name, each in speeds.items()},
        "speedup_of_packing": round(statistics.median(a / b for a, b in zip(speeds["packed"], speeds["padded"])), 2),
    }


def short_documents(folder: Path) -> Store:
    """Writes and opens a store of the embedded corpus, whose every SENTENCES_OF_SHORT_DOCUMENTS are a document."""

    def documents(unit) -> Iterator[list[str]]:
        for document in unit.documents():
            for start in range(0, len(document), SENTENCES_OF_SHORT_DOCUMENTS):
                yield document[start : start + SENTENCES_OF_SHORT_DOCUMENTS]

    train, valid = find_units(EMBEDDED, "", "", "", "blank")
    write_store(folder, TOKENIZER, {"train": documents(train), "valid": documents(valid)})
    return open_store(folder)


def pretraining_step(config) -> tuple[Callable[[], None], int]:
    """Returns a function that does one pretraining step on a real batch, and its floating-point operations."""
    with tempfile.TemporaryDirectory() as folder:
        store = embedded_store(Path(folder) / "store", 1)
        batch = next(Feed(config, Mixture([store]), TOKENIZER).training(0))
    mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
    program = pretraining_program(config, mesh, TOKENIZER.vocab_size)
    assert program.flops_per_step is not None
    return repeated(program, batch), program.flops_per_step


def finetune_step() -> dict:
    """Measures the classification of 32 texts of 128 tokens with 6 layers of width 384, float32, dropout 0.1.

    The batches are full, for both; how rows of different lengths are put together is not measured.
    """
    config = classification.get_config("table")
    config.update(dict(seq_len=128, batch_size=32))
    config.model.update(MINILM)
    ours = finetuning_step(config)
    with torch_step(config, "BertForSequenceClassification") as theirs:
        seconds = in_turns({"ours": ours} | ({} if theirs is None else {"torch": theirs}))
    figures = {f"{name}_steps_per_second": round(1 / statistics.median(times), 3) for name, times in seconds.items()}
    return figures | speedup(seconds, "torch")


def finetuning_step(config) -> Callable[[], None]:
    """Returns a function that does one step of classification on random words."""
    words = [token for token in TOKENIZER.tokens[1000:6000] if token.isalpha()]
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        lines = (
            f"{' '.join(draw.choices(words, k=config.seq_len))}\t{number % 2}" for number in range(config.batch_size)
        )
        config.task.train = str(Path(folder) / "train.tsv")
        Path(config.task.train).write_text("\n".join(["text\tlabel", *lines]))
        prepared = prepare(start_of(config, Path(folder) / "run"), TASKS["classification"])
    mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
    program = task_program(prepared, mesh, TOKENIZER.vocab_size)
    return repeated(program, next(prepared.feed.training(0)))


def repeated(program, batch) -> Callable[[], None]:
    """Returns a function that does one step on a batch, always the same one."""
    state = program.init(None)

    def step():
        nonlocal state
        state, metrics = program.train_step(state, program.put(batch))
        jax.block_until_ready((state, metrics))

    return step


@contextlib.contextmanager
def torch_step(config, name: str) -> Iterator[Callable[[], None] | None]:
    """Yields a function that does one AdamW step of a class of transformers of the same size.

    Its process is one of its own, since memory.keep_memory is not for torch's users.
    Yields None if torch or transformers is not installed.
    """
    if not (importlib.util.find_spec("torch") and importlib.util.find_spec("transformers")):
        yield None
        return
    sizes: dict[str, Any] = dict(
        vocab_size=TOKENIZER.vocab_size,
        hidden_size=config.model.width,
        num_hidden_layers=config.model.layers,
        num_attention_heads=config.model.heads,
        intermediate_size=config.model.mlp_width,
        max_position_embeddings=config.model.max_positions,
    )
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    shape = (config.batch_size, config.seq_len)
    process = context.Process(target=torch_steps, args=(there, name, sizes, shape), daemon=True)
    process.start()
    there.close()

    def step() -> None:
        here.send(None)
        here.recv()

    yield step
    process.kill()


def torch_steps(connection, name: str, sizes: dict[str, Any], shape: tuple[int, int]) -> None:
    """Does a step each time that something is received, and answers."""
    import torch
    import transformers

    model = getattr(transformers, name)(transformers.BertConfig(**sizes))
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    rng = np.random.default_rng(0)
    tokens = torch.tensor(rng.integers(1000, sizes["vocab_size"], shape))
    masked = torch.where(torch.tensor(rng.random(tokens.shape) < 0.15), tokens, -100)
    labels = masked if name == "BertForMaskedLM" else tokens[:, 0] % 2
    while True:
        connection.recv()
        optimizer.zero_grad()
        model(input_ids=tokens, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        connection.send(None)

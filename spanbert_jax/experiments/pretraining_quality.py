"""Recipes of pretraining compared on novels: each trains a small model for the same time, which is then fine-tuned.

Each recipe gets as many steps as this machine does in the time, which is measured once and kept in steps.json; so a
comparison may be interrupted and shared with other work. Another one, "scratch", is fine-tuned without pretraining.
"""

import dataclasses
import json
import statistics
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import jax
from ml_collections import ConfigDict

from spanbert_jax.configs import baselines, modern
from spanbert_jax.data.batches import Feed
from spanbert_jax.data.mixture import Mixture
from spanbert_jax.data.store import open_store
from spanbert_jax.experiments.finetune_quality import CASES, Case, compare, make_files, our_scores
from spanbert_jax.experiments.preparation_speed import COMMAND
from spanbert_jax.experiments.step_speed import in_turns, repeated
from spanbert_jax.finetuning.finetune import write_json
from spanbert_jax.objectives import MLM
from spanbert_jax.training import sharding
from spanbert_jax.training.metrics import read_metrics
from spanbert_jax.training.pretrain import log, pretrain
from spanbert_jax.training.pretraining import pretraining_program
from spanbert_jax.zeroshot.suite import BOTH

SCRATCH = "scratch"
TASKS_COMPARED, EPOCHS = ("wnut_spans", "polarity"), 4
VOCABULARY = 8_192  # tokens; a small one, whose products do not take most of a step
LOSS = f"{MLM.name}_loss"
CLOZE_WORDS = (2, 3, 4)
MASKS = ("rate=0.15", "schemes=geometric_span", "replacement=span")  # of the evaluation, the same for all


def _modern_without_spans() -> ConfigDict:
    config = modern.get_config("mini")
    baselines.subword(config)
    config.objectives.sbo_weight = 0.0
    return config


RECIPES: dict[str, Callable[[], ConfigDict]] = {
    "bert": lambda: baselines.get_config("bert_1seq-mini"),
    "spanbert": lambda: baselines.get_config("spanbert-mini"),
    "modern_without_spans": _modern_without_spans,
    "modern": lambda: modern.get_config("mini"),
}


def pretraining_quality(data: Path, workdir: Path, minutes: float = 20, seeds: int = 2) -> dict:
    """Does what is missing of the comparison in `workdir`, and prints its tables.

    Rows are 128 tokens long, models 4 layers x 256. BERT's recipe masks random tokens of single segments; SpanBERT's
    masks geometric spans and has the span boundary objective; today's recipe (configs/modern.py) has neither, or both.

    Args:
      data: folder of the data sets, with novels/novels.tar.xz and the paths of finetune_quality.CASES.
      workdir: a folder for the text, models and results; the same call goes on with it.
      minutes: of training for each recipe and seed.
      seeds: of pretraining, each of which is fine-tuned with the same seed.

    Returns:
      Mean and deviation of the held-out MLM loss of each recipe, and of the metric of each task; see summary.
    """
    folders, store = (workdir / "data", data), workdir / "store"
    make_files(data, folders[0])
    if not (workdir / "novels").exists():
        with tarfile.open(data / "novels" / "novels.tar.xz") as archive:
            archive.extractall(workdir / "novels.partial", filter="data")
        (workdir / "novels.partial").rename(workdir / "novels")
    source = f"--input={workdir / 'novels'}/**/*.txt"
    subprocess.run([*COMMAND, source, f"--output={store}", f"--train_vocab={VOCABULARY}"], check=True)
    steps = steps_in(minutes, workdir, store)
    for seed in range(seeds):
        for name in RECIPES:
            if code := pretrain(recipe(name, store, steps[name], seed).lock(), workdir / f"{name}-{seed}"):
                return {"exit_code": code}
    losses = held_out(workdir, seeds)
    log("\n".join(loss_table(losses, steps)))

    def scores_of(case: Case, side: str, seed: int, run: Path) -> dict | None:
        config = case.config(folders, "" if side == SCRATCH else str(workdir / f"{side}-{seed}"), seed)
        if side == SCRATCH:
            like = RECIPES["spanbert"]()
            config.data.vocab = str(store)
            config.model.update({key: like.model[key] for key in ("layers", "width", "heads", "mlp_width")})
        return our_scores(config, run)

    cases = {
        name: dataclasses.replace(CASES[name], sides=(SCRATCH, *RECIPES), seeds=seeds, epochs=EPOCHS, changes={})
        for name in TASKS_COMPARED
    }
    figures = {f"{name}_{LOSS}": round(statistics.mean(each[LOSS]), 4) for name, each in losses.items()}
    return figures | compare(cases, workdir, scores_of)


def recipe(name: str, store: Path, steps: int, seed: int) -> ConfigDict:
    """Returns the config of a pretraining run."""
    config = RECIPES[name]()
    config.seed, config.total_steps = seed, steps
    config.data.store, config.data.vocab = str(store), str(store)
    config.optimizer.warmup_steps = steps // 10
    config.eval.update(dict(every=steps, masking=MASKS, suites=("cloze",)))
    config.checkpoint.update(dict(every=100, keep_last=1))
    config.log_every = 20
    return config


def steps_in(minutes: float, workdir: Path, store: Path) -> dict[str, int]:
    """Returns how many steps each recipe does in the time, as measured in turns on an idle machine the first time."""
    file = workdir / "steps.json"
    if not file.exists():
        turns = {name: step_of(recipe(name, store, 1_000, 0), store) for name in RECIPES}
        seconds = {name: statistics.median(each) for name, each in in_turns(turns).items()}
        write_json(file, {"minutes": minutes, "seconds_per_step": seconds})
    measured = json.loads(file.read_text(encoding="utf-8"))
    return {name: round(60 * measured["minutes"] / each) for name, each in measured["seconds_per_step"].items()}


def step_of(config: ConfigDict, store: Path) -> Callable[[], None]:
    """Returns a function that does one step of a config on a batch of a store."""
    opened = open_store(store)
    tokenizer = opened.tokenizer()
    batch = next(Feed(config, Mixture([opened]), tokenizer).training(0))
    mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
    return repeated(pretraining_program(config, mesh, tokenizer.vocab_size), batch)


def held_out(workdir: Path, seeds: int) -> dict[str, dict[str, list[float]]]:
    """Returns the last evaluation of each recipe: {recipe: {metric: values of the seeds}}."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in RECIPES}
    for name in RECIPES:
        for seed in range(seeds):
            last = [line for line in read_metrics(workdir / f"{name}-{seed}") if f"eval/{LOSS}" in line][-1]
            for metric, value in last.items():
                found[name].setdefault(metric.removeprefix("eval/"), []).append(value)
    return found


def loss_table(losses: dict[str, dict[str, list[float]]], steps: dict[str, int]) -> list[str]:
    """Returns the lines of a Markdown table of the last evaluations: means, and the values of the seeds.

    Span cloze is that of spans of 2 to 4 words: the share that is filled right, and the log-likelihood of a span.
    """
    shown = {"held-out MLM loss": ([LOSS], 1, 3)}
    for head, title in ((MLM.name, "MLM"), (BOTH, "MLM and SBO")):
        for metric, what, factor, digits in (("exact", "right, %", 100, 2), ("log_likelihood", "log-likelihood", 1, 2)):
            keys = [f"cloze/{words}_words/{head}_{metric}" for words in CLOZE_WORDS]
            shown[f"spans by {title}: {what}"] = (keys, factor, digits)
    lines = [f"| recipe | steps | {' | '.join(shown)} |", "|---" * (2 + len(shown)) + "|"]
    for name, metrics in losses.items():
        cells = []
        for keys, factor, digits in shown.values():
            values = [factor * statistics.mean(each) for each in zip(*(metrics.get(key, ()) for key in keys))]
            each = ", ".join(f"{value:.{digits}f}" for value in values)
            cells.append(f"{statistics.mean(values):.{digits}f} ({each})" if values else "")
        lines.append(f"| {name} | {steps[name]:,} | {' | '.join(cells)} |")
    return lines

"""A small model pretrained on novels, with and without spans and SBO, fine-tuned and compared with one from scratch."""

import dataclasses
import subprocess
import tarfile
from pathlib import Path

from spanbert_jax.configs import baselines
from spanbert_jax.experiments.finetune_quality import CASES, Case, compare, make_files, our_scores
from spanbert_jax.experiments.preparation_speed import COMMAND
from spanbert_jax.training.pretrain import pretrain

SIDES = {"scratch": "", "bert_1seq": "bert_1seq-mini", "spanbert": "spanbert-mini"}  # variants of configs/baselines.py
TASKS_COMPARED, EPOCHS = ("wnut_spans", "polarity"), 4
VOCABULARY = 8_192  # tokens; a small one, whose products do not take most of a step
RECIPE = {"optimizer.warmup_steps": 80, "eval.every": 400, "checkpoint.every": 100, "log_every": 20}


def pretraining_quality(data: Path, workdir: Path, steps: int = 800) -> dict:
    """Does what is missing of the comparison in `workdir`, and prints its table.

    Two models see the same text for the same number of steps of 64 rows of 128 tokens: half an hour each on two cores.
    One is trained as BERT on single segments (random tokens are masked), the other one as SpanBERT (geometric spans and
    the span boundary objective). The third one starts from scratch.

    Args:
      data: folder of the data sets, with novels/novels.tar.xz and the paths of finetune_quality.CASES.
      workdir: a folder for the text, models and results; the same call goes on with it.
      steps: of pretraining.

    Returns:
      Mean and standard deviation of the metric of each task and side; see finetune_quality.summary.
    """
    folders, store = (workdir / "data", data), workdir / "store"
    make_files(data, folders[0])
    if not (workdir / "novels").exists():
        with tarfile.open(data / "novels" / "novels.tar.xz") as archive:
            archive.extractall(workdir / "novels.partial", filter="data")
        (workdir / "novels.partial").rename(workdir / "novels")
    source = f"--input={workdir / 'novels'}/**/*.txt"
    subprocess.run([*COMMAND, source, f"--output={store}", f"--train_vocab={VOCABULARY}"], check=True)
    for side in filter(SIDES.get, SIDES):
        if code := pretrain(pretraining_config(side, store, steps).lock(), workdir / side):
            return {"exit_code": code}

    def scores_of(case: Case, side: str, seed: int, run: Path) -> dict | None:
        config = case.config(folders, str(workdir / side) if SIDES[side] else "", seed)
        if not SIDES[side]:
            like = pretraining_config("spanbert", store, steps)
            config.data.vocab = str(store)
            config.model.update({key: like.model[key] for key in ("layers", "width", "heads", "mlp_width")})
        return our_scores(config, run)

    cases = {
        name: dataclasses.replace(CASES[name], sides=tuple(SIDES), epochs=EPOCHS, changes={}) for name in TASKS_COMPARED
    }
    return compare(cases, workdir, scores_of)


def pretraining_config(side: str, store: Path, steps: int):
    """Returns the config of a pretraining run."""
    config = baselines.get_config(SIDES[side])
    config.data.store, config.data.vocab, config.total_steps = str(store), str(store), steps
    config.update_from_flattened_dict(RECIPE)
    return config

"""Fine-tuning compared with the same in transformers and torch: metrics of both, with several seeds, as a table.

Both sides start from the same weights and have the same files, hyper-parameters, schedule and seeds, which are those of
CASES. Each (task, side, seed) writes one JSON file when it ends, and is not repeated: a comparison that was killed goes
on where it was. See transformers_finetuning.py for the other side.
"""

import dataclasses
import gc
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from spanbert_jax.configs.tasks import classification, coref, glue, relations, squad, tagging
from spanbert_jax.errors import InputError
from spanbert_jax.finetuning.finetune import RESULTS_FILE, finetune, write_json
from spanbert_jax.tasks import TASKS
from spanbert_jax.training.pretrain import log

OURS, THEIRS = "ours", "transformers"
HELD_OUT = 10  # of the film reviews, which have no split, one sentence in 10 is not trained on
QUESTIONS = 10  # of the development questions of SQuAD, one in 10 is answered


@dataclasses.dataclass(frozen=True)
class Case:
    """A task, its recipe and its files, whose paths are relative to the folder of the data or of made files."""

    title: str
    recipe: ConfigDict
    metric: str
    epochs: int
    train: str
    valid: str = ""
    test: str = ""
    seeds: int = 3
    sides: tuple[str, ...] = (OURS, THEIRS)
    changes: Mapping[str, object] = dataclasses.field(default_factory=dict)  # of the recipe
    is_fraction: bool = False  # the metric, which is shown in percent

    @property
    def split(self) -> str:
        """The split whose metric is shown."""
        return "test" if self.test else "valid"

    def config(self, folders: Sequence[Path], init: str, seed: int) -> ConfigDict:
        """Returns the config of a run; paths are those of the first folder that has them."""
        config = self.recipe.copy_and_resolve_references()
        config.update_from_flattened_dict({"optimizer.learning_rate": 1e-4, **self.changes})
        config.seed, config.init.path, config.task.epochs = seed, init, self.epochs
        for split in ("train", "valid", "test"):
            paths = filter(None, getattr(self, split).split(","))
            config.task[split] = ",".join(str(located(folders, path)) for path in paths)
        return config


WNUT_TRAIN, WNUT_DEV, WNUT_TEST = (
    f"ner_wnut17/{name}" for name in ("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated")
)

CASES = {
    "cola": Case(
        "CoLA", glue.get_config("cola"), "matthews", 2, "pairs_glue/CoLA/train", "pairs_glue/CoLA/dev", is_fraction=True
    ),
    "wnut": Case("WNUT-17, tokens", tagging.get_config("tokens"), "f1", 2, WNUT_TRAIN, WNUT_DEV, WNUT_TEST),
    "stsb": Case(
        "STS-B",
        glue.get_config("stsb"),
        "mean_correlation",
        1,
        "pairs_glue/STS-B/train",
        "pairs_glue/STS-B/dev",
        is_fraction=True,
    ),
    "polarity": Case(
        "sentence polarity",
        classification.get_config("sentiment"),
        "accuracy",
        1,
        "polarity/train.neg,polarity/train.pos",
        "polarity/valid.neg,polarity/valid.pos",
        is_fraction=True,
    ),
    "rte": Case(
        "RTE", glue.get_config("rte"), "accuracy", 2, "pairs_glue/RTE/train", "pairs_glue/RTE/dev", is_fraction=True
    ),
    "squad": Case(
        "SQuAD 1.1, 4,285 questions",
        squad.get_config("v1"),
        "f1",
        1,
        "squad/train-v1.1.part.json",
        test="squad/dev.json",
        seeds=1,
        changes={"seq_len": 384},
    ),
    "wnut_spans": Case(
        "WNUT-17, spans", tagging.get_config("spans"), "f1", 2, WNUT_TRAIN, WNUT_DEV, WNUT_TEST, sides=(OURS,)
    ),
    "semeval": Case(
        "SemEval-2010 task 8",
        relations.get_config("semeval"),
        "macro_f1",
        2,
        "relations_semeval2010/TRAIN_FILE.TXT",
        test="relations_semeval2010/TEST_FILE_FULL.TXT",
        seeds=1,
        sides=(OURS,),
    ),
    "ontogum": Case(
        "OntoGUM coreference",
        coref.get_config("small"),
        "conll_f1",
        5,
        "coref_ontogum/train",
        "coref_ontogum/dev",
        seeds=1,
        sides=(OURS,),
        is_fraction=True,
    ),
}


def located(folders: Sequence[Path], path: str) -> Path:
    """Returns a path in the first of the folders that has it; GLUE's splits are named without their suffix.

    Raises:
      InputError: none has it.
    """
    for folder in folders:
        if any(folder.glob(f"{path}*")):
            return folder / path
    raise InputError(f"{folders[0] / path}: there is no such file; --input is the folder of the data sets")


def finetune_quality(data: Path, workdir: Path, init: str, names: Sequence[str] = ()) -> dict:
    """Does what is missing of the comparison with transformers in `workdir`, and prints its table.

    Args:
      data: folder of the data sets, with the paths of CASES.
      workdir: a folder for results and unfinished runs.
      init: what both sides start from, a Hugging Face folder.
      names: of CASES; all of them if there are none.

    Returns:
      Mean and standard deviation of the metric of each task and side; see summary.

    Raises:
      InputError: a task is unknown, or files are missing.
    """
    if unknown := set(names) - set(CASES):
        raise InputError(f"--tasks: there is no {', '.join(sorted(unknown))}; it may have {', '.join(CASES)}")
    cases = {name: CASES[name] for name in names or CASES}
    folders = (workdir / "data", data)
    make_files(data, folders[0])
    for case in cases.values():
        case.config(folders, init, 0)  # finds all files

    def scores_of(case: Case, side: str, seed: int, run: Path) -> dict | None:
        config = case.config(folders, init, seed)
        return our_scores(config, run) if side == OURS else their_scores(config)

    return compare(cases, workdir, scores_of)


def compare(cases: Mapping[str, Case], workdir: Path, scores_of: Callable[..., dict | None]) -> dict:
    """Runs what has no result in `workdir` yet, and prints the table of all results; returns their summary.

    Args:
      cases: by name.
      workdir: folder of the results, TASK-SIDE-SEED.json.
      scores_of: (case, side, seed, folder for the run) -> metrics by split; None if a signal ended it.
    """
    for name, case, side, seed in planned(cases):
        result = workdir / f"{name}-{side}-{seed}.json"
        if result.exists():
            continue
        began = time.perf_counter()
        scores = scores_of(case, side, seed, workdir / f"run-{name}-{side}-{seed}")
        if scores is None:
            log("ended by a signal; the same command goes on")
            break
        seconds = round(time.perf_counter() - began, 1)
        write_json(result, {"task": name, "side": side, "seed": seed, "seconds": seconds, **scores})
        log(f"{name}, {side}, seed {seed}: {case.metric} {scores[case.split][case.metric]:.4g}")
        gc.collect()
    log("\n".join(table(workdir, cases)))
    return summary(workdir, cases)


def planned(cases: Mapping[str, Case]) -> Iterator[tuple[str, Case, str, int]]:
    """Yields (name, case, side, seed) of all runs; all tasks have their first seed before any has its second."""
    for seed in range(max(case.seeds for case in cases.values())):
        for name, case in cases.items():
            if seed < case.seeds:
                yield from ((name, case, side, seed) for side in case.sides)


def make_files(data: Path, folder: Path) -> None:
    """Writes the files that the data sets lack into `folder`: a split of the film reviews, and fewer questions."""
    polarity, questions = data / "sentiment_polarity", data / "squad" / "dev-v1.1.json"
    if polarity.is_dir():
        (folder / "polarity").mkdir(parents=True, exist_ok=True)
        for label in ("neg", "pos"):
            lines = (polarity / f"rt-polarity.{label}").read_text(encoding="latin-1").splitlines()
            training = [line for number, line in enumerate(lines) if number % HELD_OUT]
            for split, kept in (("valid", lines[::HELD_OUT]), ("train", training)):
                (folder / "polarity" / f"{split}.{label}").write_text("\n".join(kept) + "\n", encoding="utf-8")
    if questions.exists():
        content, number = json.loads(questions.read_text(encoding="utf-8")), 0
        for article in content["data"]:
            for paragraph in article["paragraphs"]:
                every = range(number, number + len(paragraph["qas"]))
                number = every.stop
                paragraph["qas"] = [question for n, question in zip(every, paragraph["qas"]) if n % QUESTIONS == 0]
            article["paragraphs"] = [paragraph for paragraph in article["paragraphs"] if paragraph["qas"]]
        (folder / "squad").mkdir(parents=True, exist_ok=True)
        (folder / "squad" / "dev.json").write_text(json.dumps(content), encoding="utf-8")


def our_scores(config: ConfigDict, workdir: Path) -> dict | None:
    """Returns the metrics of a run of ours by split; None if a signal ended it. Its folder is removed at the end."""
    config.compile_cache = str(workdir.parent / "compiled")
    if finetune(config.lock(), workdir, TASKS[config.task.name]):
        return None
    results = json.loads((workdir / RESULTS_FILE).read_text(encoding="utf-8"))
    shutil.rmtree(workdir)
    jax.clear_caches()
    return {split: results[split] for split in ("valid", "test") if split in results}


def their_scores(config: ConfigDict) -> dict:
    """Returns the metrics of the same in transformers, by split."""
    try:
        from spanbert_jax.experiments.transformers_finetuning import finetune_transformers
    except ImportError as error:
        raise InputError("the comparison needs pip install torch transformers") from error
    return finetune_transformers(config)


def summary(workdir: Path, cases: Mapping[str, Case]) -> dict:
    """Returns {"TASK_SIDE_mean", "TASK_SIDE_std" (of the sample), "TASK_SIDE_seeds"} for all that has ended."""
    figures: dict[str, float] = {}
    for name, case in cases.items():
        for side in case.sides:
            values = metrics_of(workdir, name, case, side)
            if values:
                key = f"{name}_{side}"
                figures |= {f"{key}_mean": float(np.mean(values)), f"{key}_seeds": len(values)}
                if len(values) > 1:
                    figures[f"{key}_std"] = float(np.std(values, ddof=1))
    return figures


def metrics_of(workdir: Path, name: str, case: Case, side: str) -> list[float]:
    """Returns the metric of each seed that has ended, in percent."""
    files = [workdir / f"{name}-{side}-{seed}.json" for seed in range(case.seeds)]
    results = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]
    return [result[case.split][case.metric] * (100 if case.is_fraction else 1) for result in results]


def table(workdir: Path, cases: Mapping[str, Case]) -> list[str]:
    """Returns the lines of a Markdown table of what has ended: mean, and deviation of the seeds."""
    figures = summary(workdir, cases)

    def shown(name: str, side: str) -> str:
        key = f"{name}_{side}"
        if f"{key}_mean" not in figures:
            return ""
        spread = f" ± {figures[f'{key}_std']:.2f}" if f"{key}_std" in figures else ""
        return f"{figures[f'{key}_mean']:.2f}{spread}"

    sides = list(dict.fromkeys(side for case in cases.values() for side in case.sides))
    lines = [f"| task | metric | epochs | seeds | {' | '.join(sides)} |", "|---" * (4 + len(sides)) + "|"]
    for name, case in cases.items():
        seeds = max(figures.get(f"{name}_{side}_seeds", 0) for side in sides)
        metric = f"{case.metric.replace('_', ' ')}, {case.split}"
        scores = " | ".join(shown(name, side) for side in sides)
        lines.append(f"| {case.title} | {metric} | {case.epochs} | {seeds} | {scores} |")
    return lines

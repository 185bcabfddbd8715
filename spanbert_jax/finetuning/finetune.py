"""A fine-tuning run from start to end. Resuming is the same call as starting."""

import contextlib
import dataclasses
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from spanbert_jax import config as config_lib
from spanbert_jax.errors import InputError
from spanbert_jax.finetuning.evaluation import BEST, Predictions, TaskEvaluation, saved_params
from spanbert_jax.finetuning.feed import TaskFeed, bucket_sizes, fingerprint
from spanbert_jax.finetuning.folds import fold_problems, without_fold
from spanbert_jax.finetuning.start import Start, start_of, started
from spanbert_jax.finetuning.task import Row, Task, batch_shapes
from spanbert_jax.folders import replace_file
from spanbert_jax.model.encoder import model_problems, parameter_layouts
from spanbert_jax.model.flash import platform_of
from spanbert_jax.model.layout import ONE_DEVICE, Layout
from spanbert_jax.model.spec import ModelSpec, model_spec
from spanbert_jax.optimizers import optimizer_problems
from spanbert_jax.phases import phases_of
from spanbert_jax.trackers.tracking import check_trackers
from spanbert_jax.training import sharding
from spanbert_jax.training.checkpoint import Checkpoints
from spanbert_jax.training.pretrain import check_resumable, log, new_record, opening, started_tracking
from spanbert_jax.training.processes import agreed, ending_together, is_first
from spanbert_jax.training.program import Program, build_program, keep_compiled
from spanbert_jax.training.resuming import check_allowed
from spanbert_jax.training.run import Evaluation, Part, Run, Watch
from spanbert_jax.training.step import Trainable
from spanbert_jax.training.workdir import check_shared, check_workdir, newest_checkpoint, occupied, write_run

TASK_FILE, RESULTS_FILE = "task.json", "results.json"


class Split(NamedTuple):
    """Examples and their rows."""

    examples: list
    rows: list[Row]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A task with its data, and the config with the numbers of steps that follow from them."""

    config: ConfigDict
    task: Task
    splits: dict[str, Split]  # "train", and "valid" and "test" if the config names them
    eval_sizes: list[int]  # to which rows are padded in the evaluation
    feed: TaskFeed
    notes: list[str]


def finetune(config, workdir: Path, kind: type[Task], allowed: Collection[str] = (), watch: Watch | None = None) -> int:
    """Fine-tunes a model to the end of its epochs in `workdir`, from its newest checkpoint if it has one.

    Each process of a run calls it.

    Args:
      config: the whole config.
      workdir: folder of the run.
      kind: the task.
      allowed: keys of the config that may differ from those of the run so far.
      watch: see training.run.Run.

    Returns:
      0 at the end; 128 + its number if a signal (processes.SIGNALS) ended the run after saving.

    Raises:
      InputError: the config, the data or the workdir must be fixed, or the model does not fit the devices. Nothing is
        written then.
      Diverged: loss or gradient is not finite.
    """
    with ending_together(lambda: newest_checkpoint(workdir)), contextlib.ExitStack() as stack:
        with agreed(same=f"{config_lib.to_json(config)}{allowed}"):
            check_allowed(allowed)
            check_trackers(config)
            start = start_of(config, workdir)
            mesh = sharding.mesh_of(start.config, jax.devices(), all_problems(start.config, kind))
            prepared = prepare(start, kind)
            config = prepared.config
            check_workdir(workdir, config, allowed)
        keep_compiled(config.compile_cache)
        with agreed():
            if is_first():
                stack.enter_context(occupied(workdir, config))
        with agreed():
            check_shared(workdir)
            program = task_program(prepared, mesh, start.tokenizer.vocab_size)
        code, program = train(start, prepared, program, workdir, allowed, watch)
        if not code:
            finish(prepared, program, workdir)
        return code


def train(
    start: Start, prepared: Prepared, program: Program, workdir: Path, allowed: Collection[str], watch: Watch | None
) -> tuple[int, Program]:
    """Trains from the newest checkpoint, or from the start; returns finetune's exit code, and the compiled program."""
    config = prepared.config
    record = new_record(config, fingerprint(prepared.splits["train"].rows), start.tokenizer.fingerprint)
    checkpoints = Checkpoints(workdir / "checkpoints", config.checkpoint.keep_last, config.checkpoint.keep_every)
    with agreed():
        step = checkpoints.latest()
        made = check_resumable(checkpoints, step, program, record, allowed, "task.train")
        record["changes"] = [dataclasses.asdict(change) for change in made]
    log("\n".join([*prepared.notes, f"vocabulary: {start.tokenizer.summary()}"]))
    program = program.compiled(config, log)
    with agreed():
        if step is None:
            same = {f"{prepared.task.name}/{ours}": theirs for ours, theirs in prepared.task.starts_from.items()}
            state = started(program.init(None), start.params, config.task.reinitialised_layers, same)
        else:
            state = checkpoints.restore(step, program.state)
        if is_first():
            write_run(workdir, config, record)
            write_json(workdir / TASK_FILE, {"labels": prepared.task.labels})
            start.tokenizer.save(workdir)
    evaluation = evaluation_of(prepared, program, workdir)
    part = Part(phases_of(config)[0], program, prepared.feed, evaluation)
    with contextlib.closing(started_tracking(config, workdir, record)) as tracking:
        run = Run(config, workdir, [part], record, checkpoints, watch, tracking)
        return run.train(state, opening(config, int(state.step), made) if step else start.summary()), program


def all_problems(config, kind: type[Task]) -> list[str]:
    """Returns every problem of a config that can be found without data, one line each."""
    task = config.task
    problems = [
        *config_lib.config_problems(config),
        *model_problems(config, platform_of(jax.devices()[0])),
        *optimizer_problems(config.optimizer),
        *kind.problems(config),
    ]
    if not task.train:
        problems.append("task.train names no examples: give --config.task.train=FILES")
    new, layers = task.reinitialised_layers, config.model.layers
    if new > layers:
        problems.append(f"task.reinitialised_layers {new} is more than the {layers} layers of the model")
    if config.phases:
        problems.append("phases are for pretraining: leave them out")
    problems += fold_problems(task)
    if task.patience and not task.valid and not task.folds:
        problems.append("task.patience needs task.valid, on whose metric a run ends early")
    return list(dict.fromkeys(problems))


def prepare(start: Start, kind: type[Task]) -> Prepared:
    """Returns the task of a config with all its data.

    Raises:
      InputError: files cannot be read, or have nothing to train on.
    """
    config = start.config.copy_and_resolve_references()
    named = {name: config.task[name] for name in ("train", "valid", "test") if config.task[name]}
    read = {name: kind.read(config, source) for name, source in named.items()}
    notes = [note for _, of_split in read.values() for note in of_split]
    task = kind(config, start.tokenizer, kind.labels_of(config, read["train"][0]))
    if folds := config.task.folds:
        examples, notes_of_train = read["train"]
        training, held_out = without_fold(examples, kind.belonging(examples), folds, config.task.fold)
        read |= {"train": (training, notes_of_train), "valid": (held_out, [])}
        named["valid"] = f"fold {config.task.fold} of {folds}"
        notes.append(f"{named['valid']}: {len(training):,} examples to train on, {len(held_out):,} to validate on")
    splits = {name: Split(examples, task.features(examples, name == "train")) for name, (examples, _) in read.items()}
    for name, split in splits.items():
        if not split.rows:
            raise InputError(f"task.{name} {named[name]}: there is no example in it")
    lengths = {name: [task.size(row) for row in split.rows] for name, split in splits.items()}
    sizes = bucket_sizes(lengths.pop("train"), config.task.sizes, task.multiple)  # which no other split may change
    feed = TaskFeed(task, splits["train"].rows, config.batch_size, config.seed, sizes)
    longer = [length for of_split in lengths.values() for length in of_split if length > sizes[-1]]
    eval_sizes = sizes + (bucket_sizes(longer, config.task.sizes, task.multiple) if longer else [])
    config.total_steps = config.task.epochs * feed.steps_per_epoch
    config.optimizer.warmup_steps = int(config.task.warmup_fraction * config.total_steps)
    every = max(feed.steps_per_epoch // config.task.evaluations_per_epoch, 1)
    config.checkpoint.every, config.eval.every = every, every if "valid" in splits else 0
    return Prepared(config.lock(), task, splits, eval_sizes, feed, notes)


def task_trainable(prepared: Prepared, spec: ModelSpec, layout: Layout) -> Trainable:
    """Returns the model and loss of a task."""
    task, sizes = prepared.task, prepared.feed.sizes
    model = task.model(spec, layout)

    def init(key, _):
        alone = task.model(dataclasses.replace(spec, attention="xla"), ONE_DEVICE)  # which accepts any length
        shapes = batch_shapes(task, 1, sizes[0])
        batch = {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in shapes.items()}
        return alone.init(key, batch, None)["params"]

    def shapes_of(sizes):
        return lambda rows: tuple(batch_shapes(task, rows, size) for size in reversed(sizes))

    def loss(params, batch, counts, seeds):
        return task.loss(model.apply({"params": params}, batch, seeds), batch, counts)

    def evaluate(params, batch):
        return task.inference(model, params, batch)

    return Trainable(
        spec=spec,
        init=init,
        counts=task.counts,
        loss=loss,
        evaluate=evaluate,
        batch_shapes=shapes_of(sizes),
        eval_shapes=shapes_of(prepared.eval_sizes),
        layouts=layouts(task, spec),
        flops=None,
    )


def layouts(task: Task, spec: ModelSpec):
    """Returns the layouts of all parameters, by regular expressions of their whole path."""
    return (*parameter_layouts(spec), *((f"{task.name}/({pattern})", axes) for pattern, axes in task.layouts))


def task_program(prepared: Prepared, mesh: Mesh, vocab_size: int) -> Program:
    """Returns the program of a task on a mesh."""
    platform = platform_of(mesh.devices.flat[0])
    spec = model_spec(prepared.config, vocab_size, platform)
    layout = sharding.layout_on(mesh, interpret=platform == "cpu")
    return build_program(prepared.config, mesh, task_trainable(prepared, spec, layout))


def predictions_of(prepared: Prepared, program: Program, split: str) -> Predictions:
    """Returns the predictions for a split."""
    examples, rows = prepared.splits[split]
    return Predictions(prepared.task, program, examples, rows, prepared.eval_sizes, prepared.config.eval.batch_size)


def evaluation_of(prepared: Prepared, program: Program, workdir: Path) -> Evaluation:
    """Returns the evaluation on the validation examples; one that does nothing without them."""
    config = prepared.config
    if "valid" not in prepared.splits:
        return Evaluation()
    return TaskEvaluation(predictions_of(prepared, program, "valid"), workdir, config.task.patience, config.eval.every)


def finish(prepared: Prepared, program: Program, workdir: Path) -> None:
    """Scores the best checkpoint on the test examples, writes results.json, and logs what is in it."""
    checkpoints = Checkpoints(workdir / (BEST if "valid" in prepared.splits else "checkpoints"), read_only=True)
    step = checkpoints.latest()
    assert step is not None
    results: dict[str, Any] = {"step": step, "metric": prepared.task.metric}
    if "valid" in prepared.splits:
        results["valid"] = prepared.task.tuned = checkpoints.record(step)["metrics"]
    if "test" in prepared.splits:
        params = saved_params(checkpoints, step, program.state.params)
        results["test"] = predictions_of(prepared, program, "test").scores(params)
    checkpoints.close()
    scored = next((prepared.splits[name] for name in ("test", "valid") if name in prepared.splits), None)
    if scored and (signatures := prepared.task.signatures(scored.examples)):
        results["signatures"] = signatures
    if is_first():
        write_json(workdir / RESULTS_FILE, results)
    for split in ("valid", "test"):
        if split in results:
            shown = "  ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in results[split].items())
            log(f"checkpoint of step {step:,}, {split}: {shown}")


def write_json(path: Path, content: dict) -> None:
    """Writes an object as JSON, completely or not at all."""
    with replace_file(path, unique=False) as file:
        file.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")

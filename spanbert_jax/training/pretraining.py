"""What pretraining gives to the loop: checks of its config, the model and losses, and evaluation on held-out text."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from spanbert_jax.config import config_problems, evaluation_config
from spanbert_jax.data.batches import Feed, data_problems, slots_of
from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.errors import InputError
from spanbert_jax.folders import replace_file
from spanbert_jax.interop.families import family_of
from spanbert_jax.model.encoder import model_problems
from spanbert_jax.model.flash import platform_of
from spanbert_jax.model.layout import Layout
from spanbert_jax.model.spec import ModelSpec, model_spec
from spanbert_jax.objectives import pretraining as objectives
from spanbert_jax.objectives.mlm import MLM
from spanbert_jax.optimizers import optimizer_problems
from spanbert_jax.phases import Phase, phases_of
from spanbert_jax.training import sharding
from spanbert_jax.training.processes import is_first
from spanbert_jax.training.program import Program, build_program
from spanbert_jax.training.run import Evaluation
from spanbert_jax.training.step import Trainable, averages
from spanbert_jax.zeroshot import Subject, make_suites, suite_problems
from spanbert_jax.zeroshot.suite import Scores, Suite, slot_scores

EXAMPLES_FILE = "examples.npz"  # metrics of each example of the suites in the last evaluation, by name


def all_problems(config, device) -> list[str]:
    """Returns every problem of a config on such a device that can be found without a corpus, one line each."""
    try:
        phases = phases_of(config)
    except InputError as error:
        return [*str(error).splitlines(), *_problems(config, device)]
    problems = _problems(phases[0].config, device)
    for phase in phases[1:]:
        more = [problem for problem in _problems(phase.config, device) if problem not in problems]
        problems += [f"phases, after step {phase.first:,}: {problem}" for problem in more]
    return list(dict.fromkeys(problems))


def _problems(config, device) -> list[str]:
    """Returns the problems of the config of a phase."""
    problems = [
        *config_problems(config),
        *data_problems(config),
        *model_problems(config, platform_of(device)),
        *objectives.objective_problems(config),
        *optimizer_problems(config.optimizer),
    ]
    problems += suite_problems(config.eval.suites)
    if config.eval.suites and not config.eval.every:
        problems.append("eval.suites are evaluated every eval.every steps, and that is 0: raise it")
    every, evaluated = config.checkpoint.export_every, config.eval.every
    if every and (not evaluated or every % evaluated):
        problems.append(
            f"checkpoint.export_every {every} must be a multiple of eval.every {evaluated}: cards have the metrics"
        )
    if every and family_of(config) is None:
        problems.append("checkpoint.export_every is given, and transformers has no counterpart for this encoder")
    if "task" in config:
        problems.append(f"the config is of the task {config.task.name!r}, not of pretraining: see scripts/finetune.py")
    return problems


def checked_mesh(config, devices, slices: int = 0) -> Mesh:
    """Returns the mesh of a config over these devices, after every check that needs no corpus; see sharding.mesh_of."""
    mesh = sharding.mesh_of(config, devices, all_problems(config, devices[0]), slices)
    later = [
        f"phases, after step {phase.first:,}: {problem}"
        for phase in phases_of(config)[1:]
        for problem in sharding.mesh_problems(phase.config, mesh.shape)
    ]
    if later:
        raise InputError("\n".join(later))
    return mesh


def trainable(config, spec: ModelSpec, layout: Layout) -> Trainable:
    """Returns the pretraining model of a config with its objectives."""
    heads, trained, options = objectives.with_heads(config), objectives.trained(config), config.objectives
    slots, eval_slots = slots_of(config), slots_of(evaluation_config(config))

    def init(key, token_bias):
        params = objectives.init_params(spec, heads, key, objectives.batch_shapes(config, slots, 1))
        return params if token_bias is None else objectives.with_token_bias(params, token_bias)

    def counts(batch):
        return objectives.batch_counts(batch, trained, options)

    def loss(params, batch, counts, seeds):
        outputs = objectives.apply(spec, layout, heads, params, batch, seeds)
        return objectives.loss_and_sums(outputs, batch, counts, trained, options)

    def evaluate(params, batch):
        ones = {objective.name: 1.0 for objective in trained}
        _, sums = loss(params, batch, ones, None)
        return {o.name: sums[o.name] | {"count": o.count(batch)} for o in trained}

    return Trainable(
        spec=spec,
        init=init,
        counts=counts,
        loss=loss,
        evaluate=evaluate,
        batch_shapes=lambda rows: (objectives.batch_shapes(config, slots, rows),),
        eval_shapes=lambda rows: (objectives.batch_shapes(config, eval_slots, rows),),
        layouts=objectives.layouts(spec, heads),
        flops=objectives.forward_flops(spec, heads, 1, config.seq_len, slots),
        divisor=(lambda counts: counts[MLM.name]) if config.optimizer.divide_by_targets else None,
    )


def pretraining_program(config, mesh: Mesh, vocab_size: int) -> Program:
    """Returns the program of a valid config on a mesh, of real devices or of a topology to compile for."""
    platform = platform_of(mesh.devices.flat[0])
    spec, layout = model_spec(config, vocab_size, platform), sharding.layout_on(mesh, interpret=platform == "cpu")
    return build_program(config, mesh, trainable(config, spec, layout))


def compiled(phases: list[Phase], programs: list[Program], done: int, log: Callable[[str], None]) -> list[Program]:
    """Returns the programs of phases, compiled but for those of phases that are over after step `done`.

    Phases that differ only in what their batches contain share one.
    """
    made: dict[tuple, Program] = {}
    found = []
    for phase, program in zip(phases, programs):
        if done < phase.last:
            shapes = (program.batch_shapes(phase.config.batch_size), program.batch_shapes(1, evaluated=True))
            key = (program.spec, str(shapes), phase.config.accumulation)
            if key not in made:
                made[key] = program.compiled(phase.config, log)
            program = made[key]
        found.append(program)
    return found


class HeldOutEvaluation(Evaluation):
    """Evaluates losses and accuracies on the held-out rows, whose masks are always the same; also per store."""

    def __init__(
        self,
        program: Program,
        feed: Feed,
        suites: Sequence[Suite],
        workdir: Path,
        export: Callable[[int, Any, dict], object] | None = None,
    ):
        """Prepares the evaluation; `export` is called with (step, parameters, metrics) of the steps to export."""
        config, self.workdir = feed.config, workdir
        self.examples: dict[str, Any] = {}  # metrics of the last evaluation, by name, of each example
        self.suites = [(suite, suite_scorer(program, suite)) for suite in suites]
        self.rows = config.eval.batch_size
        self.export_every, self.export = config.checkpoint.export_every, export
        self.program, self.feed = program, feed
        counts = [rows.split.token_counts for rows in feed.valid.values()]
        self.entropy = unigram_entropy(np.sum(counts, axis=0)) if config.eval.every else 0.0

    def __call__(self, params, interrupted: Callable[[], int]) -> dict[str, float] | None:
        """Returns "mlm_loss", "mlm_count", ..., "unigram_entropy", and "STORE/mlm_loss", ... for several stores."""
        part = sharding.rows_here(self.program.mesh, self.rows)
        by_store = {}
        for name in self.feed.names:
            totals = None
            for batch in self.feed.held_out(name, part):
                sums = self.program.eval_step(params, self.program.put(batch, self.rows))
                totals = sums if totals is None else jax.tree.map(jnp.add, totals, sums)
                if interrupted():
                    return None
            by_store[name] = jax.tree.map(lambda value: value.item(), jax.device_get(totals))
        total = jax.tree.map(lambda *values: sum(values), *by_store.values())
        metrics = eval_averages(total) | {"unigram_entropy": self.entropy}
        if len(by_store) > 1:
            for name, sums in by_store.items():
                metrics |= {f"{name}/{key}": value for key, value in eval_averages(sums).items()}
        for suite, scorer in self.suites:
            scores = []
            for batch in suite.batches(self.rows):
                scores.append(jax.device_get(scorer(params, batch)))
                if interrupted():
                    return None
            examples = suite.examples(scores, self.rows)
            self.examples |= examples
            metrics |= suite.metrics(examples)
        return metrics

    def keep(self, step: int, params, metrics: dict[str, float]) -> None:
        """Writes what the suites found of each example, and exports the parameters if they are due."""
        if self.examples and is_first():
            with replace_file(self.workdir / EXAMPLES_FILE, "wb", unique=False) as file:
                np.savez_compressed(file, **self.examples)
        if self.export and self.export_every and step % self.export_every == 0:
            self.export(step, params, metrics)


def suites_of(feed: Feed, tokenizer: Tokenizer) -> list[Suite]:
    """Returns the suites that the config of a run names.

    Raises:
      InputError: a file of theirs is wrong; names the line.
    """
    config = feed.config
    subject = Subject(config, tokenizer, objectives.with_heads(config), list(feed.valid.values()))
    return make_suites(config.eval.suites, subject)


def suite_scorer(program: Program, suite: Suite) -> Callable[[Any, dict[str, np.ndarray]], Scores]:
    """Returns the function (params, whole batch of a suite) -> scores, on every device."""
    mesh = program.mesh
    spec = dataclasses.replace(program.spec, attention="xla")  # the implementation that accepts rows of any length
    layout = sharding.layout_on(mesh, interpret=platform_of(mesh.devices.flat[0]) == "cpu")
    of_params = jax.tree.map(lambda leaf: leaf.sharding, program.state.params)
    score = jax.jit(
        functools.partial(slot_scores, spec, layout, suite.heads),
        in_shardings=(of_params, sharding.batch_sharding(mesh)),
        out_shardings=sharding.replicated(mesh),
    )

    def scorer(params, batch):
        rows = len(batch["tokens"])
        here = sharding.rows_here(mesh, rows)
        return score(params, sharding.put_batch(mesh, {name: array[here] for name, array in batch.items()}, rows))

    return scorer


def eval_averages(totals: dict[str, dict[str, float]]) -> dict[str, float]:
    """Returns {"mlm_loss", "mlm_accuracy", ..., "mlm_count", ...} from sums and counts over all batches."""
    counts = {name: values["count"] for name, values in totals.items()}
    keys = {name: sorted(values.keys() - {"count", "loss"}) for name, values in totals.items()}
    sums = {name: {key: totals[name][key] for key in ("loss", *keys[name])} for name in totals}
    divisors = {name: max(count, 1.0) for name, count in counts.items()}
    return averages(sums, divisors) | {f"{name}_count": count for name, count in counts.items()}


def unigram_entropy(counts: np.ndarray) -> float:
    """Returns the entropy, in nats per token, of the token frequencies given by counts [V].

    A model whose loss is below it has learned from context.
    """
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())

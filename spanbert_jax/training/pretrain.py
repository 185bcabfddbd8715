"""Pretraining: the story of a run, in order. Resuming is the same call as starting."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from spanbert_jax import config as config_lib
from spanbert_jax.data import batches as batches_lib
from spanbert_jax.data.batches import Feed, open_corpus, slots_of, tokenizer_of
from spanbert_jax.data.mixture import Mixture
from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.devices import peak_flops
from spanbert_jax.errors import Diverged, InputError
from spanbert_jax.model import spec as model_spec
from spanbert_jax.training import sharding
from spanbert_jax.training.checkpoint import Checkpoints
from spanbert_jax.training.initial import Initial, pinned, read_initial, with_params
from spanbert_jax.training.metrics import MetricsWriter
from spanbert_jax.training.parameter_table import parameter_table
from spanbert_jax.training.program import Program, batch_shapes, build_program
from spanbert_jax.training.step import averages
from spanbert_jax.training.workdir import check_workdir, claim, locked, write_config


def pretrain(config, workdir: Path) -> int:
    """Trains config's model to total_steps in `workdir`, from its newest checkpoint if it has one.

    Returns:
      0 when done, 143 when a SIGTERM (130: a SIGINT) ended it after saving.

    Raises:
      InputError: the config, the corpus or the workdir must be mended; nothing was written.
      Diverged: loss or gradient is not finite.
    """
    tokenizer = tokenizer_of(config)
    mesh = checked_mesh(config, tokenizer)
    initial = read_initial(config, tokenizer)
    config = pinned(config, initial)
    check_workdir(workdir, config)
    with locked(workdir):
        claim(workdir, config)
        mixture = open_corpus(config, tokenizer, workdir, tell=lambda line: print(line, flush=True))
        program = build_program(config, mesh, tokenizer.vocab_size, slots_of(config))
        checkpoints = Checkpoints(workdir / "checkpoints", config.checkpoint.keep_last, config.checkpoint.keep_every)
        record = {"config": config_lib.to_json(config), "vocabulary": tokenizer.fingerprint, "store": mixture.fingerprint}
        state = restored_state(checkpoints, program, record)
        feed = Feed(config, mixture, tokenizer)
        state = fresh_state(config, program, mixture, initial) if state is None else state
        del initial  # as large as the model, and of no more use
        write_config(workdir, config)
        tokenizer.save(workdir)
        with StopSignal() as stop:
            return Run(config, workdir, program, feed, record, checkpoints, stop).train(state)


def checked_mesh(config, tokenizer: Tokenizer):
    """The mesh of a config over this machine's devices, after every check that needs no corpus.

    Raises:
      InputError: with all problems, one a line.
    """
    problems = config_lib.validate(config) + batches_lib.validate(config) + model_spec.validate(config)

    def collect(check):
        try:
            return check()
        except InputError as error:
            problems.extend(str(error).splitlines())

    mesh = collect(lambda: sharding.make_mesh(config.mesh, jax.devices()))
    if mesh is not None and config.accumulation >= 1:
        problems += sharding.validate(config, mesh, tokenizer.vocab_size)
    if problems:
        raise InputError("\n".join(problems))
    return mesh


def output_bias(config, mixture: Mixture) -> np.ndarray | None:
    """float32 [V] that the heads' biases start from: log-frequencies of the training text, or None for zeros."""
    if config.model.output_bias == "zeros":
        return None
    counts = mixture.piece_counts("train") + 1.0  # every piece may occur
    return np.log(counts / counts.sum()).astype(np.float32)


def fresh_state(config, program: Program, mixture: Mixture, initial: Initial | None):
    """The state that a run starts with: random parameters, but for those of the weights that it is to start from.

    Raises:
      InputError: config.init wants weights and does not say where they are.
    """
    if initial is None and config.init.fingerprint:
        raise InputError("init.fingerprint is given without init.path, and there is no checkpoint yet: say where those weights are")
    state = program.init(output_bias(config, mixture))
    if initial is None:
        return state
    print(initial.told(), flush=True)
    return with_params(state, initial.params)


def restored_state(checkpoints: Checkpoints, program: Program, record: dict):
    """The newest checkpoint's state on the program's mesh, or None if there is none.

    Raises:
      InputError: it is of another config, vocabulary, corpus or model.
    """
    step = checkpoints.latest()
    if step is None:
        return None
    saved = checkpoints.record(step)
    changed = config_lib.differences(config_lib.from_json(saved["config"]), config_lib.from_json(record["config"]))
    changed += [f"{what}: {saved[what][:12]} in the run, {record[what][:12]} now" for what in ("vocabulary", "store") if saved[what] != record[what]]
    if changed:
        raise InputError(f"the checkpoint of step {step} is of a run that differs in\n  " + "\n  ".join(changed))
    return checkpoints.restore(step, program.state)


def unigram_entropy(counts: np.ndarray) -> float:
    """Nats a piece that knowing only frequencies costs, of counts [V]: what a model must beat to have learned from context."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())


class StopSignal:
    """SIGTERM and SIGINT, while entered: `code` becomes the exit code they ask for. A second one kills as usual."""

    def __init__(self):
        self.code = 0
        self._before = {}

    def _receive(self, number, frame):
        self.code = 128 + number
        signal.signal(number, self._before[number])

    def __enter__(self):
        self._before = {number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Run:
    """One process's share of a run, from a state to its end."""

    def __init__(self, config, workdir: Path, program: Program, feed: Feed, record: dict, checkpoints: Checkpoints, stop: StopSignal):
        self.config, self.workdir, self.program, self.feed = config, workdir, program, feed
        self.record, self.checkpoints, self.stop = record, checkpoints, stop
        devices = program.mesh.devices.flat
        peak = peak_flops(devices[0])
        self.peak = peak * len(devices) if peak else None
        self.entropy = unigram_entropy(sum(rows.split.piece_counts for rows in feed.valid.values())) if config.eval.every else None
        self.throughput = Throughput()

    def train(self, state) -> int:
        """Updates until total_steps or a signal; see pretrain."""
        config, start = self.config, int(state.step)
        if start == config.total_steps:
            print(f"done before: {start:,} steps in {self.workdir}", flush=True)
            self.checkpoints.close()
            return 0
        writer = MetricsWriter(self.workdir, start, config.total_steps)
        writer.tell(self.opening(start))
        pending = None  # the update before the one being computed: reading it does not make the devices wait
        batches = self.feed.training(start, jax.process_index(), jax.process_count())
        train_step = self.compiled(writer)
        self.throughput.restart()
        for done, batch in zip(range(start + 1, config.total_steps + 1), batches):
            tokens = np.count_nonzero(batch["segments"]) * jax.process_count()
            state, metrics = train_step(state, sharding.put_batch(self.program.mesh, batch))
            self.report(writer, pending)
            pending = (done, metrics, tokens)
            stopping = self.stop.code  # looked at once an update: a signal during evaluation is obeyed, and the state saved, after the next
            last = done == config.total_steps or stopping
            if last or self.due(done):
                self.report(writer, pending)
                pending = None
                if config.eval.every and (done % config.eval.every == 0 or done == config.total_steps):
                    self.evaluate(writer, state, done)
                if last or done % config.checkpoint.every == 0:
                    self.checkpoints.save(done, state, self.record)
                self.throughput.restart()
            if stopping:
                break
        self.checkpoints.close()
        finished = done == config.total_steps
        writer.tell(f"done: {done:,} steps in {self.workdir}" if finished
                    else f"stopped by a signal at step {done:,}; the same command resumes")
        writer.close()
        return 0 if finished else stopping

    def opening(self, start: int) -> str:
        """What a person wants to know before the first step."""
        program, train = self.program, self.feed.train
        axes = ", ".join(f"{axis}={size}" for axis, size in program.mesh.shape.items())
        devices = program.mesh.devices
        return "\n".join([
            parameter_table(program.state.params, jax.tree.map(lambda leaf: leaf.sharding, program.state.params)),
            f"{devices.size} x {devices.flat[0].device_kind}, mesh {axes}, activations in {program.spec.dtype.name}",
            *self.corpora(),
            f"resuming from the checkpoint of step {start:,}" if start
            else f"starting from {self.config.init.path}" if self.config.init.path else "starting afresh",
        ])

    def corpora(self) -> list[str]:
        """A line on each store."""
        drawn = self.feed.rows_drawn(self.config.total_steps)
        return [f"{'' if len(drawn) == 1 else name + ': '}{rows.split.num_tokens:,} pieces in {rows.num_rows:,} rows, "
                f"{rows.padding_fraction:.1%} padding; {drawn[name] / rows.num_rows:.1f} epochs"
                for name, rows in zip(self.feed.names, self.feed.train.parts)]

    def compiled(self, writer: MetricsWriter):
        """The train step, compiled before the clock of the first update starts."""
        began = time.perf_counter()
        shapes = batch_shapes(self.config, self.program.mesh, slots_of(self.config))
        train_step = self.program.train_step.lower(self.program.state, shapes).compile()
        writer.tell(f"compiled the train step in {time.perf_counter() - began:.0f} s")
        return train_step

    def due(self, done: int) -> bool:
        """Whether something but the next update follows this one."""
        evaluation = self.config.eval.every
        return done % self.config.checkpoint.every == 0 or bool(evaluation and done % evaluation == 0)

    def report(self, writer: MetricsWriter, pending) -> None:
        """Reads an update's metrics off the devices, checks them, and tells them if it is a logged one.

        Raises:
          Diverged: they are not finite.
        """
        if pending is None:
            return
        step, metrics, tokens = pending
        metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
        self.throughput.add(tokens)
        if not np.isfinite([metrics["loss"], metrics["gradient_norm"]]).all():
            self.checkpoints.wait()
            good = self.checkpoints.latest()
            raise Diverged(f"step {step}: loss {metrics['loss']}, gradient norm {metrics['gradient_norm']}; " + (
                f"the last good checkpoint is of step {good}" if good else "there is no checkpoint yet")
                + f" in {self.workdir}. Try a lower optimizer.learning_rate, a longer warm-up, or float32")
        if step % self.config.log_every == 0 or step == self.config.total_steps:
            tokens_per_second, steps_per_second = self.throughput.rates()
            metrics |= {"tokens_per_second": tokens_per_second, "steps_per_second": steps_per_second,
                        "mfu": steps_per_second * self.program.flops_per_step / self.peak if self.peak else None}
            if len(self.feed.names) > 1:
                metrics |= {f"rows/{name}": rows for name, rows in self.feed.rows_drawn(step).items()}
            writer.write(step, metrics)
            writer.show(step, metrics)
            self.throughput.restart()

    def evaluate(self, writer: MetricsWriter, state, step: int) -> None:
        """Loss and accuracy over the held-out rows, with the masks they always have; of several stores also of each."""
        sums = {name: eval_sums(self.program, state.params, self.feed.held_out(name, jax.process_index(), jax.process_count()))
                for name in self.feed.names}
        metrics = eval_averages({key: sum(of_store[key] for of_store in sums.values()) for key in sums[self.feed.names[0]]})
        metrics["unigram_entropy"] = self.entropy
        each = {f"eval/{name}/{key}": value for name, of_store in sums.items() for key, value in eval_averages(of_store).items()}
        writer.write(step, {f"eval/{name}": value for name, value in metrics.items()} | (each if len(sums) > 1 else {}))
        told = "  ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in metrics.items() if not name.endswith("count"))
        writer.tell(f"step {step:,} held-out text: {told}")


def eval_sums(program: Program, params, batches: Iterator[dict[str, np.ndarray]]) -> dict[str, float]:
    """{"mlm_sum", "mlm_correct", "mlm_count", ...} over all batches together."""
    totals = None
    for batch in batches:
        sums = program.eval_step(params, sharding.put_batch(program.mesh, batch))
        totals = sums if totals is None else jax.tree.map(jnp.add, totals, sums)
    return {name: float(value) for name, value in jax.device_get(totals).items()}


def eval_averages(totals: dict[str, float]) -> dict[str, float]:
    """{"mlm_loss", "mlm_accuracy", "mlm_count", ...} of eval_sums: sums of losses by sums of counts."""
    counts = {name.removesuffix("_count"): max(value, 1.0) for name, value in totals.items() if name.endswith("_count")}
    return averages(totals, counts) | {f"{name}_count": totals[f"{name}_count"] for name in counts}


class Throughput:
    """Tokens and updates a second since it was last restarted."""

    def __init__(self):
        self.restart()

    def restart(self) -> None:
        """Begins anew, so that evaluation and saving do not count."""
        self._began, self._tokens, self._updates = time.perf_counter(), 0, 0

    def add(self, tokens: int) -> None:
        """One more update, of so many tokens (padding left out)."""
        self._tokens += tokens
        self._updates += 1

    def rates(self) -> tuple[float, float]:
        """(tokens a second, updates a second)."""
        seconds = time.perf_counter() - self._began
        return self._tokens / seconds, self._updates / seconds

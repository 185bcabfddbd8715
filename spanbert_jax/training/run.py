"""The training loop: train steps from a state to the end, with evaluation, checkpoints, and handling of signals."""

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from spanbert_jax.devices import peak_flops
from spanbert_jax.errors import BadStep, Diverged
from spanbert_jax.memory import return_memory
from spanbert_jax.optimizers.averages import averaged
from spanbert_jax.optimizers.guard import moved_on
from spanbert_jax.phases import Phase
from spanbert_jax.trackers.tracking import Tracking
from spanbert_jax.training import sharding
from spanbert_jax.training.checkpoint import Checkpoints
from spanbert_jax.training.metrics import MetricsWriter, NoMetrics, read_metrics
from spanbert_jax.training.monitor import Profile, memory_in_use, parameter_table
from spanbert_jax.training.processes import StopSignal, is_first
from spanbert_jax.training.program import Program

Watch = Callable[[int, dict[str, float]], bool]  # (step, metrics of its evaluation) -> whether the run ends

MOST_BAD_STEPS, MOST_REWINDS = 100, 10  # in a row; to one checkpoint


class Feed(Protocol):
    """What the loop needs of the input pipeline."""

    def training(self, start: int, part: np.ndarray | None) -> Iterator[dict[str, np.ndarray]]:
        """Returns the batches from step `start` on, of each the rows numbered `part` (None: all)."""

    def metrics(self, step: int) -> dict[str, float]:
        """Returns what to report of the batches up to a step."""

    def summary(self) -> list[str]:
        """Returns lines that describe the training data."""


class Evaluation:
    """The evaluation of a state's parameters. This one, the base of others, evaluates nothing."""

    title = "held-out text"  # of what it evaluates on

    def __call__(self, params, interrupted: Callable[[], int]) -> dict[str, float] | None:
        """Returns metrics.

        Returns None as soon as `interrupted` does not return 0; it is called once per batch in all processes.
        """
        return {}

    def keep(self, step: int, params, metrics: dict[str, float]) -> None:
        """Called with the metrics of a step, before they are logged."""

    def over(self, step: int) -> bool:
        """Returns whether the run ends after this step, although it has more, since they would not help."""
        return False


@dataclasses.dataclass(frozen=True)
class Part:
    """What the loop runs in a phase."""

    phase: Phase
    program: Program  # compiled
    feed: Feed
    evaluation: Evaluation


class Run:
    """The training loop of one process of a run."""

    def __init__(
        self,
        config,
        workdir: Path,
        parts: Sequence[Part],
        record: dict,
        checkpoints: Checkpoints,
        watch: Watch | None = None,
        tracking: Tracking | None = None,
    ):
        """Prepares the loop.

        Args:
          config: total_steps, log_every, eval.every, checkpoint.every and profile.* are read.
          workdir: where metrics and checkpoints are written.
          parts: of all phases, in their order.
          record: written into each checkpoint, beside the state.
          checkpoints: of the workdir.
          watch: called with each step's evaluation; the run ends when it returns True.
          tracking: gets the metrics too.
        """
        self.config, self.workdir, self.parts, self.part = config, workdir, parts, parts[0]
        self.record, self.checkpoints = record, checkpoints
        self.watch, self.ended, self.tracking = watch, False, tracking
        devices = self.program.mesh.devices.flat
        peak = peak_flops(devices[0])
        self.peak = peak * len(devices) if peak else None
        self.throughput = Throughput()
        self.rewinds: Counter[int] = Counter()  # by the step of the checkpoint
        self.writer: MetricsWriter | NoMetrics = NoMetrics()

    @property
    def program(self) -> Program:
        """The functions of the current phase."""
        return self.part.program

    @property
    def evaluation(self) -> Evaluation:
        """The evaluation of the current phase."""
        return self.part.evaluation

    def train(self, state, opening: str) -> int:
        """Trains until total_steps or a signal.

        Args:
          state: to start from.
          opening: a line on where the state comes from.

        Returns:
          The exit code: 0 at the end; 128 + its number if a signal (processes.SIGNALS) ended the run after saving.
        """
        start, total = int(state.step), self.config.total_steps
        done = start
        self.part = next((part for part in self.parts if start <= part.phase.last), self.parts[-1])
        missing = self.evaluation_missing(start)
        if is_first():
            self.writer = MetricsWriter(self.workdir, start, total, self.tracking)
        more = start < total and not self.evaluation.over(start)
        if more:
            self.writer.log(self.description(opening))
        with StopSignal(self.program.mesh) as stop:
            code = self.evaluate(state, start, stop) if missing else 0  # an evaluation may have been interrupted
            if not code and more and not self.evaluation.over(start):
                done, code = self.train_and_rewind(state, start, stop)
            self.checkpoints.close()
        if code:
            self.writer.log(f"stopped by a signal at step {done:,}; the same command resumes")
        else:
            earlier = "" if more or missing else " before"
            early = f" of {total:,}, since the last evaluations were no better" if done < total else ""
            self.writer.log(f"done{earlier}: {done:,} steps{early} in {self.workdir}")
        self.writer.close(stopped=bool(code))
        return_memory()
        return code

    def train_and_rewind(self, state, start: int, stop: StopSignal) -> tuple[int, int]:
        """Trains from step `start` on, and goes back where a step is bad; returns as train_steps."""
        while True:
            try:
                return self.train_steps(state, start, stop)
            except BadStep as bad:
                start, state = bad.step, None  # first frees the memory of the state
                state = self.rewound(bad)

    def rewound(self, bad: BadStep):
        """Returns the state of a checkpoint, moved on to the bad step: the batches since then are not used again."""

        def moved(state):
            opt_state = moved_on(state.opt_state, bad.step - bad.checkpoint, bad.bad_steps)
            return state.replace(step=jnp.full_like(state.step, bad.step), opt_state=opt_state)

        shardings = jax.tree.map(lambda leaf: leaf.sharding, self.program.state)
        state = self.checkpoints.restore(bad.checkpoint, self.program.state)
        return jax.jit(moved, out_shardings=shardings, donate_argnums=0)(state)

    def train_steps(self, state, start: int, stop: StopSignal) -> tuple[int, int]:
        """Trains from step `start` on; returns the last step, whose state is saved, and the exit code of a signal."""
        config, code, done = self.config, 0, start
        pending = None  # step before the current one: reading its metrics does not make the devices wait
        profile = Profile(config.profile, self.workdir, start)
        self.throughput.restart()
        for done, batch in self.batches(start):
            # Only explicit transfers are allowed: an unintended one would make the devices wait.
            with jax.transfer_guard("disallow"):
                with profile.before(done):
                    rows = self.part.phase.config.batch_size
                    state, metrics = self.program.train_step(state, self.program.put(batch, rows))
                self.report(pending)
            pending = (done, metrics)
            if message := profile.after(done, metrics):
                self.writer.log(message)
            code = stop.poll()
            last, over = done == config.total_steps or bool(code), False
            if last or self.pause_due(done):
                self.report(pending)
                pending = None
                if last or done % config.checkpoint.every == 0:
                    self.checkpoints.save(done, state, self.record)
                if self.evaluation_due(done) and not code:
                    code = self.evaluate(state, done, stop)
                    over = self.ended or self.evaluation.over(done)
                self.throughput.restart()
            if code or over:
                self.checkpoints.save(done, state, self.record)
                break
        profile.close()
        return done, code

    def batches(self, start: int) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """Yields (step, its batch) from the step after `start` to the last one, and enters each phase as it begins."""
        for part in self.parts:
            phase, first = part.phase, max(start, part.phase.first)
            if first >= phase.last:
                continue
            self.part = part
            if len(self.parts) > 1:
                self.writer.log(str(phase))
            here = sharding.rows_here(part.program.mesh, phase.config.batch_size)
            yield from zip(range(first + 1, phase.last + 1), part.feed.training(first, here))

    def description(self, opening: str) -> str:
        """Returns a description of the run, to be logged before the first step."""
        program, spec = self.program, self.program.spec
        axes = ", ".join(f"{axis}={size}" for axis, size in program.mesh.shape.items())
        devices, processes = program.mesh.devices, jax.process_count()
        hardware = f"{devices.size} x {devices.flat[0].device_kind}"
        if processes > 1:
            hardware += f" of {processes} processes"
        execution = f"{hardware}, mesh {axes}, activations in {spec.dtype.name}, attention {spec.attention}"
        return "\n".join([parameter_table(program.state.params), execution, *self.part.feed.summary(), opening])

    def pause_due(self, done: int) -> bool:
        """Returns whether a checkpoint, an evaluation or another phase follows step `done`."""
        return done == self.part.phase.last or done % self.config.checkpoint.every == 0 or self.evaluation_due(done)

    def evaluation_due(self, done: int) -> bool:
        """Returns whether the state after step `done` is to be evaluated."""
        every = self.config.eval.every
        return bool(every) and done > 0 and (done % every == 0 or done == self.config.total_steps)

    def evaluation_missing(self, start: int) -> bool:
        """Returns whether an evaluation of the initial state is due and not yet logged.

        The first process decides for all.
        """
        missing = False
        if is_first() and self.evaluation_due(start):
            lines = read_metrics(self.workdir)
            evaluated = {line["step"] for line in lines if any(key.startswith("eval/") for key in line)}
            missing = start not in evaluated
        return bool(jax.device_get(sharding.highest_on(self.program.mesh)(int(missing))))

    def report(self, pending) -> None:
        """Reads a step's metrics off the devices, checks them, and logs them if they are due.

        Raises:
          Diverged: they are not finite, or too many steps in a row were bad.
          BadStep: the step was bad, and the run is to go back to a checkpoint.
        """
        if pending is None:
            return
        step, metrics = pending
        metrics = {name: value.item() for name, value in jax.device_get(metrics).items()}
        self.throughput.add(metrics.pop("tokens"))
        if metrics.get("bad_in_a_row"):
            self.leave_out(step, metrics)
            return
        if not np.isfinite([metrics["loss"], metrics["gradient_norm"]]).all():
            self.checkpoints.wait()
            latest = self.checkpoints.latest()
            last = f"the last good checkpoint is of step {latest}" if latest else "there is no checkpoint yet"
            rate = f"--config.optimizer.learning_rate={self.config.optimizer.learning_rate / 2:g}"
            again = f"{rate} --allow=optimizer.learning_rate" if latest else rate
            raise Diverged(
                f"step {step}: loss {metrics['loss']}, gradient norm {metrics['gradient_norm']}; {last} "
                f"in {self.workdir}. Try a lower rate ({again}), a longer warm-up, or float32"
            )
        if step % self.config.log_every == 0 or step == self.config.total_steps:
            tokens_per_second, steps_per_second = self.throughput.rates()
            metrics |= {"tokens_per_second": tokens_per_second, "steps_per_second": steps_per_second}
            flops = self.program.flops_per_step
            metrics["mfu"] = steps_per_second * flops / self.peak if self.peak and flops else None
            metrics |= memory_in_use() | self.part.feed.metrics(step)
            metrics |= {"phase": self.part.phase.number} if len(self.parts) > 1 else {}
            self.writer.write(step, metrics)
            self.writer.show(step, metrics)
            self.throughput.restart()

    def leave_out(self, step: int, metrics: dict[str, float]) -> None:
        """Handles a bad step, which changed nothing: logs it instead of its metrics, and goes back if it is to.

        Only checkpoints at multiples of checkpoint.every count, so that it does not matter where signals stopped the
        run. Before the first of them, and at the last step, the step is only left out.

        Raises:
          Diverged, BadStep: see report.
        """
        what = f"step {step:,}: loss {metrics['loss']:.4g}, gradient norm {metrics['gradient_norm']:.4g}"
        if metrics["bad_in_a_row"] >= MOST_BAD_STEPS:
            raise Diverged(
                f"{what}: {MOST_BAD_STEPS} bad steps in a row; try a lower rate, or a higher optimizer.spike"
            )
        checkpoint = None
        if self.config.optimizer.bad_steps == "rewind" and step < self.config.total_steps:
            self.checkpoints.wait()
            every = self.config.checkpoint.every
            checkpoint = max((c for c in self.checkpoints.steps() if c < step and c % every == 0), default=None)
        if checkpoint is None:
            self.writer.log(f"{what}: a bad step, left out")
            return
        self.rewinds[checkpoint] += 1
        if self.rewinds[checkpoint] > MOST_REWINDS:
            raise Diverged(f"{what}: after {MOST_REWINDS} rewinds to step {checkpoint:,}; try a lower rate")
        self.writer.log(
            f"{what}: a bad step; going on from the checkpoint of step {checkpoint:,} with the batches after"
        )
        raise BadStep(step, checkpoint, int(metrics["bad_steps"]))

    def evaluate(self, state, step: int, stop: StopSignal) -> int:
        """Evaluates a state and logs the metrics.

        Returns:
          The exit code of a signal received meanwhile, or 0. After a signal nothing is logged, and the next start
          evaluates again.
        """
        code = 0

        def interrupted() -> int:
            nonlocal code
            code = stop.poll()
            return code

        params = averaged(state.params, state.opt_state)
        metrics = self.evaluation(params, interrupted)
        return_memory()
        if metrics is None:
            return code
        self.evaluation.keep(step, params, metrics)
        self.ended = self.watch is not None and self.watch(step, metrics)
        self.writer.write(step, {f"eval/{name}": value for name, value in metrics.items()})
        shown = {name: value for name, value in metrics.items() if "/" not in name and not name.endswith("count")}
        values = "  ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in shown.items())
        self.writer.log(f"step {step:,} {self.evaluation.title}: {values}")
        return 0


class Throughput:
    """Tokens and steps per second since the last restart."""

    def __init__(self):
        self.restart()

    def restart(self) -> None:
        """Restarts the measurement, so that evaluation and saving do not count."""
        self._began, self._tokens, self._steps = time.perf_counter(), 0, 0

    def add(self, tokens: int) -> None:
        """Adds one step with a number of tokens (without padding)."""
        self._tokens += tokens
        self._steps += 1

    def rates(self) -> tuple[float, float]:
        """Returns (tokens per second, steps per second)."""
        seconds = time.perf_counter() - self._began
        return self._tokens / seconds, self._steps / seconds

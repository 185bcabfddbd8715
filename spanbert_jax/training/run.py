"""A run's updates, from a state to its end: what happens between them, what is told of them, and how a signal ends them."""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from spanbert_jax.data.batches import Feed
from spanbert_jax.devices import peak_flops
from spanbert_jax.errors import Diverged
from spanbert_jax.training import sharding
from spanbert_jax.training.checkpoint import Checkpoints
from spanbert_jax.training.compiled import Steps
from spanbert_jax.training.memory import memory_in_use
from spanbert_jax.training.metrics import MetricsWriter, Silence, read_metrics
from spanbert_jax.training.parameter_table import parameter_table
from spanbert_jax.training.processes import is_first
from spanbert_jax.training.profile import Profile
from spanbert_jax.training.program import Program
from spanbert_jax.training.step import averages
from spanbert_jax.training.stop import StopSignal


class Run:
    """One process's share of a run."""

    def __init__(
        self, config, workdir: Path, program: Program, steps: Steps, feed: Feed, record: dict, checkpoints: Checkpoints
    ):
        self.config, self.workdir, self.program, self.steps, self.feed = config, workdir, program, steps, feed
        self.record, self.checkpoints = record, checkpoints
        self.writer = None
        devices = program.mesh.devices.flat
        peak = peak_flops(devices[0])
        self.peak = peak * len(devices) if peak else None
        self.entropy = (
            unigram_entropy(sum(rows.split.token_counts for rows in feed.valid.values())) if config.eval.every else None
        )
        self.throughput = Throughput()

    def train(self, state) -> int:
        """Updates until total_steps or a signal; see pretrain."""
        start, done, total = int(state.step), int(state.step), self.config.total_steps
        missing = self.evaluation_missing(start)
        self.writer = MetricsWriter(self.workdir, start, total) if is_first() else Silence()
        if start < total:
            self.writer.tell(self.opening(start))
        with StopSignal(self.program.mesh) as stop:
            code = self.evaluate(state, start, stop) if missing else 0  # a run that stopped in the middle of one
            if not code and start < total:
                done, code = self.update(state, start, stop)
            self.checkpoints.close()
        self.writer.tell(
            f"stopped by a signal at step {done:,}; the same command resumes"
            if code
            else f"done: {done:,} steps in {self.workdir}"
            if start < total or missing
            else f"done before: {done:,} steps in {self.workdir}"
        )
        self.writer.close()
        return code

    def update(self, state, start: int, stop: StopSignal) -> tuple[int, int]:
        """Updates from `start` on; returns the last one, whose state is saved, and the exit code that a signal asked for."""
        config, code = self.config, 0
        pending = None  # the update before the one being computed: reading it does not make the devices wait
        batches = self.feed.training(start, self.rows(config.batch_size))
        profile = Profile(config.profile, self.workdir, start)
        self.throughput.restart()
        for done, batch in zip(range(start + 1, config.total_steps + 1), batches):
            with jax.transfer_guard(
                "disallow"
            ):  # but for what says that it is one: a transfer nobody thought of would stop the devices
                with profile.before(done):
                    state, metrics = self.steps.train(
                        state, sharding.put_batch(self.program.mesh, batch, config.batch_size)
                    )
                self.report(pending)
            pending = (done, metrics)
            if recorded := profile.after(done, metrics):
                self.writer.tell(recorded)
            code = stop.poll()
            last = done == config.total_steps or code
            if last or self.due(done):
                self.report(pending)
                pending = None
                if last or done % config.checkpoint.every == 0:
                    self.checkpoints.save(done, state, self.record)
                if self.evaluation_due(done) and not code:
                    code = self.evaluate(state, done, stop)
                self.throughput.restart()
            if code:
                self.checkpoints.save(done, state, self.record)
                break
        profile.close()
        return done, code

    def rows(self, batch_size: int) -> np.ndarray:
        """Which rows of a batch this process makes."""
        return sharding.rows_here(self.program.mesh, batch_size)

    def opening(self, start: int) -> str:
        """What a person wants to know before the first step."""
        program = self.program
        axes = ", ".join(f"{axis}={size}" for axis, size in program.mesh.shape.items())
        devices, processes = program.mesh.devices, jax.process_count()
        return "\n".join(
            [
                parameter_table(program.state.params, jax.tree.map(lambda leaf: leaf.sharding, program.state.params)),
                f"{devices.size} x {devices.flat[0].device_kind}{f' of {processes} processes' if processes > 1 else ''}, mesh {axes}, "
                f"activations in {program.spec.dtype.name}, attention {program.spec.attention}",
                *self.corpora(),
                f"resuming from the checkpoint of step {start:,}"
                if start
                else f"starting from {self.config.init.path}"
                if self.config.init.path
                else "starting afresh",
            ]
        )

    def corpora(self) -> list[str]:
        """A line on each store."""
        drawn = self.feed.rows_drawn(self.config.total_steps)
        return [
            f"{'' if len(drawn) == 1 else name + ': '}{rows.split.num_tokens:,} tokens in {rows.num_rows:,} rows, "
            f"{rows.padding_fraction:.1%} padding; {drawn[name] / rows.num_rows:.1f} epochs"
            for name, rows in zip(self.feed.names, self.feed.train.parts)
        ]

    def due(self, done: int) -> bool:
        """Whether something but the next update follows this one."""
        return done % self.config.checkpoint.every == 0 or self.evaluation_due(done)

    def evaluation_due(self, done: int) -> bool:
        """Whether the state after update `done` is to be evaluated."""
        every = self.config.eval.every
        return bool(every) and done > 0 and (done % every == 0 or done == self.config.total_steps)

    def evaluation_missing(self, start: int) -> bool:
        """Whether the state that this run starts from was to be evaluated and was not, as the first process sees it."""
        lines = read_metrics(self.workdir) if is_first() and self.evaluation_due(start) else []
        missing = (
            is_first()
            and self.evaluation_due(start)
            and not any(line["step"] == start and "eval/unigram_entropy" in line for line in lines)
        )
        return bool(jax.device_get(sharding.highest_on(self.program.mesh)(int(missing))))

    def report(self, pending) -> None:
        """Reads an update's metrics off the devices, checks them, and tells them if it is a logged one.

        Raises:
          Diverged: they are not finite.
        """
        if pending is None:
            return
        step, metrics = pending
        metrics = {name: value.item() for name, value in jax.device_get(metrics).items()}
        self.throughput.add(metrics.pop("tokens"))
        if not np.isfinite([metrics["loss"], metrics["gradient_norm"]]).all():
            self.checkpoints.wait()
            good = self.checkpoints.latest()
            raise Diverged(
                f"step {step}: loss {metrics['loss']}, gradient norm {metrics['gradient_norm']}; "
                + (f"the last good checkpoint is of step {good}" if good else "there is no checkpoint yet")
                + f" in {self.workdir}. Try a lower optimizer.learning_rate, a longer warm-up, or float32"
            )
        if step % self.config.log_every == 0 or step == self.config.total_steps:
            tokens_per_second, steps_per_second = self.throughput.rates()
            metrics |= {
                "tokens_per_second": tokens_per_second,
                "steps_per_second": steps_per_second,
                "mfu": steps_per_second * self.program.flops_per_step / self.peak if self.peak else None,
            } | memory_in_use()
            if len(self.feed.names) > 1:
                metrics |= {f"rows/{name}": rows for name, rows in self.feed.rows_drawn(step).items()}
            self.writer.write(step, metrics)
            self.writer.show(step, metrics)
            self.throughput.restart()

    def evaluate(self, state, step: int, stop: StopSignal) -> int:
        """Loss and accuracy over the held-out rows, with the masks they always have; of several stores also of each.

        Returns:
          The exit code of a signal that came meanwhile: then nothing is told, and the next start does it again.
        """
        sums = {}
        for name in self.feed.names:
            totals = None
            for batch in self.feed.held_out(name, self.rows(self.config.eval.batch_size)):
                of_batch = self.steps.evaluate(
                    state.params, sharding.put_batch(self.program.mesh, batch, self.config.eval.batch_size)
                )
                totals = of_batch if totals is None else jax.tree.map(jnp.add, totals, of_batch)
                if code := stop.poll():
                    return code
            sums[name] = {key: value.item() for key, value in jax.device_get(totals).items()}
        metrics = eval_averages(
            {key: sum(of_store[key] for of_store in sums.values()) for key in sums[self.feed.names[0]]}
        )
        metrics["unigram_entropy"] = self.entropy
        each = {
            f"eval/{name}/{key}": value
            for name, of_store in sums.items()
            for key, value in eval_averages(of_store).items()
        }
        self.writer.write(
            step, {f"eval/{name}": value for name, value in metrics.items()} | (each if len(sums) > 1 else {})
        )
        told = "  ".join(
            f"{name.replace('_', ' ')} {value:.3f}" for name, value in metrics.items() if not name.endswith("count")
        )
        self.writer.tell(f"step {step:,} held-out text: {told}")
        return 0


def unigram_entropy(counts: np.ndarray) -> float:
    """Nats a token that knowing only frequencies costs, of counts [V]: what a model must beat to have learned from context."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())


def eval_averages(totals: dict[str, float]) -> dict[str, float]:
    """{"mlm_loss", "mlm_accuracy", "mlm_count", ...} of sums and counts over all batches: sums of losses by sums of counts."""
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

"""A task registered from here, without a change in the package: a class, an entry and a knob, in all that runs do."""

import json
import signal
import sys

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from spanbert_jax import knobs
from spanbert_jax.commands import predict
from spanbert_jax.configs.tasks import base
from spanbert_jax.finetuning.feed import TaskFeed
from spanbert_jax.finetuning.task import Row, Task, encoder_states, single_sequence, weighted_mean_count
from spanbert_jax.knobs import Knob, at_least
from spanbert_jax.model.linear import Linear
from spanbert_jax.objectives.objective import Field, cross_entropy_sum
from spanbert_jax.tasks import TASKS, load
from spanbert_jax.training.checkpoint import Checkpoints
from tests.finetuning.conftest import FILLERS, run_on
from tests.small import MODEL


class Pointer(nn.Module):
    """An encoder with a score for each token; the head has the name of the task."""

    spec: object
    layout: object

    @nn.compact
    def __call__(self, batch, seeds):
        states = encoder_states(self.spec, self.layout, batch, seeds)
        scores = Linear(self.spec, "BLD,DC->BLC", (self.spec.width, 1), dtype=jnp.float32, name="pointing")(states)
        return jnp.where(batch["segments"] > 0, scores[..., 0], -1e9)  # [B, L]


class Pointing(Task):
    """Finds the word "king"."""

    name = "pointing"
    metric = "near"
    fields = {"target": Field("B", "int32"), "weight": Field("B", "float32")}  # noqa: RUF012

    @classmethod
    def read(cls, config, source):
        with open(source) as file:
            return [(text, int(target)) for text, target in (line.rstrip("\n").split("\t") for line in file)], []

    @classmethod
    def parse(cls, config, inputs):
        return [(text, 0) for text in inputs]

    def features(self, examples, training):
        tokens = self.tokenizer.encode([text for text, _ in examples])
        return [
            Row(
                number, single_sequence(self.tokenizer, ids) | {"target": np.asarray(target), "weight": np.asarray(1.0)}
            )
            for number, (ids, (_, target)) in enumerate(zip(tokens, examples))
        ]

    def model(self, spec, layout):
        return Pointer(spec, layout)

    def counts(self, batch):
        return {self.name: weighted_mean_count(batch["weight"])}

    def loss(self, outputs, batch, counts):
        total, _ = cross_entropy_sum(outputs[:, None], batch["target"][:, None], batch["weight"][:, None])
        return total / counts[self.name], {self.name: {"loss": total}}

    def predictions(self, outputs, batch):
        return {"position": jnp.argmax(outputs, axis=-1)}

    def decode(self, examples, outputs):
        return [int(output.arrays["position"]) for output in outputs]

    def score(self, examples, predictions):
        slack = self.options.slack
        return {"near": float(np.mean([abs(t - found) <= slack for (_, t), found in zip(examples, predictions)]))}

    def write(self, path, examples, predictions):
        path.write_text(json.dumps(predictions))


def write_texts(path, number: int, seed: int) -> None:
    """Writes texts and where "king" stands in them."""
    random = np.random.default_rng(seed)
    lines = []
    for _ in range(number):
        words = random.choice([word for word in FILLERS if word != "king"], random.integers(4, 12)).tolist()
        place = int(random.integers(len(words)))
        words[place] = "king"
        lines.append(f"{' '.join(words)}\t{place + 1}\n")  # [CLS] is before it
    path.write_text("".join(lines))


@pytest.mark.slow
def test_a_task_of_a_guest_trains_on_a_mesh_resumes_scores_and_predicts(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(TASKS, Pointing.name, Pointing)
    monkeypatch.setitem(knobs.DECLARED, "pointing.slack", Knob(0, "positions that an answer may be off", at_least(0)))
    for seed, name in enumerate(("train", "valid", "test")):
        write_texts(tmp_path / name, 64 if name == "train" else 24, seed)
    config = base.get_config("pointing")
    config.update(dict(seq_len=16, batch_size=16, log_every=1))
    config.data.vocab = "tiny"
    config.model.update(MODEL | dict(max_positions=64, dropout=0.0, attention_dropout=0.0))
    config.optimizer.learning_rate = 1e-2
    config.eval.batch_size = 16
    config.task.update({name: str(tmp_path / name) for name in ("train", "valid", "test")})
    config.task.update(dict(epochs=6, sizes=1))
    config.mesh.update(dict(data=2, fsdp=2, tensor=2))
    assert run_on(config, tmp_path / "run", devices=8) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["metric"] == "near" and results["valid"]["near"] > 0.8 and results["test"]["near"] > 0.8

    def final(run):
        checkpoints = Checkpoints(run / "checkpoints", read_only=True)
        return flatten_dict(checkpoints.read_params(checkpoints.latest()), sep="/")

    training = TaskFeed.training

    def interrupted(self, start, part=None):
        for number, batch in enumerate(training(self, start, part), start):
            if number == 14 and start == 0:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(TaskFeed, "training", interrupted)
        assert run_on(config, tmp_path / "resumed", devices=8) == 143
    assert run_on(config, tmp_path / "resumed", devices=8) == 0
    one, other = final(tmp_path / "run"), final(tmp_path / "resumed")
    assert "pointing/kernel" in one and all(np.array_equal(one[path], other[path]) for path in one)

    assert load(tmp_path / "run").predict(["of the king in it"]) == [3]
    flags = ["predict.py", f"--workdir={tmp_path / 'run'}", f"--input={tmp_path / 'test'}", "--score"]
    monkeypatch.setattr(sys, "argv", [*flags, f"--output={tmp_path / 'found.json'}"])
    assert predict.main() == 0
    assert f"near {results['test']['near']:.4g}" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "found.json").read_text())) == 24

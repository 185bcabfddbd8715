"""Guests of every kind, registered from here without a change in the package, in one run that does all that runs do."""

import dataclasses
import shutil
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from spanbert_jax import knobs
from spanbert_jax.data import schemes, targets
from spanbert_jax.errors import InputError
from spanbert_jax.interop import stablehlo
from spanbert_jax.knobs import Knob, at_least, positive
from spanbert_jax.model import parts
from spanbert_jax.model.encoder import Encoder
from spanbert_jax.model.extensions import EXTENSIONS
from spanbert_jax.model.extensions.extension import Extension
from spanbert_jax.model.linear import Linear
from spanbert_jax.objectives import OBJECTIVES
from spanbert_jax.objectives.mlm import MaskedLanguageHead
from spanbert_jax.objectives.objective import (
    Field,
    Objective,
    cross_entropy_sum,
    gather_positions,
    slot_count,
    slot_fields,
    slot_loss,
)
from spanbert_jax.optimizers import OPTIMIZERS, schedules
from spanbert_jax.planning.plan import make_plan
from spanbert_jax.planning.topologies import make_topology
from spanbert_jax.training.export import export_model
from spanbert_jax.training.metrics import read_metrics
from spanbert_jax.training.pretrain import pretrain
from spanbert_jax.training.workdir import restore_run
from tests.small import TOKENIZER, batches_of, small_config, small_program

# An objective with a head and targets of its own: whether a masked token is the first of its span.


class FirstHead(nn.Module):
    spec: object
    layout: object

    @nn.compact
    def __call__(self, states, batch):
        hidden = gather_positions(states.last, batch["first_positions"])
        return Linear(self.spec, "BMD,DE->BME", (self.spec.width, 2), name="output")(hidden).astype(jnp.float32)


def first_targets(masked, settings):
    return {
        "first_positions": masked.position,
        "first_targets": masked.position == masked.first,
        "first_weights": np.ones_like(masked.position),
    }


FIRST = Objective(
    name="first",
    title="first of its span",
    fields=slot_fields("first", "positions"),
    head=FirstHead,
    loss=slot_loss("first"),
    count=slot_count("first"),
    flops=lambda spec, length, slots: 2 * slots * spec.width * 2,
    layouts=((r"output/(kernel|bias)", ()),),
)


# Encoder parts: norms on both sides of a sublayer, and rotary positions with a knob.


def sandwich(spec, x, branch, bare):
    return x + parts.norm(spec, "norm_output")(branch(parts.norm(spec, "norm")(x)))


def rotate(spec, x, positions, window):
    half = spec.head_width // 2
    rates = spec.option("rotary_base") ** (-jnp.arange(half) / half)
    angles = (positions[..., None] * rates)[:, :, None, :]  # [B, L, 1, K / 2]
    a, b = x[..., :half], x[..., half:]
    turned = [a * jnp.cos(angles) - b * jnp.sin(angles), a * jnp.sin(angles) + b * jnp.cos(angles)]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


# An extension of the encoder: a number for each element of its output, and the sum of them.


def scaled(spec, layout, rows, x, layers):
    return x * (1 + Scale(spec.width, name="scaled")()).astype(x.dtype) + 0 * jnp.sum(layers, axis=0)


class Scale(nn.Module):
    width: int

    @nn.compact
    def __call__(self):
        return self.param("gate", nn.initializers.zeros, (self.width,))


SCALED = Extension(
    name="scaled",
    title="scaled output",
    encoded=scaled,
    reads_layers=True,
    flops=lambda spec, length: 0,
    layouts=((r"scaled/gate", ()),),
)


# An optimiser whose state is of odd shapes, a schedule, and a masking scheme.


def row_adagrad(optimizer, rate, decay, layout):
    """Adagrad with one number for each row of a parameter, and a count of the signs of all gradients."""

    def init(params):
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape[:-1]), params), jnp.zeros(3, jnp.int32)

    def update(grads, state, params=None):
        sums, signs = state
        sums = jax.tree.map(lambda total, grad: total + jnp.mean(grad**2, axis=-1), sums, grads)
        updates = jax.tree.map(lambda grad, total: grad / (jnp.sqrt(total)[..., None] + 1e-6), grads, sums)
        counts = [
            sum(jnp.sum(test(grad)) for grad in jax.tree.leaves(grads)) for test in (lambda g: g > 0, lambda g: g < 0)
        ]
        return updates, (sums, signs + jnp.array([*counts, 1], jnp.int32))

    return optax.GradientTransformation(init, update), decay, optax.scale_by_learning_rate(rate)


def staircase(optimizer, total_steps):
    return lambda n: optimizer.learning_rate * 0.5 ** (jnp.asarray(n) // 2)


def every_other(text, blocks, bits, settings):
    spans = schemes.whole_word(text, blocks, bits, settings)
    return schemes.Candidates(spans.anchor, spans.anchor, spans.anchor)


@pytest.fixture
def guests(monkeypatch):
    """Registers all of them, until the test ends."""
    for registry, name, entry in (
        (OBJECTIVES, "first", FIRST),
        (targets.TARGETS, "first", first_targets),
        (parts.PLACEMENTS, "sandwich", parts.Placement(sandwich, final_norm=True)),
        (parts.POSITIONS, "spiral", parts.Positions(None, rotate, ())),
        (EXTENSIONS, "scaled", SCALED),
        (OPTIMIZERS, "row_adagrad", row_adagrad),
        (schedules.SCHEDULES, "staircase", staircase),
        (schemes.SCHEMES, "every_other", every_other),
        (knobs.DECLARED, "objectives.first_weight", Knob(0.0, "first of its span", at_least(0))),
        (knobs.DECLARED, "model.rotary_base", Knob(10_000.0, "base frequency of rotary positions", positive)),
    ):
        monkeypatch.setitem(registry, name, entry)


def guest_config(**changes):
    return small_config(
        total_steps=6,
        log_every=1,
        objectives__first_weight=0.5,
        model__norm_placement="sandwich",
        model__positions="spiral",
        model__rotary_base=500.0,
        model__extensions=("scaled",),
        optimizer__name="row_adagrad",
        optimizer__schedule="staircase",
        masking__schemes=("every_other", "geometric_span"),
        masking__weights=(1.0, 1.0),
        eval__every=3,
        eval__max_rows=16,
        checkpoint__every=3,
        mesh__data=2,
        mesh__fsdp=2,
        mesh__tensor=2,
        **changes,
    ).lock()


def test_a_run_of_guests_trains_evaluates_resumes_plans_and_exports(guests, store, tmp_path):
    config, run = guest_config(data__store=str(store.folder)), tmp_path / "run"
    assert pretrain(config, run) == 0
    lines = read_metrics(run)
    assert {"first_loss", "first_accuracy", "mlm_loss", "sbo_loss"} <= lines[0].keys()
    assert {"eval/first_loss", "eval/first_accuracy", "eval/first_count"} <= lines[-1].keys()
    assert lines[0]["learning_rate"] == lines[1]["learning_rate"] == 4 * lines[-2]["learning_rate"]
    params = flatten_dict(jax.device_get(restore_run(run).params), sep="/")
    assert "encoder/norm/scale" in params and "encoder/embeddings/position" not in params
    assert params["encoder/scaled/gate"].any()

    resumed = tmp_path / "resumed"
    shutil.copytree(run, resumed)
    shutil.rmtree(resumed / "checkpoints" / "step_6")
    assert pretrain(config, resumed) == 0
    again = flatten_dict(jax.device_get(restore_run(resumed).params), sep="/")
    assert all(np.array_equal(params[path], again[path]) for path in params)
    timing = ("per_second", "mfu", "memory_bytes")
    exact = [
        [{key: line[key] for key in line if not key.endswith(timing)} for line in read_metrics(folder)]
        for folder in (run, resumed)
    ]
    assert exact[0] == exact[1]

    plan = make_plan(config, make_topology("cpu:8"), TOKENIZER.vocab_size)
    assert plan.costs.flops * 8 == pytest.approx(plan.program.flops_per_step, rel=0.02)

    with pytest.raises(
        InputError, match="no counterpart for this encoder: model.norm_placement is 'sandwich', model.positions"
    ):
        export_model(run, tmp_path / "huggingface", "huggingface", None)
    assert not (tmp_path / "huggingface").exists()
    _, [left_out] = export_model(run, tmp_path / "stablehlo", "stablehlo", None)
    assert left_out.endswith("the heads first, sbo")
    outputs = stablehlo.load(tmp_path / "stablehlo")([[1, 2, 3]])
    assert np.isfinite(outputs["logits"]).all()


def test_a_head_without_a_name_in_a_format_is_left_out_and_named(guests, store, tmp_path):
    config = small_config(
        total_steps=3,
        objectives__first_weight=1.0,
        eval__every=0,
        data__store=str(store.folder),
        mesh__data=1,
        mesh__fsdp=8,
    )
    assert pretrain(config.lock(), tmp_path / "run") == 0
    for format in ("huggingface", "original"):
        _, [left_out] = export_model(tmp_path / "run", tmp_path / format, format, None)
        assert left_out.endswith("the heads first")


# Sketches of three objectives that will come, to hold the record against what they need.


class ContrastHead(nn.Module):
    """InfoNCE: boundary vectors of masked tokens against their true content, the batch's other slots as negatives."""

    spec: object
    layout: object

    @nn.compact
    def __call__(self, states, batch):
        rows = jnp.arange(len(batch["tokens"]))[:, None]
        original = (
            jnp.asarray(batch["tokens"])
            .at[rows, batch["mlm_positions"]]
            .set(
                jnp.where(batch["mlm_weights"] > 0, batch["mlm_targets"], batch["tokens"][rows, batch["mlm_positions"]])
            )
        )
        content = gather_positions(states.encode(original, states.seeds), batch["mlm_positions"])  # a second pass
        left, right = (gather_positions(states.layers[0], batch[name]) for name in ("sbo_left", "sbo_right"))
        boundary = Linear(self.spec, "BMI,ID->BMD", (2 * self.spec.width, self.spec.width), name="boundary")(
            jnp.concatenate([left, right], axis=-1)
        )
        return [x.reshape(-1, self.spec.width).astype(jnp.float32) for x in (boundary, content)]


def contrast_loss(vectors, batch):
    boundary, content = vectors
    weights = jnp.asarray(batch["sbo_weights"]).reshape(1, -1)
    scores = jnp.where(weights > 0, boundary @ content.T, -1e30)[None]  # negatives are all slots of the global batch
    total, correct = cross_entropy_sum(scores, jnp.arange(scores.shape[-1])[None], weights)
    return total, {"accuracy": correct}


CONTRAST = Objective(
    name="contrast",
    title="contrast of spans",
    fields={**slot_fields("mlm", "positions"), **slot_fields("sbo", "left", "right", "offset")},
    head=ContrastHead,
    loss=contrast_loss,
    count=slot_count("sbo"),
    flops=lambda spec, length, slots: 4 * slots * spec.width**2,
    layouts=((r"boundary/kernel", (None, "embed")), (r"boundary/bias", ())),
    reads_layers=True,
    whole_batch=True,
)

CHUNK = 8  # positions that stand for a sentence


class OrderHead(nn.Module):
    """Whether the first two chunks of a row were swapped, from the means of the states of all chunks."""

    spec: object
    layout: object

    @nn.compact
    def __call__(self, states, batch):
        vectors = states.last.reshape(len(batch["tokens"]), -1, CHUNK, self.spec.width).mean(axis=2)  # [B, N, D]
        first = jnp.take_along_axis(vectors, batch["order_chunks"][..., None], axis=1)
        pair = first.reshape(len(vectors), 1, -1)
        return Linear(self.spec, "BMI,IE->BME", (2 * self.spec.width, 2), name="output")(pair).astype(jnp.float32)


def swapped_chunks(rows, key):
    swap = (key[0] % 2).astype(np.int32)[:, None]  # [B, 1]
    tokens = rows["tokens"]
    first, second = tokens[:, 1 : 1 + CHUNK], tokens[:, 1 + CHUNK : 1 + 2 * CHUNK]
    swapped = np.concatenate([tokens[:, :1], second, first, tokens[:, 1 + 2 * CHUNK :]], 1)
    chunks = np.tile(np.array([[0, 1]], np.int32), (len(tokens), 1))
    arrays = {"order_chunks": chunks, "order_targets": swap, "order_weights": np.ones_like(swap, np.float32)}
    return rows | {"tokens": np.where(swap == 1, swapped, tokens)}, arrays


ORDER = Objective(
    name="order",
    title="order of sentences",
    fields={**slot_fields("order", slots="1"), "order_chunks": Field("BC", "int32")},
    head=OrderHead,
    loss=slot_loss("order"),
    count=slot_count("order"),
    flops=lambda spec, length, slots: 8 * spec.width,
    layouts=((r"output/(kernel|bias)", ()),),
    sizes=lambda config: {"C": 2},
)


class ReplacedHead(nn.Module):
    """Which tokens a small generator has replaced: an encoder within the head, with a loss of its own."""

    spec: object
    layout: object

    @nn.compact
    def __call__(self, states, batch):
        small = dataclasses.replace(self.spec, width=self.spec.width // 2, layers=1)
        generator = Encoder(small, self.layout, name="encoder")
        hidden = generator(*(batch[name] for name in ("tokens", "segments", "positions", "token_types")), states.seeds)
        generated = MaskedLanguageHead(small, self.layout, name="mlm")(SimpleNamespace(last=hidden), batch)
        logits = generator.logits(generated.features)
        rows = jnp.arange(len(batch["tokens"]))[:, None]
        used = batch["mlm_weights"] > 0
        chosen = jnp.where(used, jnp.argmax(logits, -1), jnp.asarray(batch["tokens"])[rows, batch["mlm_positions"]])
        corrupted = jnp.asarray(batch["tokens"]).at[rows, batch["mlm_positions"]].set(chosen)
        states = states.encode(corrupted, states.seeds)
        replaced = (
            jnp.zeros(corrupted.shape, jnp.int32)
            .at[rows, batch["mlm_positions"]]
            .set((used & (chosen != batch["mlm_targets"])).astype(jnp.int32))
        )
        scores = Linear(self.spec, "BLD,DE->BLE", (self.spec.width, 2), name="output")(states).astype(jnp.float32)
        return logits, scores, replaced


def replaced_loss(output, batch):
    logits, scores, replaced = output
    generator, _ = cross_entropy_sum(logits, batch["mlm_targets"], batch["mlm_weights"])
    text = (jnp.asarray(batch["segments"]) > 0).astype(jnp.float32)
    total, correct = cross_entropy_sum(scores, replaced, text)
    return generator + total, {"accuracy": correct}


REPLACED = Objective(
    name="replaced",
    title="replaced token detection",
    fields=slot_fields("mlm", "positions"),
    head=ReplacedHead,
    loss=replaced_loss,
    count=lambda batch: jnp.sum(jnp.asarray(batch["segments"]) > 0).astype(jnp.float32),
    flops=lambda spec, length, slots: 4 * length * spec.width,
    layouts=((r"mlm/transform/kernel", (None, "embed")), (r"mlm/(transform/bias|bias)|output/(kernel|bias)", ())),
)


@pytest.mark.parametrize("objective", [CONTRAST, ORDER, REPLACED], ids=lambda objective: objective.name)
def test_the_record_holds_what_will_come(monkeypatch, store, objective):
    """One train step on a mesh equals that on one device, and the gradient reaches the head and the encoder."""
    name = objective.name
    monkeypatch.setitem(OBJECTIVES, name, objective)
    monkeypatch.setitem(knobs.DECLARED, f"objectives.{name}_weight", Knob(0.0, objective.title))
    if objective is ORDER:
        monkeypatch.setitem(targets.INPUTS, name, swapped_chunks)
    changes = {f"objectives__{name}_weight": 1.0, "model__dropout": 0.0, "model__attention_dropout": 0.0}
    results = []
    for devices, mesh in ((1, (1, 1, 1)), (8, (2, 2, 2))):
        config = small_config(**changes, **dict(zip(("mesh__data", "mesh__fsdp", "mesh__tensor"), mesh)))
        program = small_program(config, devices)
        before = program.init(None)
        start = flatten_dict(jax.device_get(before.params), sep="/")
        state, metrics = program.train_step(before, program.put(next(batches_of(store, config))))
        results.append(jax.device_get(metrics))
        after = flatten_dict(jax.device_get(state.params), sep="/")
        moved = {path.split("/")[0] for path in start if not np.array_equal(start[path], after[path])}
        assert {name, "encoder", "mlm", "sbo"} <= moved
    assert results[0][f"{name}_loss"] == pytest.approx(results[1][f"{name}_loss"], rel=1e-4)
    assert {f"{name}_loss", f"{name}_accuracy"} <= results[0].keys()

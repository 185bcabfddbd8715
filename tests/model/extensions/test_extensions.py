"""What every extension of the encoder is held to: off, it is not there; at the start it changes nothing; then it is
trained, and is the same however rows are packed and divided over a mesh. A run with all of them resumes to the same
bits, is planned, and is the start of others.
"""

import functools
import shutil

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from spanbert_jax.errors import InputError
from spanbert_jax.finetuning.predictor import restore
from spanbert_jax.finetuning.start import adopt
from spanbert_jax.model.encoder import FIELDS, Encoder, model_problems
from spanbert_jax.model.extensions import EXTENSIONS, extension_of
from spanbert_jax.model.layout import ONE_DEVICE
from spanbert_jax.model.spec import model_spec
from spanbert_jax.objectives import pretraining
from spanbert_jax.planning.plan import make_plan
from spanbert_jax.planning.topologies import make_topology
from spanbert_jax.tasks import TASKS
from spanbert_jax.training.export import export_model
from spanbert_jax.training.initial import read_initial
from spanbert_jax.training.metrics import read_metrics
from spanbert_jax.training.pretrain import pretrain
from spanbert_jax.training.workdir import restore_run
from tests.finetuning.conftest import run_on, task_config, write_examples
from tests.small import TOKENIZER, batches_of, small_config, small_program

SHAPE = ("mesh__data", "mesh__fsdp", "mesh__tensor")
WITHOUT_DROPOUT = dict(model__dropout=0.0, model__attention_dropout=0.0)
ALL = tuple(EXTENSIONS)


def model_of(config):
    """(spec, parameters at the start by path) of the encoder of a config."""
    spec = model_spec(config, TOKENIZER.vocab_size, "cpu")
    params = pretraining.init_params(spec, pretraining.with_heads(config), jax.random.key(0))
    return spec, flatten_dict(jax.device_get(params["encoder"]), sep="/")


def states_of(spec, params, batch):
    """The encoder's output [B, L, D] for a batch."""
    encoder = jax.jit(Encoder(spec, ONE_DEVICE).apply)
    return np.asarray(encoder({"params": unflatten_dict(params, sep="/")}, *(batch[name] for name in FIELDS)))


def moved(params):
    """Parameters by path, all of them moved away from their start, so that no gate is 0."""
    draw = np.random.default_rng(0)
    return {path: array + draw.normal(0, 0.2, array.shape).astype(np.float32) for path, array in params.items()}


@pytest.mark.parametrize("placement", ["post", "pre"])
@pytest.mark.parametrize("name", EXTENSIONS)
def test_at_the_start_it_adds_parameters_and_changes_nothing(store, name, placement):
    config = small_config(data__max_blocks_per_row=4, model__norm_placement=placement)
    spec, plain = model_of(config)
    config.model.extensions = (name,)
    spec_with, params = model_of(config)
    added = params.keys() - plain.keys()
    assert added and all(extension_of(f"encoder/{path}") == name for path in added)
    for path in plain:
        np.testing.assert_array_equal(plain[path], params[path], err_msg=path)
    batch = next(batches_of(store, config))
    text = batch["segments"] > 0
    states = states_of(spec, plain, batch)
    np.testing.assert_allclose(states_of(spec_with, params, batch)[text], states[text], atol=1e-6)
    changed = states_of(spec_with, params | {path: moved(params)[path] for path in added}, batch)
    assert np.abs(changed - states)[text].max() > 0.01


def steps_of(store, config, devices, steps):
    """Metrics of the first steps, and parameters after two of them."""
    program = small_program(config, devices)
    state, metrics, params = program.init(None), [], {}
    for step, batch in zip(range(steps), batches_of(store, config)):
        state, measured = program.train_step(state, program.put(batch))
        metrics.append(jax.device_get(measured))
        if step == 1:
            params = flatten_dict(jax.device_get(state.params), sep="/")
    return metrics, params


@pytest.mark.slow
@pytest.mark.parametrize("name", EXTENSIONS)
def test_it_learns_and_is_the_same_on_meshes(store, name):
    """With dropout and packed rows: the loss falls; two steps do not depend on the mesh and microbatches."""
    changed = functools.partial(small_config, model__extensions=(name,), data__max_blocks_per_row=4, total_steps=40)
    metrics, params = steps_of(store, changed(), 1, 40)
    others, other_params = steps_of(store, changed(**dict(zip(SHAPE, (2, 2, 2))), accumulation=2), 8, 2)
    for one, other in zip(metrics, others):
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4), one, other)
    for path in params:
        np.testing.assert_allclose(params[path], other_params[path], atol=2e-3, err_msg=path)
    assert all(np.any(params[path]) for path in params if extension_of(path))
    losses = [step["loss"] for step in metrics]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5]), losses


@pytest.mark.parametrize("name", EXTENSIONS)
def test_blocks_do_not_see_the_others_of_their_row(name):
    """Blocks that share a row have the states that they have in a row of their own, wherever they stand."""
    spec, params = model_of(small_config(model__extensions=(name,), **WITHOUT_DROPOUT))
    draw, lengths = np.random.default_rng(0), (7, 1, 11, 5)
    texts = [draw.integers(5, spec.vocab_size, length) for length in lengths]

    def rows(groups):
        fields = {name: np.zeros((len(groups), 32), np.int32) for name in FIELDS}
        for row, group in enumerate(groups):
            at = 0
            for number, text in enumerate(group):
                here = slice(at, at + len(text))
                fields["tokens"][row, here] = text
                fields["segments"][row, here] = number + 1
                fields["positions"][row, here] = np.arange(len(text))
                at += len(text)
        return fields

    packed, *alone = states_of(spec, moved(params), rows([texts, *([text] for text in texts)]))
    at = 0
    for states, length in zip(alone, lengths):
        np.testing.assert_allclose(packed[at : at + length], states[:length], atol=2e-5)
        at += length


@pytest.mark.slow
def test_a_run_of_all_resumes_is_planned_and_is_the_start_of_others(store, tmp_path):
    config = small_config(
        model__extensions=ALL,
        total_steps=4,
        log_every=1,
        eval__every=2,
        eval__max_rows=16,
        checkpoint__every=2,
        data__store=str(store.folder),
        **dict(zip(SHAPE, (2, 2, 2))),
    ).lock()
    run, resumed = tmp_path / "run", tmp_path / "resumed"
    assert pretrain(config, run) == 0
    shutil.copytree(run, resumed)
    shutil.rmtree(resumed / "checkpoints" / "step_4")
    assert pretrain(config, resumed) == 0
    params, again = (flatten_dict(jax.device_get(restore_run(each).params), sep="/") for each in (run, resumed))
    assert all(np.array_equal(params[path], again[path]) for path in params)
    assert [line.get("loss") for line in read_metrics(run)] == [line.get("loss") for line in read_metrics(resumed)]

    plan = make_plan(config, make_topology("cpu:8"), TOKENIZER.vocab_size)
    assert plan.costs.flops * 8 == pytest.approx(plan.program.flops_per_step, rel=0.03)

    for format in ("huggingface", "original"):
        with pytest.raises(InputError, match=r"no counterpart for this encoder: model.extensions is \('dynamic"):
            export_model(run, tmp_path / format, format, None)

    same = read_initial(small_config(model__extensions=ALL, init__path=str(run)), TOKENIZER)
    assert same.missing == []
    assert all(np.array_equal(same.params[path], params[path]) for path in params)
    with pytest.raises(InputError, match=r"model.extensions is .*'dynamic_heads'.* there, \(\) in this config"):
        read_initial(small_config(init__path=str(run)), TOKENIZER)


@pytest.mark.slow
def test_a_plain_model_is_the_start_of_one_with_all(store, tmp_path):
    plain = small_config(total_steps=3, checkpoint__every=3, eval__every=0, data__store=str(store.folder)).lock()
    assert pretrain(plain, tmp_path / "plain") == 0
    initial = read_initial(small_config(model__extensions=ALL, init__path=str(tmp_path / "plain")), TOKENIZER)
    assert initial.missing == sorted(ALL) and "dynamic_heads" in initial.summary()
    assert not any(extension_of(path) for path in initial.params)
    for seed, name in enumerate(("train", "valid", "test")):
        write_examples(tmp_path / f"{name}.tsv", 32, seed)
    changes = dict(init__path=str(tmp_path / "plain"), model__extensions=ALL, task__epochs=1)
    assert run_on(task_config(tmp_path, **changes), tmp_path / "tuned") == 0
    tuned = restore(tmp_path / "tuned", TASKS)
    assert {extension_of(path) for path in flatten_dict(tuned.params, sep="/")} == {*ALL, None}


def test_fine_tuning_may_add_extensions_to_those_of_its_start():
    source, config = small_config(model__extensions=ALL[:1]), small_config(model__extensions=ALL[::-1])
    source.model.width = 64
    adopt(config, source)
    assert config.model.width == 64 and config.model.extensions == (ALL[0], *reversed(ALL[1:]))


def test_unknown_extensions_are_refused():
    (problem,) = model_problems(small_config(model__extensions=("dynamic_head",)))
    assert problem.startswith("model.extensions must be some of dynamic_heads") and problem.endswith("'dynamic_head'")

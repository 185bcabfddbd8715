"""A whole small run, and what it leaves in its folder."""

import json
import shutil

import jax
import numpy as np
import pytest
import tensorflow as tf

from spanbert_jax import config as config_lib
from spanbert_jax.data.batches import Feed
from spanbert_jax.data.mixture import Mixture
from spanbert_jax.errors import Diverged, InputError
from spanbert_jax.training.checkpoint import Checkpoints
from spanbert_jax.training.metrics import duration, read_metrics
from spanbert_jax.training.pretrain import pretrain
from spanbert_jax.training.trained import restore
from tests.small import TOKENIZER, small_config, small_program


def config_on(store, **changes):
    return small_config(data__store=str(store.folder), **changes)


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "workdir"
    config = config_on(
        store, checkpoint__every=4, checkpoint__keep_last=2, checkpoint__keep_every=8, checkpoint__export_every=10
    )
    assert pretrain(config, workdir) == 0
    return config, workdir


def test_metrics_lines_tell_training_and_evaluation(run):
    _, workdir = run
    lines = read_metrics(workdir)
    training = [line for line in lines if "loss" in line]
    assert [line["step"] for line in training] == [5, 10, 15, 20]
    for line in training:
        assert {"mlm_loss", "sbo_loss", "learning_rate", "tokens_per_second", "mfu", "gradient_norm"} <= line.keys()
        np.testing.assert_allclose(line["loss"], line["mlm_loss"] + line["sbo_loss"], rtol=1e-6)
    evaluation = [line for line in lines if "eval/mlm_loss" in line]
    assert [line["step"] for line in evaluation] == [10, 20]
    assert evaluation[1]["eval/mlm_loss"] < evaluation[0]["eval/mlm_loss"]
    assert evaluation[0]["eval/mlm_count"] == evaluation[1]["eval/mlm_count"] > 0  # the same masks each time


def test_tensorboard_events_hold_the_same_numbers(run):
    _, workdir = run
    from tensorflow.core.util import event_pb2

    (path,) = (workdir / "tensorboard").iterdir()
    events = [event_pb2.Event.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path))]
    assert events[0].file_version == "brain.Event:2"
    losses = {
        event.step: value.simple_value for event in events for value in event.summary.value if value.tag == "loss"
    }
    expected = {line["step"]: line["loss"] for line in read_metrics(workdir) if "loss" in line}
    assert losses.keys() == expected.keys()
    np.testing.assert_allclose(list(losses.values()), list(expected.values()), rtol=1e-6)


def test_the_folder_knows_its_config_and_vocabulary(run):
    config, workdir = run
    assert config_lib.to_json(config_lib.from_json((workdir / "config.json").read_text())) == config_lib.to_json(config)
    assert "[MASK]" in (workdir / "vocab.txt").read_text().splitlines()
    json.loads((workdir / "tokenizer.json").read_text())


def test_exports_by_step_have_the_weights_and_the_metrics_of_their_step(run):
    config, workdir = run
    assert {path.name for path in (workdir / "exports").iterdir()} == {"step_10", "step_20"}
    evaluated = {line["step"]: line["eval/mlm_loss"] for line in read_metrics(workdir) if "eval/mlm_loss" in line}
    for step, loss in evaluated.items():
        card = (workdir / "exports" / f"step_{step}" / "README.md").read_text()
        assert f"Weights after step {step:,} of 20" in card and f"| eval/mlm_loss | {step} | {loss:.6g} |" in card
    exported, _ = restore(workdir / "exports" / "step_20", None)
    trained, _ = restore(workdir, 20)
    assert jax.tree.all(jax.tree.map(np.array_equal, jax.device_get(exported.params), jax.device_get(trained.params)))
    assert pretrain(config, workdir) == 0  # those that are there stay


def test_runs_of_other_masks_are_evaluated_on_the_same_ones(store):
    """Of eval.masking; training masks stay those of config.masking, and slots are as many as each needs."""
    common = dict(eval__masking=("rate=0.15", "schemes=geometric_span"))
    other = dict(masking__rate=0.4, masking__schemes=("subword",))
    plain, same, changed = config_on(store), config_on(store, **common, **other), config_on(store, **other)
    feeds = [Feed(config, Mixture([store]), TOKENIZER) for config in (plain, same, changed)]
    first, second, third = (next(feed.held_out(feed.names[0])) for feed in feeds)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert second["mlm_weights"].shape < third["mlm_weights"].shape
    _, trained, expected = (next(feed.training(0)) for feed in feeds)
    assert all(np.array_equal(trained[name], expected[name]) for name in trained)
    program = small_program(same, 1)
    sums = program.eval_step(program.init(None).params, program.put(second))
    assert sums["mlm"]["count"] == first["mlm_weights"].sum()


def test_evaluation_masks_that_cannot_be_made_are_refused(store, tmp_path):
    config = config_on(store, eval__masking=("rte=0.15", "schemes=span"))
    with pytest.raises(InputError, match="eval.masking: config has no key 'masking.rte'; did you mean 'masking.rate'"):
        pretrain(config, tmp_path / "run")


def test_exports_that_cannot_be_made_are_refused_at_the_start(store, tmp_path):
    config = config_on(store, checkpoint__export_every=15, model__qk_norm=True)
    with pytest.raises(InputError, match="(?s)15 must be a multiple of eval.every 10.*no counterpart for this encoder"):
        pretrain(config, tmp_path / "run")


def test_the_newest_and_every_eighth_checkpoint_are_kept(run):
    _, workdir = run
    assert sorted(int(path.name.removeprefix("step_")) for path in (workdir / "checkpoints").glob("step_*")) == [
        8,
        16,
        20,
    ]


def test_a_checkpoint_restores_on_another_mesh(run):
    _, workdir = run
    other = small_program(small_config(mesh__data=2, mesh__fsdp=2, mesh__tensor=2), 8)
    checkpoints = Checkpoints(workdir / "checkpoints")
    state = checkpoints.restore(20, other.state)
    assert state.params["encoder"]["embeddings"]["word"].sharding.mesh.shape == {"data": 2, "fsdp": 2, "tensor": 2}
    raw = checkpoints.read_params(20)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params), raw)
    checkpoints.close()


def test_a_checkpoint_of_another_model_names_the_parameter(run):
    _, workdir = run
    checkpoints = Checkpoints(workdir / "checkpoints")
    with pytest.raises(InputError, match="different model: .* in this config"):
        checkpoints.restore(20, small_program(small_config(model__width=64), 1).state)
    checkpoints.close()


def test_a_damaged_checkpoint_is_told_in_one_line(run, tmp_path):
    _, workdir = run
    folder = tmp_path / "checkpoints"
    shutil.copytree(workdir / "checkpoints", folder)
    data = max((folder / "step_20" / "state").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    data.write_bytes(data.read_bytes()[:100])
    checkpoints = Checkpoints(folder)
    for read in (lambda: checkpoints.read(20), lambda: checkpoints.restore(20, small_program(small_config(), 1).state)):
        with pytest.raises(InputError, match=r"^checkpoint .*step_20 is damaged .*remove that folder") as error:
            read()
        assert "\n" not in str(error.value)
    checkpoints.close()


def test_another_config_is_refused_and_the_difference_shown(run):
    config, workdir = run
    before = sorted(path.name for path in workdir.rglob("*"))
    other = config.copy_and_resolve_references()
    other.optimizer.learning_rate = 1e-3
    other.seed = 5
    with pytest.raises(
        InputError, match=r"(?s)optimizer.learning_rate: 0.005 in the run, 0.001 now.*seed: 0 in the run, 5 now"
    ):
        pretrain(other, workdir)
    assert sorted(path.name for path in workdir.rglob("*")) == before


def test_runtime_keys_may_change(run):
    config, workdir = run
    other = config.copy_and_resolve_references()
    other.log_every, other.mesh.data, other.mesh.fsdp = 1, 2, 4
    assert pretrain(other, workdir) == 0  # finished already


def test_divergence_stops_the_run_and_names_step_and_checkpoint(store, tmp_path):
    config = config_on(
        store,
        checkpoint__every=2,
        optimizer__learning_rate=1e37,
        optimizer__clip_norm=0.0,
        optimizer__warmup_steps=0,
        eval__every=0,
    )
    with pytest.raises(
        Diverged, match=r"step \d+: loss .*(no checkpoint yet|last good checkpoint is of step \d+) in .*learning_rate"
    ):
        pretrain(config, tmp_path / "workdir")
    assert all(np.isfinite(line["loss"]) for line in read_metrics(tmp_path / "workdir"))


def test_durations():
    assert [duration(s) for s in (5, 65, 3700, 90000)] == ["5s", "1m05s", "1h01m", "1d01h"]

"""Reporting to trackers: what they get, that they cannot stop a run, and the real packages, without a network."""

import json
import struct
import sys
import threading
from pathlib import Path
from typing import ClassVar

import pytest

from spanbert_jax import config as config_lib
from spanbert_jax.errors import Diverged, InputError
from spanbert_jax.trackers import TRACKERS, tracking
from spanbert_jax.trackers.tracker import FINISHED, STOPPED, Tracker
from spanbert_jax.trackers.tracking import check_trackers, track
from spanbert_jax.training import run as run_lib
from spanbert_jax.training.metrics import read_metrics
from spanbert_jax.training.pretrain import pretrain
from tests.finetuning.conftest import run_on, task_config, write_examples
from tests.small import small_config


class Notebook(Tracker):
    """A tracker that keeps everything in memory."""

    package = "json"
    runs: ClassVar[list] = []  # (TrackedRun, [(step, metrics), ..., how it ended])

    def __init__(self, run):
        self.lines = []
        self.runs.append((run, self.lines))

    def write(self, step, metrics):
        self.lines.append((step, metrics))

    def close(self, how):
        self.lines.append(how)


class Refusing(Notebook):
    def __init__(self, run):
        raise ConnectionError("no network\nand more")


class Exiting(Notebook):
    def write(self, step, metrics):
        sys.exit("the service asks to end the process")


class Hanging(Notebook):
    def close(self, how):
        threading.Event().wait(30)


@pytest.fixture(autouse=True)
def guests(monkeypatch):
    monkeypatch.setattr(Notebook, "runs", [])
    for kind in (Notebook, Refusing, Exiting, Hanging):
        monkeypatch.setitem(TRACKERS, kind.__name__.lower(), kind)


def config_on(store, *trackers, **changes):
    fixed = dict(total_steps=4, log_every=1, eval__every=0, checkpoint__every=2)
    return small_config(data__store=str(store.folder), tracking__trackers=trackers, **fixed | changes)


def test_a_tracker_gets_config_provenance_and_metrics_and_a_resumed_run_is_the_same(store, tmp_path):
    changes = dict(optimizer__schedule="constant", tracking__project="spans")
    assert pretrain(config_on(store, "notebook:there", **changes), tmp_path / "run") == 0
    assert pretrain(config_on(store, "notebook:there", **changes | dict(total_steps=6)), tmp_path / "run") == 0
    assert pretrain(config_on(store, "notebook"), tmp_path / "other") == 0
    (first, lines), (second, more), (other, _) = Notebook.runs
    assert (first.project, first.where, first.group) == ("spans", "there", "spanbert-tiny")
    assert first.id in first.name and first.name.startswith("spanbert-tiny-run-")
    assert (second.id, second.name) == (first.id, first.name) and first.id != other.id
    assert first.settings["optimizer.learning_rate"] == 5e-3 and first.settings["provenance.versions.jax"]
    logged = read_metrics(tmp_path / "run")
    known = [(line.pop("step"), {name: v for name, v in line.items() if v is not None}) for line in logged]
    assert [*lines[:-1], *more[:-1]] == known and lines[-1] == more[-1] == FINISHED
    assert {step for step, _ in more[:-1]} == {5, 6}


def test_trackers_that_fail_are_left_out_with_one_warning_each(store, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tracking, "CLOSE_SECONDS", 0.5)
    config = config_on(store, "refusing", "exiting", "hanging", "notebook")
    assert pretrain(config, tmp_path / "run") == 0
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: the run goes on")]
    assert sorted(warnings) == [
        "warning: the run goes on without exiting: SystemExit: the service asks to end the process",
        "warning: the run goes on without hanging: it has not ended within 0.5 s, and its last metrics may be missing",
        "warning: the run goes on without refusing: ConnectionError: no network",
    ]
    plain = config_on(store)
    assert pretrain(plain, tmp_path / "plain") == 0
    losses = [[line.get("loss") for line in read_metrics(tmp_path / name)] for name in ("run", "plain")]
    assert losses[0] == losses[1] and Notebook.runs[-1][1][-1] == FINISHED


def test_a_run_that_diverges_has_failed_and_one_that_is_stopped_has_not(store, tmp_path, monkeypatch):
    report = run_lib.Run.report

    def diverging(self, pending):
        report(self, pending)
        if pending and pending[0] == 3:
            raise Diverged("step 3")

    config = config_on(store, "notebook", checkpoint__every=100)
    with monkeypatch.context() as patch:
        patch.setattr(run_lib.Run, "report", diverging)
        with pytest.raises(Diverged):
            pretrain(config, tmp_path / "run")
    monkeypatch.setattr(run_lib.StopSignal, "poll", lambda self: 143)
    assert pretrain(config, tmp_path / "run") == 143
    assert [lines[-1] for _, lines in Notebook.runs] == ["failed", STOPPED]


def test_fine_tuning_is_tracked_too(tmp_path):
    for seed, name in enumerate(("train", "valid", "test")):
        write_examples(tmp_path / f"{name}.tsv", 20, seed)
    config = task_config(tmp_path, task__epochs=1, tracking__trackers=("notebook",))
    assert run_on(config, tmp_path / "run") == 0
    [(run, lines)] = Notebook.runs
    assert run.settings["task.name"] == "classification" and lines[-1] == FINISHED
    assert any("eval/accuracy" in metrics for _, metrics in lines[:-1])


def test_unknown_trackers_and_missing_packages_are_refused_at_once(store, tmp_path, monkeypatch):
    monkeypatch.setattr(Notebook, "package", "not_there")
    with pytest.raises(InputError, match=r"notebook is not installed here: pip install 'spanbert_jax\[notebook\]'"):
        pretrain(config_on(store, "notebook"), tmp_path / "run")
    with pytest.raises(InputError, match="must be of trackio, wandb, mlflow.*, not 'tensorbored'"):
        pretrain(config_on(store, "tensorbored:x"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    check_trackers(config_on(store))


@pytest.fixture
def twice(tmp_path):
    """A function that tracks a run with one of the real packages, and then goes on with it; returns id and name."""

    def tracked(where: str):
        (tmp_path / "run").mkdir()
        config = config_lib.load_config("spanbert:tiny", [f"tracking.trackers={where}", "tracking.project=spans"])
        for steps, how in ((range(1, 4), STOPPED), (range(4, 6), FINISHED)):
            tracked = track(config, tmp_path / "run", {"provenance.git.commit": "abc"})
            warnings = [
                warning
                for step in steps
                for warning in tracked.write(step, {"loss": 10.0 / step, "rows/wi ki?": 1.0, "mfu": None})
            ]
            assert tracked.close(how) + warnings == []
            config = config.copy_and_resolve_references().unlock()
            config.log_every = 7  # what a run that goes on may change
            config.lock()
        return tracking._identity(config, tmp_path / "run")

    return tracked


LOSSES = [(step, 10.0 / step) for step in range(1, 6)]


@pytest.mark.skipif(not tracking.installed("mlflow"), reason="needs mlflow: pip install 'spanbert_jax[mlflow]'")
def test_mlflow(twice, tmp_path):
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    number, name = twice(f"mlflow:{uri}")
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("spans")
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == name and run.info.status == "FINISHED"
    assert run.data.params["optimizer.warmup_steps"] == "100" and run.data.params["provenance.git.commit"] == "abc"
    assert run.data.params["log_every"] != "7" and run.data.tags["now.log_every"] == "7"
    assert run.data.tags["spanbert_jax.run"] == number
    assert [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "loss")] == LOSSES
    assert set(run.data.metrics) == {"loss", "rows/wi ki_"}


@pytest.mark.skipif(not tracking.installed("trackio"), reason="needs trackio: pip install 'spanbert_jax[trackio]'")
def test_trackio(twice, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read by its import
    from trackio.sqlite_storage import SQLiteStorage

    _, name = twice("trackio")
    assert SQLiteStorage.get_runs("spans") == [name]
    logs = SQLiteStorage.get_logs("spans", name)
    assert [(line["step"], line["loss"]) for line in logs] == LOSSES
    assert SQLiteStorage.get_run_config("spans", name)["optimizer.warmup_steps"] == 100


@pytest.mark.skipif(not tracking.installed("wandb"), reason="needs wandb: pip install 'spanbert_jax[wandb]'")
def test_wandb(twice, tmp_path):
    number, name = twice("wandb:offline")
    losses, config = [], {}
    for path in sorted(tmp_path.glob("run/wandb/offline-run-*/*.wandb")):  # by time: one each time that the run goes on
        for record in wandb_records(path):
            if record.HasField("run"):
                assert (record.run.run_id, record.run.display_name, record.run.project) == (number, name, "spans")
                config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            if record.HasField("history"):
                values = {item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
                losses.append((values["_step"], values["loss"]))
            if record.HasField("exit"):
                assert record.exit.exit_code == 0
    assert losses == LOSSES
    assert config["optimizer.warmup_steps"] == 100 and config["log_every"] == 7


def wandb_records(path: Path):
    """Yields the records of a file of W&B: after 7 bytes, blocks of 32 KiB as in LevelDB's log."""
    from wandb.proto import wandb_internal_pb2

    data, at, part = path.read_bytes(), 7, b""
    while at < len(data):
        left = 2**15 - at % 2**15
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])  # 1 whole, 2 first, 3 middle, 4 last
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(part)
            part = b""

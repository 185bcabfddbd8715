"""What happens between steps: signals, profiles, compiled programs that are kept, unintended transfers."""

import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spanbert_jax.data.batches import Feed
from spanbert_jax.errors import DoesNotFit
from spanbert_jax.training import program as program_lib
from spanbert_jax.training import run as run_lib
from spanbert_jax.training.checkpoint import Checkpoints
from spanbert_jax.training.metrics import read_metrics
from spanbert_jax.training.pretrain import pretrain
from spanbert_jax.training.processes import StopSignal
from tests.small import small_config


def config_on(store, **changes):
    return small_config(data__store=str(store.folder), **changes)


def test_a_signal_during_evaluation_saves_and_the_evaluation_is_done_by_the_next_start(store, tmp_path, monkeypatch):
    config = config_on(store, eval__every=5, checkpoint__every=20)
    assert pretrain(config, tmp_path / "straight") == 0
    asked = []
    held_out = Feed.held_out

    def interrupted(self, *arguments):
        for number, batch in enumerate(held_out(self, *arguments)):
            if number == 1 and not asked:
                asked.append(number)
                signal.raise_signal(signal.SIGTERM)
            yield batch

    monkeypatch.setattr(Feed, "held_out", interrupted)
    assert pretrain(config, tmp_path / "run") == 143 and asked
    assert Checkpoints(tmp_path / "run" / "checkpoints", read_only=True).steps() == [5]
    assert [line["step"] for line in read_metrics(tmp_path / "run") if "eval/mlm_loss" in line] == []
    assert pretrain(config, tmp_path / "run") == 0
    told = [
        [(line["step"], line["eval/mlm_loss"]) for line in read_metrics(tmp_path / name) if "eval/mlm_loss" in line]
        for name in ("straight", "run")
    ]
    assert told[0] == told[1] and [step for step, _ in told[0]] == [5, 10, 15, 20]


def test_the_chosen_steps_are_recorded(store, tmp_path, capfd):
    config = config_on(store, profile__first=3, profile__steps=2, total_steps=6, eval__every=0)
    assert pretrain(config, tmp_path / "run") == 0
    (trace,) = (tmp_path / "run" / "profile").rglob("*.xplane.pb")
    events = [
        dict(event.stats)
        for plane in jax.profiler.ProfileData.from_file(str(trace)).planes
        for line in plane.lines
        for event in line.events
        if event.name == "train"
    ]
    assert {int(stats["step_num"]) for stats in events} == {3, 4}
    assert "recorded a profile into" in capfd.readouterr().out


def test_compiled_programs_are_kept_for_the_next_start(store, tmp_path):
    before, hits = jax.config.jax_compilation_cache_dir, []

    def listener(event, **_):
        if event == "/jax/compilation_cache/cache_hits":
            hits.append(event)

    def hits_of_a_run(name):
        hits.clear()
        jax.clear_caches()  # of programs in this process
        assert pretrain(config, tmp_path / name) == 0
        return len(hits)

    config = config_on(store, compile_cache=str(tmp_path / "cache"), total_steps=3, eval__every=0, model__mlp_width=48)
    jax.monitoring.register_event_listener(listener)
    try:
        first = hits_of_a_run("one")
        kept = {path.name for path in (tmp_path / "cache").iterdir() if path.name.endswith("-cache")}
        assert any("train_step" in name for name in kept)
        assert hits_of_a_run("two") >= first + len(kept)
        now = {path.name for path in (tmp_path / "cache").iterdir() if path.name.endswith("-cache")}
        # Others may be new on a busy machine: what compiles in less than half a second is not kept.
        assert kept <= now and not any("train_step" in name for name in now - kept)
    finally:
        jax.monitoring.unregister_event_listener(listener)
        program_lib.keep_compiled(before)


def test_an_implicit_transfer_is_an_error(store, tmp_path, monkeypatch):
    report = run_lib.Run.report

    def careless(self, pending):
        report(self, pending)
        if pending:
            jnp.add(pending[1]["loss"], np.ones(3, np.float32))  # an implicit transfer to the devices

    monkeypatch.setattr(run_lib.Run, "report", careless)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
        pretrain(config_on(store, total_steps=3, eval__every=0), tmp_path / "run")


def test_memory_in_use_is_logged(store, tmp_path):
    assert pretrain(config_on(store, total_steps=5, eval__every=0), tmp_path / "run") == 0
    (line,) = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert 10**8 < line["host_memory_bytes"] < 10**11


def test_what_does_not_fit_is_refused_before_the_run_and_keeps_the_store(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text(
        "\n\n".join(f"The cat sat on the mat and saw {number} mice ." for number in range(400))
    )
    monkeypatch.setattr(program_lib, "memory_of_device", lambda: 10**6)
    config = small_config(data__source=str(tmp_path / "text.txt"), data__valid_fraction=0.1, eval__every=0)
    with pytest.raises(
        DoesNotFit,
        match=r"does not fit the devices' memory \(0.0\d GiB a device, of which it has 0.00\).*plan.py --search",
    ):
        pretrain(config, tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} - {".lock"} == {"store"}
    monkeypatch.undo()
    assert pretrain(config, tmp_path / "run") == 0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"])
def test_a_stop_signal_is_reported_once_and_then_has_its_usual_effect(name, monkeypatch):
    number = getattr(signal, name)
    before = signal.signal(number, lambda *_: pytest.fail("the usual effect"))
    try:
        with StopSignal(None) as stop:
            assert stop.poll() == 0
            signal.raise_signal(number)
            assert stop.poll() == 128 + number
            with pytest.raises(pytest.fail.Exception):
                signal.raise_signal(number)
        signal.signal(number, signal.SIG_IGN)  # as nohup starts a process
        with StopSignal(None) as stop:
            signal.raise_signal(number)
            assert stop.poll() == 0
    finally:
        signal.signal(number, before)

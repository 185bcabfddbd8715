"""Sweeps: what is tried, that workers share it, and that killed ones lose nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

pytest.importorskip("optuna", reason="sweeps are kept by optuna")

from spanbert_jax import config as config_lib
from spanbert_jax.commands import sweep
from spanbert_jax.errors import InputError
from spanbert_jax.experiments.report.records import read_records
from spanbert_jax.experiments.sweeps.plan import Plan, Range, listed, searched
from spanbert_jax.experiments.sweeps.study import Study
from spanbert_jax.training.metrics import read_metrics
from tests.small import small_config

ROOT = Path(__file__).parents[2]
CONFIG = small_config()
FILE = """
from tests.small import small_config

def get_config():
    return small_config(total_steps=6, log_every=2, eval__every=2, eval__max_rows=8, checkpoint__every=2,
                        data__store={store!r})

def sweep(add):
    for rate in (1e-3, 2e-3):
        add({{"optimizer.learning_rate": rate}})
    add(seed=5)
"""


def plan_of(config=CONFIG, **changes):
    fields = dict(trials=[], space={}, number=1, metric="mlm_loss", sampler="tpe", prune=False)
    return Plan(config=config, **fields | changes)


def test_lists_are_every_combination():
    assert listed(["optimizer.learning_rate=1e-3,2e-3"], ["model.layers=1,2", "model.mlp_width=8,16"], 2, CONFIG) == [
        {"optimizer.learning_rate": rate, "model.layers": layers, "model.mlp_width": 8 * layers, "seed": seed}
        for rate in (1e-3, 2e-3)
        for layers in (1, 2)
        for seed in (0, 1)
    ]
    assert listed(["masking.schemes=subword;geometric_span,fixed_span"], [], 1, CONFIG) == [
        {"masking.schemes": ("subword",)},
        {"masking.schemes": ("geometric_span", "fixed_span")},
    ]
    space = searched(["optimizer.learning_rate=1e-4:1e-2:log", "model.layers=1:4", "masking.rate=0.15,0.3"], CONFIG)
    assert space == {
        "optimizer.learning_rate": Range(1e-4, 1e-2, True, False),
        "model.layers": Range(1, 4, False, True),
        "masking.rate": [0.15, 0.3],
    }


def run(*arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sweep", *map(str, arguments)])
    return sweep.main()


@pytest.fixture(scope="module")
def config_file(store, tmp_path_factory):
    file = tmp_path_factory.mktemp("config") / "small.py"
    file.write_text(FILE.format(store=str(store.folder)))
    return file


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--grid=optimizer.rate=1"], "no key 'optimizer.rate'"),
        (["--grid=optimizer.learning_rate"], "give values, as in"),
        (["--grid=model.layers=1,x"], "config key 'model.layers' needs a value like"),
        (["--zip=model.layers=1,2", "--zip=seed=1,2,3"], "model.layers has 2, seed has 3"),
        (["--grid=masking.rate=0.15,1.5"], r"seed=5, masking.rate=1.5: masking.rate must be at most 1"),
        (["--search=optimizer.learning_rate=1e-2:1e-4"], "LOW below HIGH"),
        (["--search=model.layers=1:2", "--seeds=2"], "give it without --grid"),
        (["--grid=seed=1,2", "--storage=postgresql+nothing://me:secret@host/x"], r"--storage=postgresql.*@host/x"),
    ],
    ids=str,
)
def test_bad_input(arguments, said, config_file, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=said) as error:
        run(f"--config={config_file}", f"--study={tmp_path / 's'}", *arguments, monkeypatch=monkeypatch)
    assert "secret" not in str(error.value)


def test_a_study_of_another_config_is_refused(tmp_path):
    Study(tmp_path, "", plan_of(trials=[{"seed": 1}]))
    Study(tmp_path, "", plan_of(trials=[{"seed": 1}], config=small_config(log_every=7)))  # an execution option
    with pytest.raises(InputError, match="is of another config or other trials"):
        Study(tmp_path, "", plan_of(trials=[{"seed": 2}]))


def test_no_two_workers_have_a_trial_and_abandoned_ones_are_taken_up(tmp_path):
    plan = plan_of(trials=[{"seed": seed} for seed in range(3)], number=3)
    one, other = Study(tmp_path, "", plan), Study(tmp_path, "", plan)
    with one.next() as first:
        with other.next() as second, one.next() as third:
            assert [trial.number for trial in (first, second, third)] == [0, 1, 2]
            with other.next() as none:
                assert none is None
            second.finish(1.0)
        assert third.changes == {"seed": 2} and not third.resumed
        with other.next() as again:  # its worker let it go without a result
            assert again.number == 2 and again.resumed and again.changes == {"seed": 2}
            again.finish(None, failure="why")
        first.finish(2.0)
    with other.next() as none:
        assert none is None
    assert [trial.state.name for trial in one.trials()] == ["COMPLETE", "COMPLETE", "FAIL"]


def test_a_search_goes_on_with_the_values_of_an_abandoned_trial(tmp_path):
    plan = plan_of(space=searched(["optimizer.learning_rate=1e-4:1e-2:log"], CONFIG), number=2, sampler="random")
    with Study(tmp_path, "", plan).next() as trial:
        changes = trial.changes
    with Study(tmp_path, "", plan).next() as again:
        assert again.resumed and again.changes == changes and 1e-4 <= changes["optimizer.learning_rate"] <= 1e-2


def test_the_sweep_of_a_file_and_what_a_dry_run_prints(config_file, tmp_path, monkeypatch, capsys):
    assert run(f"--config={config_file}", f"--study={tmp_path}", "--seeds=2", "--dry_run", monkeypatch=monkeypatch) == 0
    printed = capsys.readouterr().out
    assert "trial 3  optimizer.learning_rate=0.002, seed=1" in printed and "6 trials, compared by mlm_loss" in printed
    assert not any(tmp_path.iterdir())


def test_pruning_ends_what_is_worse_than_the_median(tmp_path):
    plan = plan_of(trials=[{"seed": seed} for seed in range(5)], number=5, prune=True)
    study = Study(tmp_path, "", plan)
    for number in range(5):
        with study.next() as trial:
            worst = number == 4
            assert trial.bad_so_far(2, {"mlm_loss": 9.0 if worst else 5.0 - number}) is worst
            trial.finish(None if worst else 5.0 - number, pruned=worst)
    assert study.trials()[4].state.name == "PRUNED"


def start_worker(arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "scripts/sweep.py", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def two_workers_one_killed_twice(folder, config_file, storage=()):
    """Runs a sweep of 12 trials with a worker that stays and one that is killed twice, and returns the study."""
    seeds = ",".join(map(str, range(12)))
    arguments = [f"--config={config_file}", f"--study={folder}", f"--grid=seed={seeds}", *storage]
    stays = start_worker(arguments)
    for number in range(2):
        killed = start_worker(arguments)
        deadline = time.monotonic() + 240
        mine = 0
        while mine <= number and time.monotonic() < deadline:  # it is in the middle of a trial of its own
            time.sleep(0.2)
            mine = len(list(folder.glob("trials/*/checkpoints/step_2")))
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    last = start_worker(arguments)
    for worker in (stays, last):
        output, _ = worker.communicate(timeout=500)
        assert worker.returncode == 0, output.decode()
    config = config_lib.load_config(str(config_file))
    trials = listed([f"seed={seeds}"], [], 1, config)
    return Study(folder, storage[0].partition("=")[2] if storage else "", plan_of(config, trials=trials, number=12))


@pytest.mark.slow
def test_twelve_trials_with_two_workers_one_killed_twice(store, tmp_path):
    file = tmp_path / "plain.py"
    file.write_text(FILE.format(store=str(store.folder)).partition("def sweep")[0])
    study = two_workers_one_killed_twice(tmp_path / "study", file)
    trials = study.optuna.get_trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 12
    assert sorted(json.loads(trial.user_attrs["changes"])["seed"] for trial in trials) == list(range(12))
    records = {record.workdir.name: record for record in read_records([tmp_path / "study"])}
    assert len(records) == 12
    for trial in trials:
        record = records[str(trial.number)]
        assert record.metrics["mlm_loss"] == trial.value
        steps = [line["step"] for line in read_metrics(record.workdir) if "loss" in line]
        assert steps == [2, 4, 6]  # none twice
    assert len(list((tmp_path / "study" / "compiled").glob("jit_train_step-*-cache"))) == 1  # seeds share a program


def postgres_tools() -> Path | None:
    """The newest folder of PostgreSQL's programs, as Debian installs them."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None, key=lambda path: float(path.parent.name))


@pytest.fixture
def database(tmp_path):
    """The URL of a new PostgreSQL server."""
    tools = postgres_tools()
    if tools is None:
        pytest.skip("needs PostgreSQL")
    pytest.importorskip("psycopg", reason="reaches PostgreSQL by psycopg")
    folder = Path(tempfile.mkdtemp(prefix="sweep", dir="/tmp"))
    user = {}
    if os.geteuid() == 0:  # as which PostgreSQL does not run
        shutil.chown(folder, "postgres")
        user = {"user": "postgres", "group": "postgres", "extra_groups": []}

    def call(*command):
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, **user)

    call(tools / "initdb", "-D", folder / "data", "--auth=trust", "--username=me", "--no-sync")
    options = f"-c listen_addresses= -c unix_socket_directories={folder}"
    call(tools / "pg_ctl", "-D", folder / "data", "-w", "-l", folder / "log", "-o", options, "start")
    try:
        call(tools / "createdb", "-h", folder, "-U", "me", "sweeps")
        yield f"postgresql+psycopg://me@/sweeps?host={folder}"
    finally:
        call(tools / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.mark.slow
def test_twelve_trials_on_postgresql(store, database, tmp_path):
    file = tmp_path / "plain.py"
    file.write_text(FILE.format(store=str(store.folder)).partition("def sweep")[0])
    study = two_workers_one_killed_twice(tmp_path / "study", file, [f"--storage={database}"])
    assert [trial.state.name for trial in study.optuna.get_trials()] == ["COMPLETE"] * 12
    assert not (tmp_path / "study" / "journal.log").exists()

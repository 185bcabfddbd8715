"""The command line: `spanbert NAME` runs the module of that name, and each script is the same command."""

import subprocess
import sys
from pathlib import Path

import pytest

from spanbert_jax import cli, commands

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "scripts").glob("*.py"))


def test_every_script_is_a_command_and_every_command_a_script():
    assert sorted(path.stem for path in Path(commands.__file__).parent.glob("[!_]*.py")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_help_describes_a_command(name, monkeypatch, capsys):
    for spelling in {name, name.replace("_", "-")}:
        monkeypatch.setattr(sys, "argv", ["spanbert", spelling, "--help"])
        with pytest.raises(SystemExit) as end:
            commands.main()
        assert end.value.code == 0
        assert capsys.readouterr().out.startswith(f"usage: spanbert {name} ")


def test_an_unknown_command_is_refused_with_the_known_ones(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["spanbert", "pretrian"])
    with pytest.raises(SystemExit) as end:
        commands.main()
    message = capsys.readouterr().err
    assert end.value.code == 2 and all(name in message for name in NAMES)


def test_an_override_without_a_config_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["spanbert", "plot_metrics", "run", "--config.seed=1"])
    with pytest.raises(SystemExit) as end:
        commands.main()
    assert end.value.code == 2
    assert capsys.readouterr().err == "spanbert plot_metrics: --config.seed=1 requires --config=CONFIG:VARIANT\n"


def test_ctrl_c_exits_as_a_shell_expects(monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        cli.run(interrupted)
    assert end.value.code == 130


def test_a_script_runs_its_command():
    command = [sys.executable, "scripts/plot_metrics.py", "absent"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 2 and ended.stderr.startswith("plot_metrics.py: absent has no metrics.jsonl")

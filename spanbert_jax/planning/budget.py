"""How many steps a budget pays for: of tokens, epochs, or hours on a machine that need not be present."""

import json
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from spanbert_jax.config import tokens_per_step
from spanbert_jax.errors import InputError
from spanbert_jax.folders import replace_file
from spanbert_jax.training.workdir import BUDGET_FILE

EXAMPLES = '"3e9 tokens", "2 epochs", "24h on h100:1" or "100 device-hours on v5e:4x4"'
PATTERN = re.compile(r"\s*([\d.]+(?:[eE]\+?\d+)?)\s*(tokens?|epochs?|h|hours?|device-hours?)(?:\s+on\s+(\S+))?\s*")


class Steps(NamedTuple):
    """The length of a run, and what it follows from."""

    steps: int
    reason: str


class Budget(NamedTuple):
    """A budget as it was given."""

    amount: float
    unit: str  # "token", "epoch", "h", "hour" or "device-hour"
    machine: str  # a topology of scripts/plan.py; "" for tokens and epochs


def parse(text: str) -> Budget:
    """Parses a budget such as those of EXAMPLES.

    Raises:
      InputError: it is not one.
    """
    match = PATTERN.fullmatch(text)
    if not match or float(match[1]) <= 0:
        raise InputError(f"--budget {text!r}: give {EXAMPLES}")
    budget = Budget(float(match[1]), match[2].removesuffix("s"), match[3] or "")
    if (budget.unit in ("token", "epoch")) == bool(budget.machine):
        needs = "is the same on every machine: leave out its name" if budget.machine else "needs a machine"
        raise InputError(f"--budget {text!r}: a budget of {budget.unit}s {needs}, as in {EXAMPLES}")
    return budget


def steps_of(budget: Budget, config, rows: Callable[[], int], plan: Callable[[str], tuple[float, int]]) -> Steps:
    """Returns the number of steps that a budget pays for.

    Args:
      budget: parsed.
      config: of the run.
      rows: returns the number of training rows, which an epoch reads once.
      plan: name of a topology -> seconds of a step there at the plan's bound, and number of devices.

    Raises:
      InputError: it pays for no step.
    """
    if budget.unit == "token":
        per_step = tokens_per_step(config)
        steps = Steps(int(budget.amount // per_step), f"{per_step:,} positions a step")
    elif budget.unit == "epoch":
        number = rows()
        steps = Steps(math.ceil(budget.amount * number / config.batch_size), f"{number:,} rows an epoch")
    else:
        seconds, devices = plan(budget.machine)
        hours = budget.amount / devices if budget.unit == "device-hour" else budget.amount
        reason = f"{1000 * seconds:.1f} ms a step on {budget.machine} at the plan's bound, which no run reaches quite"
        steps = Steps(int(hours * 3600 / seconds), reason)
    if steps.steps < 1:
        raise InputError(f"--budget: pays for no step ({steps.reason})")
    return steps


def planned_seconds(spec: str, overrides: list[str], machine: str) -> tuple[float, int]:
    """Returns the seconds of a step at the bound of scripts/plan.py, and the number of devices.

    The plan is made in another process, since it needs the compilers of another platform.

    Args:
      spec: what --config names.
      overrides: "a.b=value" each.
      machine: a topology.

    Raises:
      InputError: the plan cannot be made, or the step does not fit.
    """
    program = "from spanbert_jax import cli; from spanbert_jax.commands import plan; cli.run(plan.main)"
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "plan.json"
        flags = [f"--config={spec}", *(f"--config.{each}" for each in overrides), f"--topology={machine}"]
        command = [sys.executable, "-c", program, *flags, f"--json={figures}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip() or "no reason").splitlines()[-1].removeprefix("-c: ")
            raise InputError(f"--budget on {machine}: {last}")
        read = json.loads(figures.read_text(encoding="utf-8"))
    return read["step_seconds"], read["devices"]


def resolved_before(workdir: Path, text: str) -> Steps | None:
    """Returns the length that a budget gave to the run in a folder; None if it has none, or another budget."""
    file = workdir / BUDGET_FILE
    if not file.is_file():
        return None
    saved = json.loads(file.read_text(encoding="utf-8"))
    return Steps(saved["total_steps"], saved["reason"]) if saved["budget"] == text else None


def write(workdir: Path, text: str, steps: Steps) -> None:
    """Records the length that a budget gave to the run in a folder, which is made if there is none.

    Raises:
      InputError: it cannot be made.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"workdir {workdir} cannot be written: {error.strerror}") from None
    with replace_file(workdir / BUDGET_FILE, unique=False) as file:
        json.dump({"budget": text, "total_steps": steps.steps, "reason": steps.reason}, file, indent=2)

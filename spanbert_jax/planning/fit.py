"""--fit: mesh, microbatches and remat policy of a run, chosen by the search of scripts/plan.py for its own machine."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import jax

from spanbert_jax.config import with_changes
from spanbert_jax.data.batches import configured_tokenizer
from spanbert_jax.devices import cpu_device, device_of
from spanbert_jax.errors import InputError
from spanbert_jax.folders import replace_file
from spanbert_jax.planning.search import search
from spanbert_jax.planning.topologies import Topology
from spanbert_jax.training import sharding
from spanbert_jax.training.processes import agreed, is_first
from spanbert_jax.training.program import memory_of_device
from spanbert_jax.training.workdir import FIT_FILE

MOST = 12  # plans that are compiled

Changes = dict[str, int | str]  # of a config, by key


def fitted(config, workdir: Path, log: Callable[[str], None]):
    """Returns the config with the mesh, accumulation and remat policy of the fastest plan that fits this machine.

    They are chosen once for a kind and number of devices and kept in the workdir, since the bits of a run depend on
    them.

    Args:
      config: of the run.
      workdir: of the run, made if there is none.
      log: called with a line on each plan that is compiled, and on what is chosen.

    Raises:
      DoesNotFit: nothing fits.
      InputError: the figures of the devices are unknown, the config has phases or problems, or the folder cannot be
        written.
    """
    if config.phases:
        raise InputError("--fit: finds one plan, and the phases of a config need one each; give --config.phases=")
    machine = f"{len(jax.devices())} x {jax.devices()[0].device_kind}"
    chosen = chosen_before(workdir, machine)
    if chosen is None:
        found = changes_of(search(config, this_machine(), configured_tokenizer(config).vocab_size, MOST, log).config)
        with agreed():
            if is_first():
                write(workdir, machine, found)
        chosen = chosen_before(workdir, machine)
        assert chosen is not None
    log(f"--fit on {machine}: {' '.join(f'{key}={value}' for key, value in chosen.items())}")
    return with_changes(config, chosen)


def changes_of(config) -> Changes:
    """Returns what the search chooses of a config."""
    mesh: Changes = {f"mesh.{axis}": config.mesh[axis] for axis in sharding.AXES}
    return mesh | {"accumulation": config.accumulation, "model.remat": config.model.remat}


def this_machine() -> Topology:
    """Returns the devices of all processes, as if all of a node or slice were joined to all others of it.

    Raises:
      InputError: there are no figures of the devices.
    """
    devices = jax.devices()
    if devices[0].platform == "cpu":
        figures = cpu_device(len(devices))
    elif entry := device_of(devices[0]):
        figures = dataclasses.replace(entry, memory_bytes=memory_of_device() or entry.memory_bytes)
    else:
        raise InputError(
            f"--fit: spanbert_jax/devices.py has no figures of {devices[0].device_kind}; give accumulation and "
            "model.remat yourself"
        )
    groups = {getattr(device, "slice_index", device.process_index) for device in devices}
    return Topology("this machine", figures, tuple(devices), len(groups), torus=None, wraps=None)


def chosen_before(workdir: Path, machine: str) -> Changes | None:
    """Returns what was chosen for the run in a folder on a machine like this one; None if nothing was."""
    file = workdir / FIT_FILE
    saved = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return saved["changes"] if saved.get("machine") == machine else None


def write(workdir: Path, machine: str, changes: Changes) -> None:
    """Records what was chosen for the run in a folder, which is made if there is none.

    Raises:
      InputError: it cannot be made.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"workdir {workdir} cannot be written: {error.strerror}") from None
    with replace_file(workdir / FIT_FILE, unique=False) as file:
        json.dump({"machine": machine, "changes": changes}, file, indent=2)

"""Asynchronous and atomic checkpoints of a run by Orbax. The only file that imports orbax.

A checkpoint is a train state and a JSON record of the run that it belongs to. One rename makes it visible once it is
complete, so a run that is killed at any time can resume from its newest complete checkpoint. Reading a checkpoint never
runs code from it.
"""

import contextlib
import errno
import functools
import logging
import operator
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from spanbert_jax.errors import InputError
from spanbert_jax.model.layout import param_path
from spanbert_jax.optimizers.averages import AVERAGE


def _report_errors_once() -> None:
    """Silences what threads print of a failed save: orbax also raises the first error, to the caller."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)

    before = sys.unraisablehook

    def hook(unraisable):
        if str(unraisable.exc_value) != "Event loop is closed":  # TensorStore's, of each array still to be written
            before(unraisable)

    if before.__module__ != __name__:
        sys.unraisablehook = hook


class Checkpoints:
    """The checkpoints of one folder."""

    def __init__(self, folder: Path, keep_last: int | None = None, keep_every: int = 0, read_only: bool = False):
        """Opens the folder.

        Args:
          folder: of the checkpoints.
          keep_last: number of newest checkpoints to keep; None: all.
          keep_every: also keeps those whose step is a multiple of it; 0: none.
          read_only: changes nothing, not even incomplete checkpoints: another process may be writing them.
        """
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep_last,
            keep_period=keep_every or None,
            step_prefix="step",
            cleanup_tmp_directories=not read_only,
            create=not read_only,
            enable_async_checkpointing=True,
        )
        self._folder = folder
        _report_errors_once()
        handlers = {"state": ocp.StandardCheckpointHandler(), "record": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options, item_handlers=handlers)

    def latest(self) -> int | None:
        """Returns the step of the newest complete checkpoint, None if there is none."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """Returns the steps of all complete checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, record: dict) -> None:
        """Copies the state off the devices and returns; it is written in the background.

        Does nothing if there is a checkpoint of this step.

        Raises:
          OSError: the first process sees that the disk has less space than the state needs.
        """
        if step in self._manager.all_steps():
            return
        needed, free = sum(leaf.nbytes for leaf in jax.tree.leaves(state)), shutil.disk_usage(self._folder).free
        if needed > free and jax.process_index() == 0:
            self.wait()  # the checkpoint before may still be in writing
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        items = {"state": ocp.args.StandardSave(state), "record": ocp.args.JsonSave(record)}
        self._manager.save(step, args=ocp.args.Composite(**items))

    def record(self, step: int) -> dict:
        """Returns the record in the checkpoint of a step.

        Raises:
          InputError: the checkpoint is damaged.
        """
        with self._reporting_damage(step):
            return self._manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore()))["record"]

    def check(self, step: int, like: Any) -> None:
        """Checks that restore(step, like) will find the shapes that it needs, without reading arrays.

        Raises:
          InputError: the checkpoint is of another model or damaged.
        """
        with self._reporting_damage(step):
            self._check_shapes(step, like)

    def restore(self, step: int, like: Any) -> Any:
        """Returns the state of a step, laid out as `like`.

        Args:
          step: of the checkpoint.
          like: a pytree of jax.ShapeDtypeStruct with shardings, of any mesh.

        Raises:
          InputError: the checkpoint is of another model or damaged.
        """
        with self._reporting_damage(step):
            self._check_shapes(step, like)
            return self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like)))["state"]

    def read_params(self, step: int) -> Any:
        """Returns the parameters of a step, their average if the run made one, as numpy arrays in nested dicts.

        Raises:
          InputError: the checkpoint is damaged.
        """
        with self._reporting_damage(step):
            tree = self._manager.item_metadata(step)["state"].tree
        opt_state = tree.get("opt_state")
        with_average = isinstance(opt_state, dict) and AVERAGE in opt_state
        return self.read(step, ("opt_state", AVERAGE, "params") if with_average else ("params",))

    def read(self, step: int, part: tuple[str, ...] = ()) -> Any:
        """Returns the state of a step as numpy arrays in nested dicts.

        Args:
          step: of the checkpoint.
          part: path of fields to a part of the state, such as ("params",), to read only that.

        Raises:
          InputError: the checkpoint is damaged.
        """
        with self._reporting_damage(step), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            tree = functools.reduce(operator.getitem, part, self._manager.item_metadata(step)["state"].tree)
            for name in reversed(part):
                tree = {name: tree}
            like = jax.tree.map(lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray), tree)
            state = checkpointer.restore(
                self._folder.absolute() / f"step_{step}" / "state",
                args=ocp.args.PyTreeRestore(item=tree, restore_args=like, partial_restore=bool(part)),
            )
        return functools.reduce(operator.getitem, part, state)

    @contextlib.contextmanager
    def _reporting_damage(self, step: int) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # for missing or damaged files orbax raises many types, even a bare Exception
            reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
            raise InputError(
                f"checkpoint {self._folder}/step_{step} is damaged ({reason}); "
                "remove that folder to use the checkpoint before it"
            ) from error

    def _check_shapes(self, step: int, like: Any) -> None:
        leaves = jax.tree_util.tree_leaves_with_path(self._manager.item_metadata(step)["state"].tree)
        saved = {param_path(path): tuple(leaf.shape) for path, leaf in leaves if hasattr(leaf, "shape")}
        wanted = {
            param_path(path): tuple(leaf.shape)
            for path, leaf in jax.tree_util.tree_leaves_with_path(like)
            if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        }
        wrong = [name for name in wanted if saved.get(name) != wanted[name]]
        if wrong:
            name = wrong[0]
            more = f"; {len(wrong) - 1} more differ" if len(wrong) > 1 else ""
            raise InputError(
                f"checkpoint {self._folder}/step_{step} is of a different model: "
                f"{name} is {saved.get(name, 'absent')} there, {wanted[name]} in this config{more}"
            )

    def wait(self) -> None:
        """Waits until all saved states are on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then closes the folder."""
        self._manager.close()

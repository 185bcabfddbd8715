"""Checkpoints of a run: Orbax, asynchronous, atomic. The only file that imports orbax.

A checkpoint is a train state and a JSON record of what it is a state of. It becomes visible by one rename once it is whole, so a run killed
at any instant finds its newest whole one. Reading one never runs code from it.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from spanbert_jax.errors import InputError
from spanbert_jax.training.sharding import param_path


class Checkpoints:
    """The checkpoints of one folder."""

    def __init__(self, folder: Path, keep_last: int | None = None, keep_every: int = 0, read_only: bool = False):
        """keep_last newest ones are kept (None: all), and besides them those whose step is a multiple of keep_every, if that is not 0.

        read_only: touch nothing, not even what looks like the remains of a killed run: it may be a run that is saving.
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
        handlers = {"state": ocp.StandardCheckpointHandler(), "record": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options, item_handlers=handlers)

    def latest(self) -> int | None:
        """Step of the newest whole checkpoint."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """Steps of all whole checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, record: dict) -> None:
        """Copies the state off the devices and returns; writing goes on behind. A step already saved is left as it is."""
        if step in self._manager.all_steps():
            return
        self._manager.save(
            step, args=ocp.args.Composite(state=ocp.args.StandardSave(state), record=ocp.args.JsonSave(record))
        )

    def record(self, step: int) -> dict:
        """What was recorded beside the state of that step. Raises InputError when it is damaged, as do the other readers."""
        with self._telling_damage(step):
            return self._manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore()))["record"]

    def check(self, step: int, like: Any) -> None:
        """Raises InputError unless restore(step, like) would find the shapes that it asks for; reads no arrays."""
        with self._telling_damage(step):
            self._check_shapes(step, like)

    def restore(self, step: int, like: Any) -> Any:
        """The state of that step, laid out as `like`: a pytree of jax.ShapeDtypeStruct with shardings, of any mesh.

        Raises:
          InputError: the checkpoint is of another model or damaged.
        """
        with self._telling_damage(step):
            self._check_shapes(step, like)
            return self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like)))["state"]

    def read(self, step: int, part: str | None = None) -> Any:
        """The state of that step as numpy arrays in nested dicts, of whatever model; with `part` only that field of it, e.g. "params"."""
        with self._telling_damage(step), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            tree = self._manager.item_metadata(step)["state"].tree
            tree = tree if part is None else {part: tree[part]}
            like = jax.tree.map(lambda leaf: ocp.RestoreArgs(restore_type=np.ndarray), tree)
            state = checkpointer.restore(
                self._folder.absolute() / f"step_{step}" / "state",
                args=ocp.args.PyTreeRestore(item=tree, restore_args=like, partial_restore=part is not None),
            )
        return state if part is None else state[part]

    @contextlib.contextmanager
    def _telling_damage(self, step: int) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except (
            Exception
        ) as error:  # of missing, cut or changed files orbax makes errors of many types, a bare Exception among them
            said = str(error).strip().partition("\n")[0][:200]
            raise InputError(
                f"checkpoint {self._folder}/step_{step} is damaged ({type(error).__name__}: {said}); remove that folder to use "
                "the checkpoint before it"
            ) from error

    def _check_shapes(self, step: int, like: Any) -> None:
        saved = jax.tree_util.tree_leaves_with_path(self._manager.item_metadata(step)["state"].tree)
        saved = {param_path(path): tuple(leaf.shape) for path, leaf in saved if hasattr(leaf, "shape")}
        wanted = {
            param_path(path): tuple(leaf.shape)
            for path, leaf in jax.tree_util.tree_leaves_with_path(like)
            if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        }
        wrong = [name for name in wanted if saved.get(name) != wanted[name]]
        if wrong:
            name = wrong[0]
            raise InputError(
                f"checkpoint {self._folder}/step_{step} is of a different model: {name} is {saved.get(name, 'absent')} there, "
                f"{wanted[name]} in this config" + (f"; {len(wrong) - 1} more differ" if len(wrong) > 1 else "")
            )

    def wait(self) -> None:
        """Until all that was saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then lets go of the folder."""
        self._manager.close()

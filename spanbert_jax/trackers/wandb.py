"""Weights & Biases: its service, a server of one's own, or files in the workdir (offline) for `wandb sync`."""

import os
from collections.abc import Mapping
from typing import Any

from spanbert_jax.trackers.tracker import FAILED, TrackedRun, Tracker


class WandB(Tracker):
    """A run of Weights & Biases. Of tracking.trackers, "wandb:offline" writes files, "wandb:http://..." is a server."""

    package = "wandb"

    def __init__(self, run: TrackedRun):
        import wandb

        server: dict[str, Any] = {"base_url": run.where} if "://" in run.where else {}
        online = (server or not run.where) and os.environ.get("WANDB_MODE", "online") == "online"
        mode: Any = None if server or not run.where else run.where
        # W&B would ask for a key on the terminal.
        if online and not wandb.login(host=run.where or None, prompt=False, verify=False):
            raise PermissionError("not logged in; run `wandb login`, or give wandb:offline")
        self._run = wandb.init(
            project=run.project,
            id=run.id,
            name=run.name,
            group=run.group,
            config=dict(run.settings),
            allow_val_change=True,  # of execution options, where a run goes on
            dir=str(run.workdir),
            mode=mode,
            resume="allow",
            reinit="create_new",  # other runs of this process stay what they are
            settings=wandb.Settings(silent=True, console="off", **server),
        )

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Reports metrics of a step; those of a step that the run had before are left out by the service."""
        self._run.log(dict(metrics), step=step)

    def close(self, how: str) -> None:
        """Sends what is left."""
        self._run.finish(exit_code=int(how == FAILED))

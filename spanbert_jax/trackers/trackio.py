"""Trackio: SQLite on this machine, in the folder TRACKIO_DIR, or a Space of Hugging Face, or a server of one's own."""

from collections.abc import Mapping
from typing import Any

from spanbert_jax.trackers.tracker import TrackedRun, Tracker


class Trackio(Tracker):
    """A run of Trackio. Of tracking.trackers, "trackio:USER/SPACE" or "trackio:http://..." say where it is sent."""

    package = "trackio"

    def __init__(self, run: TrackedRun):
        import trackio

        address: dict[str, Any] = {"server_url" if "://" in run.where else "space_id": run.where} if run.where else {}
        self._run = trackio.init(
            project=run.project,
            name=run.name,  # by which Trackio finds a run that goes on
            group=run.group,
            config=dict(run.settings),
            resume="allow",
            embed=False,
            **address,
        )

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Reports metrics of a step."""
        self._run.log(dict(metrics), step=step)

    def close(self, how: str) -> None:
        """Sends what is left."""
        self._run.finish()

"""MLflow: a server, or a database or folder, by its tracking URI."""

import re
import time
from collections.abc import Mapping
from typing import Any

from spanbert_jax.trackers.tracker import FAILED, FINISHED, STOPPED, TrackedRun, Tracker

ID_TAG = "spanbert_jax.run"  # by which a run that goes on is found
STATUS = {FINISHED: "FINISHED", STOPPED: "KILLED", FAILED: "FAILED"}
MOST_PARAMS = 100  # of one call
NOT_IN_NAMES = re.compile(r"[^\w\-. :/]|(?<=/)/+|^[/.]+|(?<=/)\.+")  # MLflow takes names for paths


class MLflow(Tracker):
    """A run of MLflow. Of tracking.trackers, "mlflow:URI" is the tracking URI, as in "mlflow:sqlite:///runs/mlflow.db".

    The project is an experiment of MLflow.
    """

    package = "mlflow"

    def __init__(self, run: TrackedRun):
        import mlflow

        self._entities = mlflow.entities
        self._client: Any = mlflow.MlflowClient(tracking_uri=run.where or None)
        experiment = self._experiment(run.project)
        found = self._client.search_runs([experiment], f"tags.`{ID_TAG}` = '{run.id}'", max_results=1)
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
        else:
            tags = {ID_TAG: run.id, "group": run.group, "workdir": str(run.workdir)}
            self._id = self._client.create_run(experiment, run_name=run.name, tags=tags).info.run_id
        self._write_settings(run.settings, found[0].data.params if found else {})

    def _experiment(self, name: str) -> str:
        """Returns the id of an experiment, which another process may be making too."""
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return self._client.create_experiment(name)
            except Exception:
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return found.experiment_id

    def _write_settings(self, settings: Mapping[str, Any], before: Mapping[str, str]) -> None:
        """Writes parameters, which never change; what has another value now becomes a tag beside them."""
        new = [self._entities.Param(key, str(value)) for key, value in settings.items() if key not in before]
        for first in range(0, len(new), MOST_PARAMS):
            self._client.log_batch(self._id, params=new[first : first + MOST_PARAMS])
        for key, value in settings.items():
            if before.get(key, str(value)) != str(value):
                self._client.set_tag(self._id, f"now.{key}", str(value))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Reports metrics of a step; characters that MLflow does not allow in names become underscores."""
        now = int(time.time() * 1000)
        values = [
            self._entities.Metric(NOT_IN_NAMES.sub("_", name), value, now, step) for name, value in metrics.items()
        ]
        self._client.log_batch(self._id, metrics=values)

    def close(self, how: str) -> None:
        """Ends the run."""
        self._client.set_terminated(self._id, STATUS[how])

"""Registry of trackers: services that runs report to, beside metrics.jsonl and TensorBoard."""

from spanbert_jax.trackers.mlflow import MLflow
from spanbert_jax.trackers.tracker import Tracker
from spanbert_jax.trackers.trackio import Trackio
from spanbert_jax.trackers.wandb import WandB

# By the name in tracking.trackers. The packages themselves are imported when a tracker starts.
TRACKERS: dict[str, type[Tracker]] = {"trackio": Trackio, "wandb": WandB, "mlflow": MLflow}

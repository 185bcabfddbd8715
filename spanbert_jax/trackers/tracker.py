"""What a tracker is, and what it gets to know of a run."""

import abc
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"  # how a run may end; a stopped one can go on


@dataclasses.dataclass(frozen=True)
class TrackedRun:
    """A run as its trackers see it."""

    id: str  # the same whenever the run goes on, and of no other run
    name: str  # for people; contains the id
    group: str  # what runs of one experiment have in common
    project: str
    settings: Mapping[str, Any]  # config and provenance, flat, by "section.name"
    workdir: Path
    where: str = ""  # what follows the colon in tracking.trackers; "": the package's own default


class Tracker(abc.ABC):
    """A run at a service. A run that goes on has the same id, and appends to what the service has of it.

    Methods may take their time and may raise anything: they are called in a thread of their own, see Tracking.
    """

    package: ClassVar[str]  # to be installed, as the extra of the tracker's name

    @abc.abstractmethod
    def __init__(self, run: TrackedRun):
        """Begins the run at the service, or goes on with it."""

    @abc.abstractmethod
    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Reports metrics of a step."""

    @abc.abstractmethod
    def close(self, how: str) -> None:
        """Sends what is left; `how` the run ended is FINISHED, STOPPED or FAILED."""

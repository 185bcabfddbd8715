"""Whether a metric differs between two arms by more than between the seeds of one."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from spanbert_jax.experiments.report.records import Arm


@dataclasses.dataclass(frozen=True)
class Summary:
    """A metric over the seeds of an arm."""

    mean: float
    deviation: float  # standard deviation of the sample; nan for one seed
    count: int

    def __str__(self):
        return f"{self.mean:.4g}" + (f" ± {self.deviation:.2g}" if self.count > 1 else "")


@dataclasses.dataclass(frozen=True)
class Difference:
    """The difference of a metric between two arms."""

    metric: str
    first: str
    second: str
    difference: float  # second minus first
    spread: float  # standard deviation between seeds, pooled over the two arms; nan if neither has two seeds
    p: float  # of a t-test, paired over the seeds that both have; nan if there are fewer than two
    paired: int  # number of those seeds; 0: Welch's test, for unequal variances

    @property
    def verdict(self) -> str:
        """What can be said of it."""
        if math.isnan(self.spread):
            return "one seed each: the spread is unknown"
        size = "exceeds" if abs(self.difference) > self.spread else "is within"
        return f"{size} the spread between seeds"


def metrics_of(arms: Sequence[Arm]) -> list[str]:
    """Returns the names of the metrics that any run has, in their order."""
    return list(dict.fromkeys(name for arm in arms for run in arm.runs for name in run.metrics))


def values_of(arm: Arm, metric: str) -> dict[int, float]:
    """Returns {seed: value} of the runs that have the metric."""
    return {run.seed: run.metrics[metric] for run in arm.runs if metric in run.metrics}


def summarised(values: Sequence[float]) -> Summary | None:
    """Returns mean and standard deviation of values; None if there are none."""
    if not values:
        return None
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return Summary(float(np.mean(values)), deviation, len(values))


def difference(first: Arm, second: Arm, metric: str) -> Difference | None:
    """Returns how a metric differs between two arms; None if one of them lacks it.

    The test is a t-test over seeds: paired if at least two seeds are common, since runs of one seed share their data
    order and masks; else Welch's.
    """
    a, b = values_of(first, metric), values_of(second, metric)
    if not a or not b:
        return None
    common = sorted(a.keys() & b.keys())
    one, other = list(a.values()), list(b.values())
    paired = len(common) if len(common) > 1 else 0
    p = math.nan
    with np.errstate(all="ignore"):
        if paired:
            gaps = np.array([b[seed] - a[seed] for seed in common])
            p = float(stats.ttest_1samp(gaps, 0).pvalue) if gaps.any() else 1.0
        elif len(one) > 1 and len(other) > 1:
            p = float(stats.ttest_ind(one, other, equal_var=False).pvalue)
    freedom = len(one) + len(other) - 2
    squares = sum(float(np.sum((np.array(values) - np.mean(values)) ** 2)) for values in (one, other))
    spread = math.sqrt(squares / freedom) if freedom else math.nan
    return Difference(metric, first.name, second.name, float(np.mean(other) - np.mean(one)), spread, p, paired)


def lower_is_better(metric: str) -> bool:
    """Returns whether small values of a metric are good."""
    return metric.rpartition("/")[2].endswith(("loss", "perplexity", "error"))

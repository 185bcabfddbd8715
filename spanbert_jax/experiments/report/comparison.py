"""Whether a metric differs between two arms by more than between the seeds, and folds, of one."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from spanbert_jax.experiments.report.records import Arm


@dataclasses.dataclass(frozen=True)
class Summary:
    """A metric over the seeds and folds of an arm."""

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
    p_examples: float = math.nan  # of a paired t-test over examples, each a mean over seeds; nan if they are unknown

    @property
    def verdict(self) -> str:
        """What can be said of it."""
        if math.isnan(self.spread):
            return "one seed each: the spread is unknown"
        size = "exceeds" if abs(self.difference) > self.spread else "is within"
        return f"{size} the spread between seeds"


def metrics_of(arms: Sequence[Arm]) -> list[str]:
    """Returns the names of the metrics that any run has, in their order, without those of groups of examples."""
    return [name for name in all_metrics_of(arms) if name.count("/") < 2]


def all_metrics_of(arms: Sequence[Arm]) -> list[str]:
    """Returns the names of all metrics that any run has, in their order."""
    return list(dict.fromkeys(name for arm in arms for run in arm.runs for name in run.metrics))


def values_of(arm: Arm, metric: str) -> dict[tuple[int, int], float]:
    """Returns {(seed, fold): value} of the runs that have the metric."""
    return {run.repetition: run.metrics[metric] for run in arm.runs if metric in run.metrics}


def summarised(values: Sequence[float]) -> Summary | None:
    """Returns mean and standard deviation of values; None if there are none."""
    if not values:
        return None
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return Summary(float(np.mean(values)), deviation, len(values))


def difference(first: Arm, second: Arm, metric: str) -> Difference | None:
    """Returns how a metric differs between two arms; None if one of them lacks it.

    The test is a t-test over seeds and folds: paired if at least two are common, since runs of one seed share their
    data order and masks, and those of one fold their examples; else Welch's.
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
            gaps = np.array([b[each] - a[each] for each in common])
            p = float(stats.ttest_1samp(gaps, 0).pvalue) if gaps.any() else 1.0
        elif len(one) > 1 and len(other) > 1:
            p = float(stats.ttest_ind(one, other, equal_var=False).pvalue)
    freedom = len(one) + len(other) - 2
    squares = sum(float(np.sum((np.array(values) - np.mean(values)) ** 2)) for values in (one, other))
    spread = math.sqrt(squares / freedom) if freedom else math.nan
    of_examples = p_of_examples(first, second, metric)
    gap = float(np.mean(other) - np.mean(one))
    return Difference(metric, first.name, second.name, gap, spread, p, paired, of_examples)


def p_of_examples(first: Arm, second: Arm, metric: str) -> float:
    """Returns p of a t-test over the examples that both arms were evaluated on, each a mean over the arm's seeds.

    It says whether the models at hand differ on such examples, not whether other seeds would. nan without examples.
    """
    of_arms = []
    for arm in (first, second):
        found = [run.examples[metric] for run in arm.runs if metric in run.examples]
        of_arms.append(np.mean(found, axis=0) if found and len({len(each) for each in found}) == 1 else None)
    one, other = of_arms
    if one is None or other is None or len(one) != len(other) or len(one) < 2:
        return math.nan
    gaps = other - one
    return float(stats.ttest_1samp(gaps, 0).pvalue) if gaps.any() else 1.0


def lower_is_better(metric: str) -> bool:
    """Returns whether small values of a metric are good."""
    return metric.rpartition("/")[2].endswith(("loss", "perplexity", "error"))

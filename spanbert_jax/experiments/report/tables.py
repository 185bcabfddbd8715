"""The tables of a report, and their forms as Markdown and CSV."""

import csv
import dataclasses
import io
import math
from collections.abc import Sequence

from spanbert_jax import provenance
from spanbert_jax.experiments.report.comparison import (
    all_metrics_of,
    difference,
    lower_is_better,
    metrics_of,
    summarised,
    values_of,
)
from spanbert_jax.experiments.report.records import SPEEDS, Arm

MOST_DIFFERENCES = 60  # rows of the table of differences


@dataclasses.dataclass(frozen=True)
class Table:
    """A table; the first column names the rows."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    best: frozenset[tuple[int, int]] = frozenset()  # (row, column) of cells to mark

    def markdown(self) -> str:
        """Returns the table as Markdown, under a heading."""
        lines = [f"## {self.title}", "", _line(self.columns), _line(["---"] * len(self.columns))]
        for number, row in enumerate(self.rows):
            cells = [_escaped(cell) for cell in row]
            lines.append(_line([f"**{c}**" if (number, i) in self.best else c for i, c in enumerate(cells)]))
        return "\n".join([*lines, "", *([self.note, ""] if self.note else [])])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(cell: str) -> str:
    """Returns a text that Markdown shows as it is."""
    for mark in "\\`*_{}[]<>|":
        cell = cell.replace(mark, f"\\{mark}")
    return cell.replace("\n", " ")


def metrics_table(arms: Sequence[Arm]) -> Table:
    """Returns the metrics of the last evaluation of each arm, means and standard deviations over its seeds."""
    metrics = metrics_of(arms)
    summaries = [[summarised(list(values_of(arm, metric).values())) for metric in metrics] for arm in arms]
    best = set()
    for column, metric in enumerate(metrics):
        sign = -1 if lower_is_better(metric) else 1
        cells = [row[column] for row in summaries]
        means = [sign * cell.mean if cell else -math.inf for cell in cells]
        if len(arms) > 1 and max(means) > -math.inf:
            best.add((means.index(max(means)), column + 3))
    rows = [
        [arm.name, str(len(arm.runs)), _steps(arm), *(str(cell) if cell else "" for cell in row)]
        for arm, row in zip(arms, summaries)
    ]
    note = "Means over the runs of an arm, which differ in their seed alone, and their standard deviation."
    return Table("Metrics", ["arm", "runs", "steps", *metrics], rows, note, frozenset(best))


def groups_table(arms: Sequence[Arm]) -> Table | None:
    """Returns the metrics of groups of examples, such as phenomena, a line each; None if there are none."""
    rows = []
    for metric in (name for name in all_metrics_of(arms) if name.count("/") > 1):
        cells = [summarised(list(values_of(arm, metric).values())) for arm in arms]
        rows.append([metric, *(str(cell) if cell else "" for cell in cells)])
    return Table("Groups of examples", ["metric", *(arm.name for arm in arms)], rows) if rows else None


def _steps(arm: Arm) -> str:
    steps = sorted({run.step for run in arm.runs})
    return f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"


def speed_table(arms: Sequence[Arm]) -> Table:
    """Returns tokens per second and MFU of each arm."""
    rows = []
    for arm in arms:
        speeds = [run.speed for run in arm.runs]
        cells = [
            summarised([speed[name] for speed in speeds if name in speed]) for name in ("tokens_per_second", "mfu")
        ]
        rows.append([arm.name, *(str(cell) if cell else "" for cell in cells)])
    note = "Means over a run without evaluation and saving; no MFU where the peak of the device is not known."
    return Table("Speed", ["arm", "tokens/s", "MFU"], rows, note)


def settings_table(arms: Sequence[Arm]) -> Table:
    """Returns the knobs in which the arms differ."""
    keys = list(arms[0].settings) if arms else []
    rows = [[key, *(repr(arm.settings[key]) for arm in arms)] for key in keys]
    note = "" if keys else "All runs have the same config, but for seeds and execution options."
    return Table("What differs", ["key", *(arm.name for arm in arms)], rows, note)


def provenance_table(arms: Sequence[Arm]) -> Table | None:
    """Returns what made the runs: versions, commits, data; None if it was not recorded."""
    found: dict[str, dict[str, int]] = {}  # by key: runs by value
    for run in (run for arm in arms for run in arm.runs):
        for key, value in provenance.flat(run.provenance):
            shown = str(value)[:12] if key.startswith(("data.", "git.")) else str(value)
            counts = found.setdefault(key, {})
            counts[shown] = counts.get(shown, 0) + 1
    if not found:
        return None
    rows = [
        [
            key,
            ", ".join(counts) if len(counts) == 1 else ", ".join(f"{value} ({n} runs)" for value, n in counts.items()),
        ]
        for key, counts in found.items()
    ]
    return Table("Made with", ["", "of all runs that recorded it"], rows)


def differences_table(arms: Sequence[Arm]) -> Table | None:
    """Returns the differences to the first arm beside the spread between seeds; None if there is one arm."""
    if len(arms) < 2:
        return None
    found = [difference(arms[0], arm, metric) for arm in arms[1:] for metric in metrics_of(arms)]
    shown = [each for each in found if each]
    rows = [
        [
            f"{each.second}: {each.metric}",
            f"{each.difference:+.4g}",
            "" if math.isnan(each.spread) else f"{each.spread:.2g}",
            "" if math.isnan(each.p) else f"{each.p:.2g}" + (f" ({each.paired} pairs)" if each.paired else ""),
            "" if math.isnan(each.p_examples) else f"{each.p_examples:.2g}",
            each.verdict,
        ]
        for each in shown[:MOST_DIFFERENCES]
    ]
    note = (
        "Spread: standard deviation between seeds, pooled over both arms. p: t-test, paired by seed where seeds are "
        "common, else Welch's. p of examples: t-test paired by example, of the means over seeds; it is about these "
        "models, not about other seeds. No correction is made for the number of comparisons."
    )
    if len(shown) > len(rows):
        note += f" {len(shown) - len(rows)} more are left out."
    columns = ["arm and metric", f"difference to {arms[0].name}", "spread", "p", "p of examples", ""]
    return Table("Differences", columns, rows, note)


def runs_csv(arms: Sequence[Arm]) -> str:
    """Returns a line of CSV for each run: arm, folder, seed, fold, step, the knobs that differ, and its metrics."""
    keys, metrics = list(arms[0].settings) if arms else [], all_metrics_of(arms)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["arm", "workdir", "seed", "fold", "step", *keys, *metrics, *SPEEDS])
    for arm in arms:
        for run in arm.runs:
            values = [run.metrics.get(metric, "") for metric in metrics]
            speed = [run.speed.get(name, "") for name in SPEEDS]
            writer.writerow([arm.name, run.workdir, *run.repetition, run.step, *arm.settings.values(), *values, *speed])
    return text.getvalue()

"""Loss curves of pretraining runs as one picture, with one panel per objective and one colour per run."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spanbert_jax.errors import InputError
from spanbert_jax.objectives import OBJECTIVES
from spanbert_jax.training.metrics import METRICS_FILE, read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = {objective.name: objective.title for objective in OBJECTIVES.values()}
SMOOTHING = 0.025  # standard deviation of the smoothing window, as a fraction of the run
COLOURS = ("#1f5fa8", "#d1622b", "#2a8c57", "#8a4fa3", "#b03a48", "#6b5b1f")
GREY = "#444444"

Series = tuple[np.ndarray, np.ndarray]  # steps [n], values [n]


@dataclasses.dataclass(frozen=True)
class Curves:
    """The metrics of one run that are plotted. Losses are in nats per token."""

    name: str
    training: dict[str, Series]  # by objective
    held_out: dict[str, Series]  # by objective
    entropy: float | None  # unigram entropy of the held-out text, in nats per token
    tokens_per_step: float | None  # without padding


def read_curves(workdir: Path, name: str) -> Curves:
    """Reads the metrics of a run.

    Raises:
      InputError: the run has no metrics.
    """
    lines = read_metrics(workdir)
    if not lines:
        raise InputError(f"{workdir} has no {METRICS_FILE} with a complete line: give the folder of a run with metrics")

    def series(key: str) -> Series | None:
        points = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
        if not points:
            return None
        steps, values = np.array(points, np.float64).T
        return steps, values

    named = [key.removesuffix("_loss") for line in lines for key in line if key.endswith("_loss") and "/" not in key]

    def by_objective(prefix: str) -> dict[str, Series]:
        losses = {objective: series(f"{prefix}{objective}_loss") for objective in dict.fromkeys([*PANELS, *named])}
        return {objective: points for objective, points in losses.items() if points}

    entropy = series("eval/unigram_entropy")
    token_rate, step_rate = series("tokens_per_second"), series("steps_per_second")
    return Curves(
        name=name,
        training=by_objective(""),
        held_out=by_objective("eval/"),
        entropy=float(entropy[1][-1]) if entropy else None,
        tokens_per_step=float(np.mean(token_rate[1] / step_rate[1])) if token_rate and step_rate else None,
    )


def smoothed(values: np.ndarray) -> np.ndarray:
    """Returns Gaussian-weighted means of values [n]; the standard deviation is SMOOTHING * n, but at least 1."""
    count = len(values)
    deviation = max(1.0, SMOOTHING * count)
    reach = min(int(3 * deviation), count - 1)
    window = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    sums = np.convolve(values, window)[reach : reach + count]
    weights = np.convolve(np.ones(count), window)[reach : reach + count]  # smaller towards the ends
    return sums / weights


def plot_curves(workdirs: list[Path], output: Path) -> None:
    """Plots the losses of runs into the file `output`, whose suffix (.png, .svg, .pdf) selects the format.

    Raises:
      InputError: matplotlib is not installed, a run has no metrics, or the file cannot be written.
    """
    names = [workdir.resolve().name for workdir in workdirs]
    labels = [name if names.count(name) == 1 else str(workdir) for workdir, name in zip(workdirs, names)]
    figure = draw_curves(list(zip(workdirs, labels)))
    try:
        figure.savefig(output, dpi=150)
    except (OSError, ValueError) as error:  # the folder does not exist; the format is unknown
        raise InputError(f"cannot write {output}: {error}") from None


def draw_curves(labelled: Sequence[tuple[Path, str]]) -> "Figure":
    """Draws the losses of runs, each given by its folder and its label.

    Raises:
      InputError: matplotlib is not installed, or a run has no metrics.
    """
    try:
        from matplotlib.figure import Figure  # not pyplot, which opens displays and keeps global state
    except ImportError:
        raise InputError("plotting needs matplotlib: pip install matplotlib") from None
    runs = [read_curves(workdir, label) for workdir, label in labelled]
    panels = list(dict.fromkeys(objective for run in runs for objective in run.training))
    panels.sort(key=lambda objective: list(PANELS).index(objective) if objective in PANELS else len(PANELS))
    if not panels:
        raise InputError(f"{', '.join(str(workdir) for workdir, _ in labelled)}: no training loss is logged yet")
    figure = Figure(figsize=(1.5 + 4.5 * len(panels), 4.2), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, objective in zip(axes, panels):
        draw_panel(axis, objective, runs)
    axes[0].set_ylabel("loss (nats per token)" if panels[0] in PANELS else "loss")
    entries = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels())}
    axes[-1].legend(entries.values(), entries.keys(), frameon=False, loc="upper right", fontsize=9)
    return figure


def draw_panel(axis: "Axes", objective: str, runs: list[Curves]) -> None:
    """Plots one objective of all runs.

    Training losses are faint lines with the smoothed ones over them, held-out losses are points, and the unigram
    entropy is a dashed line.
    """
    single = len(runs) == 1
    for number, run in enumerate(runs):
        colour = COLOURS[number % len(COLOURS)]
        if objective in run.training:
            steps, losses = run.training[objective]
            axis.plot(steps, losses, color=colour, alpha=0.25, linewidth=0.8)
            axis.plot(steps, smoothed(losses), color=colour, linewidth=1.8, label="training" if single else run.name)
        if objective in run.held_out:
            axis.plot(*run.held_out[objective], "o", color=colour, markeredgecolor="white", markersize=6)
    if any(objective in run.held_out for run in runs):
        axis.plot([], [], "o", color=COLOURS[0] if single else GREY, label="held-out")
    for entropy in {round(run.entropy, 2) for run in runs if run.entropy is not None}:
        axis.axhline(entropy, color=GREY, linestyle="--", linewidth=1)
        axis.annotate(
            f"unigram entropy {entropy:.2f}",
            (0.99, entropy),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="right",
            fontsize=8,
            color=GREY,
            bbox=dict(boxstyle="square,pad=0.1", facecolor="white", edgecolor="none", alpha=0.8),
        )
    axis.set_title(PANELS.get(objective, objective), fontsize=11)  # of a task: its name
    axis.set_xlabel("steps")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.25)
    tokens = [run.tokens_per_step for run in runs if run.tokens_per_step]
    if tokens and max(tokens) < 1.02 * min(tokens):  # otherwise the runs have no common token axis
        add_token_axis(axis, float(np.mean(tokens)))


def add_token_axis(axis: "Axes", tokens_per_step: float) -> None:
    """Adds an axis at the top that shows the tokens read."""
    millions = tokens_per_step / 1e6
    conversions = (lambda steps: np.multiply(steps, millions), lambda read: np.divide(read, millions))
    top = axis.secondary_xaxis("top", functions=conversions)
    top.set_xlabel("million tokens read", fontsize=9)
    top.tick_params(labelsize=8)
    top.spines["top"].set_visible(False)

"""Loss curves of pretraining runs as one picture: a panel an objective, a colour a run."""

import dataclasses
from pathlib import Path

import numpy as np

from spanbert_jax.errors import InputError
from spanbert_jax.training.metrics import METRICS_FILE, read_metrics

PANELS = {"mlm": "masked language model", "sbo": "span boundary objective", "nsp": "next sentence prediction"}
SMOOTHING = 0.025  # width of the smoothing, as a share of the run
COLOURS = ("#1f5fa8", "#d1622b", "#2a8c57", "#8a4fa3", "#b03a48", "#6b5b1f")
GREY = "#444444"


@dataclasses.dataclass(frozen=True)
class Curves:
    """What a run's metrics say. Losses are in nats per token, by objective: (updates [n], losses [n])."""

    name: str
    training: dict[str, tuple[np.ndarray, np.ndarray]]
    held_out: dict[str, tuple[np.ndarray, np.ndarray]]
    entropy: float | None  # unigram entropy of the held-out text, nats per token
    tokens_per_update: float | None  # padding left out


def read_curves(workdir: Path, name: str) -> Curves:
    """Reads the metrics of a run.

    Raises:
      InputError: there are none.
    """
    lines = read_metrics(workdir)
    if not lines:
        raise InputError(
            f"{workdir} has no {METRICS_FILE} with a whole line in it: give the folder of a run that has logged something"
        )

    def series(key: str) -> tuple[np.ndarray, np.ndarray] | None:
        points = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
        return tuple(np.array(points, np.float64).T) if points else None

    def by_objective(prefix: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        found = {objective: series(f"{prefix}{objective}_loss") for objective in PANELS}
        return {objective: points for objective, points in found.items() if points}

    entropy, speed, rate = (series(key) for key in ("eval/unigram_entropy", "tokens_per_second", "steps_per_second"))
    return Curves(
        name,
        by_objective(""),
        by_objective("eval/"),
        float(entropy[1][-1]) if entropy else None,
        float(np.mean(speed[1] / rate[1])) if speed and rate else None,
    )


def smoothed(values: np.ndarray) -> np.ndarray:
    """Means of values [n] weighted by a bell curve around each, SMOOTHING * n of them wide (standard deviation, at least 1)."""
    width = max(1.0, SMOOTHING * len(values))
    reach = min(int(3 * width), len(values) - 1)
    bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    weighted, weights = (np.convolve(of, bell)[reach : reach + len(values)] for of in (values, np.ones(len(values))))
    return weighted / weights  # not sums: there are fewer neighbours towards the ends


def plot_curves(workdirs: list[Path], output: Path) -> None:
    """Draws the runs into `output`; its suffix says as what (.png, .svg, .pdf).

    Raises:
      InputError: no matplotlib, a run without metrics, or a file that cannot be written.
    """
    try:
        from matplotlib.figure import Figure  # without pyplot: no window, no display, nothing global
    except ImportError:
        raise InputError("plotting needs matplotlib: pip install matplotlib") from None
    names = [workdir.resolve().name for workdir in workdirs]
    runs = [
        read_curves(workdir, name if names.count(name) == 1 else str(workdir)) for workdir, name in zip(workdirs, names)
    ]
    panels = [objective for objective in PANELS if any(objective in run.training for run in runs)]
    if not panels:
        raise InputError(f"{', '.join(map(str, workdirs))}: no training loss is logged yet")
    figure = Figure(figsize=(1.5 + 4.5 * len(panels), 4.2), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, objective in zip(axes, panels):
        draw_panel(axis, objective, runs)
    axes[0].set_ylabel("loss (nats per token)")
    entries = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels())}  # each once
    axes[-1].legend(entries.values(), entries.keys(), frameon=False, loc="upper right", fontsize=9)
    try:
        figure.savefig(output, dpi=150)
    except (OSError, ValueError) as error:  # no such folder; no such format
        raise InputError(f"cannot write {output}: {error}") from None


def draw_panel(axis, objective: str, runs: list[Curves]) -> None:
    """One objective of all runs: training losses faint, smoothed ones over them, held-out ones as points, the unigram entropy dashed."""
    alone = len(runs) == 1
    for number, run in enumerate(runs):
        colour = COLOURS[number % len(COLOURS)]
        if objective in run.training:
            updates, losses = run.training[objective]
            axis.plot(updates, losses, color=colour, alpha=0.25, linewidth=0.8)
            axis.plot(updates, smoothed(losses), color=colour, linewidth=1.8, label="training" if alone else run.name)
        if objective in run.held_out:
            axis.plot(*run.held_out[objective], "o", color=colour, markeredgecolor="white", markersize=6)
    if any(objective in run.held_out for run in runs):
        axis.plot([], [], "o", color=COLOURS[0] if alone else GREY, label="held-out")
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
    axis.set_title(PANELS[objective], fontsize=11)
    axis.set_xlabel("updates")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", alpha=0.25)
    tokens = [run.tokens_per_update for run in runs if run.tokens_per_update]
    if tokens and max(tokens) < 1.02 * min(tokens):  # else the runs have no common scale
        add_token_axis(axis, float(np.mean(tokens)))


def add_token_axis(axis, tokens_per_update: float) -> None:
    """Tokens read, along the top."""
    millions = tokens_per_update / 1e6
    top = axis.secondary_xaxis("top", functions=(lambda updates: updates * millions, lambda read: read / millions))
    top.set_xlabel("million tokens read", fontsize=9)
    top.tick_params(labelsize=8)
    top.spines["top"].set_visible(False)

"""How a metric depends on hyperparameters, over many arms: parallel coordinates, and importance by Optuna."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from spanbert_jax.errors import InputError
from spanbert_jax.experiments.report.comparison import lower_is_better, metrics_of, summarised, values_of
from spanbert_jax.experiments.report.records import Arm
from spanbert_jax.experiments.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEWEST = 3  # arms from which on there is something to see


def main_metric(arms: Sequence[Arm]) -> str | None:
    """Returns the first metric that every arm has."""
    return next((metric for metric in metrics_of(arms) if all(values_of(arm, metric) for arm in arms)), None)


def means_of(arms: Sequence[Arm], metric: str) -> list[float]:
    """Returns the mean of a metric over the seeds of each arm, all of which have it."""
    summaries = [summarised(list(values_of(arm, metric).values())) for arm in arms]
    return [summary.mean for summary in summaries if summary]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def positions(values: Sequence[Any]) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Returns where values lie on an axis from 0 to 1, and its ticks.

    Numbers are in proportion, by their logarithms if they are positive and span more than a factor of 20; other values
    are in the order of their first appearance.
    """
    if all(map(_is_number, values)):
        numbers = np.array(values, np.float64)
        logarithmic = numbers.min() > 0 and numbers.max() > 20 * numbers.min()
        scaled = np.log(numbers) if logarithmic else numbers
        width = scaled.max() - scaled.min() or 1.0
        places = (scaled - scaled.min()) / width
        labels = {round(float(place), 6): f"{number:.4g}" for place, number in zip(places, numbers)}
        if len(labels) > 6:
            labels = {place: labels[place] for place in (min(labels), max(labels))}
        return places, list(labels.items())
    names = list(dict.fromkeys(map(str, values)))
    place_of = {name: number / max(len(names) - 1, 1) for number, name in enumerate(names)}
    return np.array([place_of[str(value)] for value in values]), [(place, name) for name, place in place_of.items()]


def parallel_coordinates(arms: Sequence[Arm]) -> "Figure | None":
    """Draws a line for each arm through its hyperparameters to its metric; None if there are too few arms or knobs."""
    metric = main_metric(arms)
    if len(arms) < FEWEST or metric is None or not arms[0].settings:
        return None
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    means = means_of(arms, metric)
    keys = list(arms[0].settings)
    columns: list[Sequence[Any]] = [[arm.settings[key] for arm in arms] for key in keys]
    axes = [positions(column) for column in [*columns, means]]
    figure = Figure(figsize=(2.0 + 2.0 * len(axes), 4.4), layout="constrained")
    panel = figure.subplots()
    order = np.argsort(np.argsort(means)) / max(len(means) - 1, 1)
    goodness = 1 - order if lower_is_better(metric) else order
    for number in np.argsort(goodness):
        colour = colormaps["viridis"](0.95 - 0.9 * goodness[number])
        panel.plot(range(len(axes)), [places[number] for places, _ in axes], color=colour, alpha=0.8, linewidth=1.6)
    for x, (_, ticks) in enumerate(axes):
        panel.axvline(x, color="#444444", linewidth=0.8)
        for place, label in ticks:
            panel.annotate(label[:24], (x, place), xytext=(4, 0), textcoords="offset points", fontsize=8, va="center")
    panel.set_xticks(range(len(axes)), [*keys, metric], fontsize=9)
    panel.set_yticks([])
    panel.set_xlim(-0.1, len(axes) - 0.5)
    panel.spines[["left", "right", "top", "bottom"]].set_visible(False)
    return figure


def importance_table(arms: Sequence[Arm]) -> Table | None:
    """Returns the importance of each hyperparameter for the main metric; None if there are too few arms or knobs.

    Optuna's PED-ANOVA (Watanabe et al. 2023): how the best tenth of the arms is distributed beside all of them.

    Raises:
      InputError: Optuna is not installed.
    """
    metric = main_metric(arms)
    if len(arms) < 2 * FEWEST or metric is None or len(arms[0].settings) < 2:
        return None
    try:
        import optuna
    except ImportError:
        raise InputError("importance of hyperparameters needs optuna: pip install optuna") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions: dict[str, Any] = {}
    for key in arms[0].settings:
        values = [arm.settings[key] for arm in arms]
        if all(map(_is_number, values)):
            distributions[key] = optuna.distributions.FloatDistribution(float(min(values)), float(max(values)))
        else:
            distributions[key] = optuna.distributions.CategoricalDistribution(list(dict.fromkeys(map(str, values))))
    directions = optuna.study.StudyDirection
    study = optuna.create_study(direction=directions.MINIMIZE if lower_is_better(metric) else directions.MAXIMIZE)
    for arm, mean in zip(arms, means_of(arms, metric)):
        numbers = {key: float(value) if _is_number(value) else str(value) for key, value in arm.settings.items()}
        categorical = optuna.distributions.CategoricalDistribution
        params = {
            key: str(arm.settings[key]) if isinstance(distributions[key], categorical) else numbers[key]
            for key in distributions
        }
        study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=mean))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    rows = [[key, f"{value:.2f}"] for key, value in found.items()]
    note = f"Share of each knob in how {metric} varies, by PED-ANOVA over {len(arms)} arms."
    return Table("Importance", ["key", "importance"], rows, note)

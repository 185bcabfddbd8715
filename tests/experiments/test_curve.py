"""The plot of a run shows its metrics, and smoothing adds no lag."""

import json
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from spanbert_jax.errors import InputError
from spanbert_jax.experiments.curve import draw_panel, plot_curves, read_curves, smoothed


def write_run(workdir, steps=60, sbo=True, entropy=6.5, tokens=4000.0):
    """Writes metrics as a training run does, the last line truncated by a kill, and returns the folder."""
    workdir.mkdir(parents=True)
    lines = []
    speed = {"tokens_per_second": tokens * 2.5, "steps_per_second": 2.5, "mfu": None}
    for step in range(1, steps + 1):
        sbo_loss = {"sbo_loss": 7.5 - step / 50} if sbo else {}
        lines.append({"step": step, "mlm_loss": 7.0 - step / 50, **speed, **sbo_loss})
        if step % 20 == 0:
            sbo_loss = {"eval/sbo_loss": 7.6 - step / 50} if sbo else {}
            evaluation = {"eval/mlm_loss": 7.1 - step / 50, "eval/mlm_count": 9.0, "eval/unigram_entropy": entropy}
            lines.append({"step": step, **evaluation, **sbo_loss})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (workdir / "metrics.jsonl").write_text(text + '{"step": 61, "mlm_lo')
    return workdir


def panel(objective, *runs):
    axis = Figure().subplots()
    draw_panel(axis, objective, list(runs))
    return axis


def test_all_metrics_of_a_run_are_read(tmp_path):
    run = read_curves(write_run(tmp_path / "run"), "run")
    assert run.entropy == 6.5 and run.tokens_per_step == pytest.approx(4000)
    for objective, first in (("mlm", 7.0), ("sbo", 7.5)):
        steps, losses = run.training[objective]
        np.testing.assert_array_equal(steps, np.arange(1, 61))
        np.testing.assert_allclose(losses, first - steps / 50)
        steps, losses = run.held_out[objective]
        np.testing.assert_array_equal(steps, [20, 40, 60])
        np.testing.assert_allclose(losses, first + 0.1 - steps / 50)


def test_smoothing_keeps_constants_averages_noise_and_is_symmetric():
    np.testing.assert_allclose(smoothed(np.full(50, 3.0)), 3.0)
    noise = np.random.default_rng(0).normal(5.0, 1.0, 2000)
    assert smoothed(noise).std() < 0.15 and abs(smoothed(noise).mean() - 5.0) < 0.05
    line = np.linspace(0, 1, 400)
    np.testing.assert_allclose(smoothed(line)[60:-60], line[60:-60], atol=1e-3)  # no lag
    for count in (1, 2, 3):
        assert smoothed(np.arange(float(count))).shape == (count,)
    impulse = np.zeros(101)
    impulse[50] = 1
    np.testing.assert_allclose(smoothed(impulse), smoothed(impulse)[::-1], atol=1e-12)


def test_a_panel_shows_training_losses_held_out_losses_and_entropy(tmp_path):
    axis = panel("sbo", read_curves(write_run(tmp_path / "run"), "run"))
    raw, smooth, points = axis.lines[:3]
    steps = np.arange(1, 61)
    np.testing.assert_allclose(raw.get_ydata(), 7.5 - steps / 50)
    np.testing.assert_allclose(smooth.get_ydata(), smoothed(7.5 - steps / 50))
    np.testing.assert_allclose(points.get_ydata(), 7.6 - np.array([20, 40, 60]) / 50)
    dashed = [line for line in axis.lines if line.get_linestyle() == "--"]
    assert [line.get_ydata()[0] for line in dashed] == [6.5]
    assert [text.get_text() for text in axis.texts] == ["unigram entropy 6.50"]
    assert axis.get_xlabel() == "steps"
    [top] = axis.child_axes
    axis.set_xlim(0, 500)
    axis.figure.draw_without_rendering()
    np.testing.assert_allclose(top.get_xlim(), (0, 2))  # 500 steps of 4,000 tokens are two million tokens
    assert axis.get_legend_handles_labels()[1] == ["training", "held-out"]


def test_several_runs_have_names_colours_and_a_token_axis_if_it_fits_all(tmp_path):
    first, second = (read_curves(write_run(tmp_path / name), name) for name in ("one", "two"))
    axis = panel("mlm", first, second)
    assert axis.get_legend_handles_labels()[1] == ["one", "two", "held-out"]
    assert axis.lines[1].get_color() != axis.lines[4].get_color()
    assert (
        len(axis.texts) == 1 and len(axis.child_axes) == 1
    )  # equal entropies and equal tokens per step are shown once
    other = read_curves(write_run(tmp_path / "other", entropy=7.0, tokens=8000.0), "other")
    axis = panel("mlm", first, other)
    assert len(axis.texts) == 2 and not axis.child_axes


@pytest.mark.parametrize("sbo", [True, False])
def test_the_png_has_one_panel_per_objective(tmp_path, sbo):
    output = tmp_path / "loss.png"
    plot_curves([write_run(tmp_path / "run", sbo=sbo)], output)
    height, width, _ = imread(output).shape
    assert width == (1575 if sbo else 900) and height == 630


def test_runs_of_the_same_name_and_a_run_without_sbo_are_all_in_the_legend(tmp_path, monkeypatch):
    labels = []

    def record_legend(figure, *_, **__):
        labels.extend(text.get_text() for text in figure.axes[-1].get_legend().get_texts())

    monkeypatch.setattr(Figure, "savefig", record_legend)
    folders = [write_run(tmp_path / "a" / "run"), write_run(tmp_path / "b" / "run")]
    plot_curves([*folders, write_run(tmp_path / "plain", sbo=False)], tmp_path / "loss.png")
    assert sorted(labels) == sorted([*map(str, folders), "plain", "held-out"])


def test_errors_of_the_user_are_reported(tmp_path, monkeypatch):
    run = write_run(tmp_path / "run")
    with pytest.raises(InputError, match="absent has no metrics.jsonl"):
        plot_curves([run, tmp_path / "absent"], tmp_path / "loss.png")
    for output in ("no/loss.png", "loss.what"):
        with pytest.raises(InputError, match=f"cannot write .*{output}"):
            plot_curves([run], tmp_path / output)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match="pip install matplotlib"):
        plot_curves([run], tmp_path / "loss.png")
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]

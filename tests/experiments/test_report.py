"""Reports: runs and arms, means and tests, hostile text, and how the page looks in a browser."""

import csv
import json
import math
import shutil
import sys

import numpy as np
import pytest
from scipy import stats

from spanbert_jax import config as config_lib
from spanbert_jax.commands import report
from spanbert_jax.configs.tasks import classification
from spanbert_jax.errors import InputError
from spanbert_jax.experiments.report import comparison, hyperparameters, tables
from spanbert_jax.experiments.report.page import make_report
from spanbert_jax.experiments.report.records import arms_of, read_records
from tests.small import small_config

HOSTILE = "<script>alert('x')</script> | *a* {{ 7*7 }}"


def write_run(workdir, loss=6.0, **changes):
    """A run of ten steps as training leaves it, but for its checkpoints."""
    workdir.mkdir(parents=True)
    config = small_config(**changes)
    (workdir / "config.json").write_text(config_lib.to_json(config))
    lines = [
        {"step": step, "loss": 14 - step / 10, "mlm_loss": 7 - step / 10, "sbo_loss": 7 - step / 10,
         "learning_rate": 1e-3, "tokens_per_second": 1000.0, "steps_per_second": 2.0, "mfu": None}
        for step in range(1, 11)
    ]  # fmt: skip
    lines.append({"step": 10, "eval/mlm_loss": loss, "eval/mlm_accuracy": 1 / loss, "eval/mlm_count": 90.0})
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return workdir


LOSSES = {0.15: (6.0, 6.1, 6.2), 0.3: (5.5, 5.7, 5.6)}  # by mask rate and seed


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    for rate, losses in LOSSES.items():
        for seed, loss in enumerate(losses):
            write_run(folder / f"rate{rate}" / f"seed_{seed}", loss, masking__rate=rate, seed=seed)
    return folder


def test_runs_that_differ_in_their_seed_are_one_arm(sweep):
    arms = arms_of(read_records([sweep]))
    assert [arm.name for arm in arms] == ["rate=0.15", "rate=0.3"]
    assert [[run.repetition for run in arm.runs] for arm in arms] == [[(0, 0), (1, 0), (2, 0)]] * 2
    assert arms[1].settings == {"masking.rate": 0.3}
    assert comparison.metrics_of(arms) == ["mlm_loss", "mlm_accuracy"]
    assert len(read_records([sweep, sweep / "rate0.3"])) == 6  # none twice


def test_folds_of_a_cross_validation_are_one_arm(tmp_path):
    for rate, scores in ((1e-5, (0.5, 0.6, 0.4)), (2e-5, (0.61, 0.7, 0.49))):
        for fold, score in enumerate(scores, 1):
            run = write_run(tmp_path / f"{rate}-{fold}")
            config = classification.get_config("table")
            config.update(dict(optimizer=dict(learning_rate=rate), task=dict(train="x.tsv", folds=3, fold=fold)))
            (run / "config.json").write_text(config_lib.to_json(config))
            (run / "results.json").write_text(json.dumps({"metric": "accuracy", "valid": {"accuracy": score}}))
    one, other = arms_of(read_records([tmp_path]))
    assert one.settings == {"optimizer.learning_rate": 1e-5}
    assert [run.repetition_name for run in one.runs] == ["0, fold 1", "0, fold 2", "0, fold 3"]
    found = comparison.difference(one, other, "valid/accuracy")
    assert found.difference == pytest.approx(0.1) and found.spread == pytest.approx(0.1, rel=0.1) and found.paired == 3


def test_differences_are_those_of_scipy(sweep):
    one, other = arms_of(read_records([sweep]))
    found = comparison.difference(one, other, "mlm_loss")
    first, second = (np.array(losses) for losses in LOSSES.values())
    assert found.difference == pytest.approx(-0.5) and found.spread == pytest.approx(0.1) and found.paired == 3
    assert found.p == pytest.approx(stats.ttest_rel(second, first).pvalue)
    assert found.verdict == "exceeds the spread between seeds"
    assert comparison.difference(one, one, "mlm_loss").verdict == "is within the spread between seeds"


def test_examples_are_tested_in_pairs_of_means_over_seeds(tmp_path):
    random = np.random.default_rng(0)
    scores = {rate: random.normal(size=(2, 50)) + 4 * rate for rate in LOSSES}
    for rate, seeds in scores.items():
        for seed, values in enumerate(seeds):
            run = write_run(tmp_path / f"{rate}-{seed}", masking__rate=rate, seed=seed)
            np.savez_compressed(run / "examples.npz", cloze_score=values)
            with (run / "metrics.jsonl").open("a") as file:
                line = {"eval/cloze_score": values.mean(), "eval/cloze/1_words/score": values[:9].mean()}
                file.write(json.dumps({"step": 10} | line) + "\n")
    one, other = arms_of(read_records([tmp_path]))
    found = comparison.difference(one, other, "cloze_score")
    assert found.p_examples == stats.ttest_rel(scores[0.3].mean(0), scores[0.15].mean(0)).pvalue < 0.05
    assert math.isnan(comparison.difference(one, other, "mlm_loss").p_examples)
    assert "cloze/1_words/score" not in comparison.metrics_of([one])
    (group,) = tables.groups_table([one, other]).rows
    assert group[0] == "cloze/1_words/score" and group[1].startswith(f"{scores[0.15][:, :9].mean():.4g}")


def test_other_seeds_are_tested_unpaired_and_single_ones_not_at_all(sweep, tmp_path):
    for seed, loss in ((7, 5.4), (8, 5.9)):
        write_run(tmp_path / "b" / str(seed), loss, masking__rate=0.4, seed=seed)
    write_run(tmp_path / "c" / "7", masking__rate=0.5)
    one, other, single = arms_of(read_records([sweep / "rate0.15", tmp_path]))
    found = comparison.difference(one, other, "mlm_loss")
    assert found.paired == 0
    assert found.p == pytest.approx(stats.ttest_ind([5.4, 5.9], LOSSES[0.15], equal_var=False).pvalue)
    alone = comparison.difference(single, single, "mlm_loss")
    assert math.isnan(alone.p) and alone.verdict == "one seed each: the spread is unknown"


def test_tables_say_the_same_in_every_form(sweep, tmp_path):
    files = make_report([sweep], tmp_path / "r.html", 0, print)
    page, markdown, lines = (file.read_text() for file in files)
    for text in ("6.1 ± 0.1", "5.6 ± 0.1", "-0.5", "exceeds the spread between seeds"):
        assert text in page and text in markdown, text
    rows = list(csv.DictReader(lines.splitlines()))
    assert [float(row["mlm_loss"]) for row in rows] == [loss for losses in LOSSES.values() for loss in losses]
    assert {row["masking.rate"] for row in rows} == {"0.15", "0.3"}
    best = tables.metrics_table(arms_of(read_records([sweep]))).best
    assert best == {(1, 3), (1, 4)}  # a low loss, a high accuracy


def test_results_of_fine_tuning_are_its_metrics(tmp_path):
    run = write_run(tmp_path / "run")
    (run / "results.json").write_text(
        json.dumps({"metric": "f1", "step": 3, "valid": {"f1": 0.5}, "test": {"f1": 0.4}})
    )
    [record] = read_records([run])
    assert record.metrics == {"valid/f1": 0.5, "test/f1": 0.4}


def test_what_made_the_runs_is_shown(sweep, tmp_path):
    assert tables.provenance_table(arms_of(read_records([sweep]))) is None
    for name, commit in (("a", "1" * 40), ("b", "2" * 40), ("c", "2" * 40)):
        run = write_run(tmp_path / name)
        made = {"versions": {"jax": "0.10.2"}, "git": {"commit": commit, "dirty": False}, "odd": 3}
        (run / "provenance.json").write_text(json.dumps(made))
    assert tables.provenance_table(arms_of(read_records([tmp_path]))).rows == [
        ["versions.jax", "0.10.2"],
        ["git.commit", f"{'1' * 12} (1 runs), {'2' * 12} (2 runs)"],
        ["git.dirty", "False"],
    ]


def test_text_is_escaped(tmp_path):
    write_run(tmp_path / "a", name=HOSTILE)
    write_run(tmp_path / "b", masking__rate=0.3)
    files = make_report([tmp_path], tmp_path / "r.html", 0, print)
    page, markdown, _ = (file.read_text() for file in files)
    assert "<script" not in page and "&lt;script&gt;" in page and "{{ 7*7 }}" in page
    assert "\\<script\\>" in markdown and "\\|" in markdown
    assert "://" not in page  # nothing is loaded


def test_parallel_coordinates_and_importance(tmp_path):
    pytest.importorskip("optuna", reason="computes the importance by optuna")
    number = 0
    for rate in (1e-4, 1e-3, 1e-2):
        for scheme in ("geometric_span", "token"):
            changes = dict(optimizer__learning_rate=rate, masking__schemes=(scheme,))
            write_run(tmp_path / str(number), 5 + abs(math.log10(rate) + 3), **changes)
            number += 1
    arms = arms_of(read_records([tmp_path]))
    places, ticks = hyperparameters.positions([arm.settings["optimizer.learning_rate"] for arm in arms])
    np.testing.assert_allclose(places, [0, 0, 0.5, 0.5, 1, 1], atol=1e-9)  # by logarithms
    assert [label for _, label in ticks] == ["0.0001", "0.001", "0.01"]
    importance = {key: float(value) for key, value in hyperparameters.importance_table(arms).rows}
    assert importance["optimizer.learning_rate"] > importance["masking.schemes"]
    page = make_report([tmp_path], tmp_path / "r.html", 0, print)[0].read_text()
    assert "Hyperparameters, from the best" in page and "Importance" in page


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["none"], "none: no run with a config.json and a metrics.jsonl in it"),
        (["run", "--output=r.pdf"], "so give a name that ends in .html"),
        (["run", "--output=no/r.html", "--samples=0"], "cannot write no/r.html"),
    ],
    ids=["no run", "format", "no folder"],
)
def test_bad_input(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "run")
    (tmp_path / "none").mkdir()
    monkeypatch.setattr(sys, "argv", ["report", *arguments])
    with pytest.raises(InputError, match=said):
        report.main()


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="looks at the page in Chromium")
@pytest.mark.parametrize("width", [1280, 360])
def test_the_page_in_a_browser(width, sweep, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api", reason="drives Chromium by playwright")
    write_run(tmp_path / "named", name="a-name-" + "x" * 200, masking__rate=0.7)
    make_report([sweep, tmp_path], tmp_path / "r.html", 1, print)
    with sync_api.sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page(viewport={"width": width, "height": 900})
        messages, asked = [], []
        page.on("console", lambda message: messages.append(message.text))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((tmp_path / "r.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("[...document.images].every(image => image.naturalWidth > 100)")
        assert page.locator("td.best").count() == 2 and "not available" in page.inner_text("body")
        page.screenshot(path=tmp_path / "page.png", full_page=True)
        browser.close()
    assert not messages and all(url.startswith(("file:", "data:")) for url in asked)
    assert (tmp_path / "page.png").stat().st_size > 20_000

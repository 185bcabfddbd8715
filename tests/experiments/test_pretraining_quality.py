"""The comparison of pretrained models: what each side is pretrained on and starts from."""

import json
import tarfile
import time

import pytest

from spanbert_jax.data.store import open_store
from spanbert_jax.experiments import pretraining_quality as quality
from tests.finetuning.conftest import write_examples


@pytest.mark.slow
def test_all_sides_have_one_vocabulary_and_size_and_the_same_text(tmp_path, monkeypatch):
    data = tmp_path / "input"
    for name in ("novels", "ner_wnut17", "sentiment_polarity"):
        (data / name).mkdir(parents=True)
    for number in range(30):
        write_examples(tmp_path / f"{number}.txt", 20, number)
    with tarfile.open(data / "novels" / "novels.tar.xz", "w:xz") as archive:
        for number in range(30):
            archive.add(tmp_path / f"{number}.txt", f"novels/{number}.txt")
    for path in ("ner_wnut17/wnut17train.conll", "ner_wnut17/emerging.dev.conll", "ner_wnut17/emerging.test.annotated"):
        (data / path).write_text("")
    for label in ("neg", "pos"):
        (data / "sentiment_polarity" / f"rt-polarity.{label}").write_text(f"{label}\n")
    pretrained, started = {}, []

    def pretrain(config, workdir):
        pretrained[workdir.name] = config
        workdir.mkdir()
        line = {"step": 7, "eval/mlm_loss": 5.0 + config.seed, "eval/mlm_accuracy": 0.1}
        (workdir / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        return 0

    def our_scores(config, run):
        started.append(config)
        return {"valid": {"accuracy": 0.5}, "test": {"f1": 20.0 + 10 * bool(config.init.path) + config.seed}}

    monkeypatch.setattr(quality, "pretrain", pretrain)
    monkeypatch.setattr(quality, "our_scores", our_scores)
    monkeypatch.setattr(quality, "VOCABULARY", 300)
    monkeypatch.setattr(
        quality, "step_of", lambda config, store: lambda: time.sleep(0.001 * config.model.mlp_width / 768)
    )
    figures = quality.pretraining_quality(data, tmp_path / "out", minutes=0.1)
    store, names = tmp_path / "out" / "store", list(quality.RECIPES)
    assert open_store(store).tokenizer().vocab_size <= 300
    assert list(pretrained) == [f"{name}-{seed}" for seed in range(2) for name in names]
    spans = {name: (of.masking.schemes, of.objectives.sbo_weight > 0) for name, of in pretrained.items()}
    without, within = (("subword",), False), (("geometric_span",), True)
    assert [spans[f"{name}-1"] for name in names] == [without, within, without, within]
    seconds = json.loads((tmp_path / "out" / "steps.json").read_text())["seconds_per_step"]
    for name, of in pretrained.items():
        assert of.total_steps == round(6 / seconds[name[:-2]]) and of.eval.masking == quality.MASKS
        assert (of.data.store, of.data.vocab) == (str(store), str(store))
    assert [config.init.path for config in started[:5]] == ["", *(str(tmp_path / "out" / f"{n}-0") for n in names)]
    for config in started[::5]:
        assert (config.data.vocab, config.model.layers, config.model.width) == (str(store), 4, 256)
    assert figures["modern_mlm_loss"] == 5.5
    assert figures["wnut_spans_scratch_mean"] == 20.5 and figures["wnut_spans_spanbert_mean"] == 30.5
    assert len(started) == 20

"""Exports of fine-tuned models: the same outputs in transformers and as a program, and refusals."""

import json
import sys

import jax
import numpy as np
import pytest

from spanbert_jax.commands import export_checkpoint
from spanbert_jax.configs.tasks import classification, squad, tagging
from spanbert_jax.errors import InputError
from spanbert_jax.finetuning.export import to_huggingface, to_stablehlo
from spanbert_jax.finetuning.predictor import FineTuned
from spanbert_jax.finetuning.task import collate
from spanbert_jax.interop import stablehlo
from spanbert_jax.model.encoder import FIELDS
from spanbert_jax.model.layout import ONE_DEVICE
from spanbert_jax.model.spec import model_spec
from spanbert_jax.tasks import TASKS
from spanbert_jax.tasks.tagging import Tagging
from tests.small import MODEL, TOKENIZER

TAGGED = {"plain": False, "types": ["LOC", "PER"], "usual": "O"}
MODELS = {  # name -> config, labels, and two inputs
    "classes": (classification.get_config(), {"labels": ["bad", "good", "so so"]}, ["the king of her", "in"]),
    "number": (classification.get_config(), {"labels": []}, ["the king of her", "in"]),
    "answers": (squad.get_config(), {}, [("who ?", "the king of the land"), ("where ?", "in")]),
    "tags": (tagging.get_config(), TAGGED, ["the king of her", "in"]),
}


def fine_tuned(name: str, **changes) -> FineTuned:
    """A model with large random parameters."""
    config, labels, _ = MODELS[name]
    config = config.copy_and_resolve_references()
    config.seq_len = 48
    config.data.vocab = "tiny"
    config.model.update(MODEL | dict(max_positions=64, init_std=0.2))
    config.qa.update(dict(max_query_length=8, stride=8)) if "qa" in config else None
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    task = TASKS[config.task.name](config, TOKENIZER, labels)
    params = module_of(task).init(jax.random.key(0), batch_of(task, MODELS[name][2]), None)["params"]
    task.tuned = {task.metric: 0.5}
    return FineTuned(config.lock(), task, TOKENIZER, jax.device_get(params), 7)


def module_of(task):
    return task.model(model_spec(task.config, TOKENIZER.vocab_size, "cpu"), ONE_DEVICE)


def batch_of(task, inputs) -> dict:
    rows = task.features(task.parse(task.config, inputs), training=False)
    return collate(task, rows, max(len(row.arrays["tokens"]) for row in rows))


def outputs_of(model: FineTuned, batch) -> np.ndarray:
    return np.asarray(module_of(model.task).apply({"params": model.params}, batch, None))


@pytest.mark.parametrize("name", ["classes", "number", "answers", "tags"])
def test_transformers_computes_the_same(tmp_path, name):
    torch = pytest.importorskip("torch", reason="compares with transformers")
    import transformers

    model = fine_tuned(name)
    to_huggingface(model, tmp_path / "out")
    kind = getattr(transformers, model.task.transformers_class)
    theirs, info = kind.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    inputs = MODELS[name][2]
    encoded = tokenizer(*(zip(*inputs) if name == "answers" else [inputs]), padding=True, return_tensors="pt")
    batch = batch_of(model.task, inputs)
    assert encoded["input_ids"].tolist() == batch["tokens"].tolist()
    with torch.no_grad():
        found = theirs.eval()(**encoded)
    if name == "answers":
        logits = np.stack([found.start_logits.numpy(), found.end_logits.numpy()], axis=-1)
    else:
        logits = found.logits.numpy()
    inside = batch["segments"] > 0 if logits.ndim == 3 else slice(None)
    assert np.abs(logits[inside]).max() > 0.3
    np.testing.assert_allclose(logits[inside], outputs_of(model, batch)[inside], atol=1e-5, rtol=1e-5)
    names = {
        "classes": ["bad", "good", "so so"],
        "number": ["score"],
        "tags": ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"],
    }
    if name in names:
        assert theirs.config.id2label == dict(enumerate(names[name]))


@pytest.mark.parametrize("name", ["classes", "answers", "tags"])
def test_the_program_computes_the_same(tmp_path, name):
    model = fine_tuned(name, **({"classification__pooling": "mean"} if name == "classes" else {}))
    to_stablehlo(model, tmp_path / "out")
    batch = batch_of(model.task, MODELS[name][2])
    given = stablehlo.load(tmp_path / "out")(*(batch[field] for field in ("tokens", "segments", "token_types")))
    logits = np.asarray(given["logits"])
    inside = batch["segments"] > 0 if logits.ndim == 3 else slice(None)
    np.testing.assert_allclose(logits[inside], outputs_of(model, batch)[inside], atol=1e-5, rtol=1e-5)
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"| {model.task.metric} | 0.5 |" in card and model.task.program_outputs in card
    assert {"tokens", "segments", "positions", "token_types"} == set(FIELDS)


def test_a_head_without_counterpart_is_refused(tmp_path):
    with pytest.raises(InputError, match="no counterpart for this head of classification; --format=stablehlo has"):
        to_huggingface(fine_tuned("classes", classification__pooling="mean"), tmp_path / "out")
    model = fine_tuned("tags")
    config = model.config.copy_and_resolve_references()
    config.tagging.decoder = "spans"
    spans = FineTuned(config, Tagging(config, TOKENIZER, TAGGED), TOKENIZER, model.params, 1)
    for export in (to_huggingface, to_stablehlo):
        with pytest.raises(InputError, match="this head of tagging.*scripts/predict.py uses it"):
            export(spans, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_exports_the_best_checkpoint_of_a_run(finished, tmp_path, monkeypatch, capsys):
    def run(*flags):
        monkeypatch.setattr(sys, "argv", ["export_checkpoint.py", f"--workdir={finished}", *flags])
        return export_checkpoint.main()

    step = json.loads((finished / "results.json").read_text())["step"]
    assert run(f"--output={tmp_path / 'out'}", "--format=stablehlo") == 0
    assert f"exported step {step} of {finished}" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "config.json").read_text())["id2label"] == {"0": "bad", "1": "good"}
    for flag, said in (("--step=6", "the best checkpoint is exported"), ("--format=original", "of pretrained models")):
        with pytest.raises(InputError, match=said):
            run(f"--output={tmp_path / 'other'}", flag)

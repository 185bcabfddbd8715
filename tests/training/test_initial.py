"""Runs that start from given weights, and the way there and back through an export."""

import json
import shutil

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.errors import InputError
from spanbert_jax.interop.huggingface import export_huggingface
from spanbert_jax.interop.weights import fingerprint, load_weights, to_params
from spanbert_jax.training.export import export_model
from spanbert_jax.training.initial import initial_of_run, read_initial, shapes_of, with_params
from spanbert_jax.training.metrics import read_metrics
from spanbert_jax.training.pretrain import pretrain
from spanbert_jax.training.workdir import check_workdir, read_config, restore_run
from tests.interop.models import assert_same, random_params
from tests.small import TOKENIZER, small_config, small_program

CONFIG = small_config()
SHAPES = shapes_of(CONFIG, TOKENIZER.vocab_size)
PARAMS = random_params(SHAPES)


def config_on(store, init, **changes):
    few = dict(total_steps=3, checkpoint__every=3, eval__every=0)
    return small_config(data__store=str(store.folder), init__path=str(init), **few | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Hugging Face folder of an encoder and an MLM head."""
    folder = tmp_path_factory.mktemp("init") / "hf"
    export_huggingface(
        folder, {path: array for path, array in PARAMS.items() if not path.startswith("sbo/")}, CONFIG, TOKENIZER, ""
    )
    return folder


@pytest.fixture(scope="module")
def run(store, folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run") / "workdir"
    assert pretrain(config_on(store, folder), workdir) == 0
    return workdir


def test_given_parameters_replace_random_ones_on_any_mesh(folder):
    initial = read_initial(small_config(init__path=str(folder)), TOKENIZER)
    assert initial.missing == ["sbo"] and "sbo" in initial.summary()
    program = small_program(small_config(mesh__data=2, mesh__fsdp=2, mesh__tensor=2), 8)
    fresh = program.init(None)
    state = with_params(fresh, initial.params)
    before, after = (flatten_dict(jax.device_get(tree.params), sep="/") for tree in (fresh, state))
    expected = {path: before[path] if path.startswith("sbo/") else array for path, array in PARAMS.items()}
    assert_same(after, expected)
    assert jax.tree.map(lambda leaf: leaf.sharding, state.params) == jax.tree.map(
        lambda leaf: leaf.sharding, fresh.params
    )


def changed_folder(folder, target, tokens=None, rows=None, extra=None, **settings):
    """A copy of a Hugging Face folder with other tokens, rows of its table, tensors or tokenizer settings."""
    shutil.copytree(folder, target)
    weights = load_file(target / "model.safetensors")
    for name in ("bert.embeddings.word_embeddings.weight", "cls.predictions.bias"):
        weights[name] = np.concatenate([weights[name]] * 2)[: rows or len(weights[name])]
    save_file(weights | (extra or {}), target / "model.safetensors")
    if tokens:
        Tokenizer(tokens, TOKENIZER.rules, "").save(target)
    if settings:
        (target / "tokenizer_config.json").write_text(json.dumps(settings))
    return small_config(init__path=str(target))


def test_padded_and_added_rows_and_heads_of_other_tasks(folder, tmp_path):
    extra = {"classifier.weight": np.ones((2, 32), np.float32)}
    padded = read_initial(changed_folder(folder, tmp_path / "a", rows=4096 + 64, extra=extra), TOKENIZER)
    assert "of the 4,160 rows of its vocabulary table, 64 behind the first 4,096 are left out" in padded.summary()
    assert "parts of other tasks, left out: classifier" in padded.summary()
    start = {path: array for path, array in PARAMS.items() if not path.startswith("sbo/")}
    assert_same(padded.params, start)
    longer = Tokenizer([*TOKENIZER.tokens, "covid"], TOKENIZER.rules, "")
    config = small_config(init__path=str(folder))
    extended, again = read_initial(config, longer), read_initial(config, longer)
    assert "tokens that it lacks, which start from scratch: 1" in extended.summary()
    table = extended.params["encoder/embeddings/word"]
    np.testing.assert_array_equal(table[:-1], start["encoder/embeddings/word"])
    assert 0 < np.abs(table[-1]).max() < 0.2 and again.fingerprint == extended.fingerprint
    added = changed_folder(folder, tmp_path / "b", tokens=longer.tokens, rows=4097)
    assert_same(read_initial(added, TOKENIZER).params, start)
    assert read_initial(added, longer).notes == []


def test_text_is_divided_as_the_initial_model_saw_it(folder, tmp_path):
    uncased = changed_folder(folder, tmp_path / "a", do_lower_case=True)
    with pytest.raises(
        InputError, match=r"its tokenizer_config.json says that text is uncased, and .* is cased: give --"
    ):
        read_initial(uncased, TOKENIZER)
    uncased.data.lowercase = "no"  # on purpose
    assert read_initial(uncased, TOKENIZER).missing == ["sbo"]
    other = Tokenizer([*TOKENIZER.tokens[:-1], "covid"], TOKENIZER.rules, "")
    with pytest.raises(InputError, match="its vocabulary is not that of data.vocab"):
        read_initial(small_config(init__path=str(folder)), other)


def test_a_run_starts_there_and_its_config_says_so(run, folder):
    config, _, _, _, params = restore_run(run)
    moved = flatten_dict(jax.device_get(params), sep="/")
    far = {path: float(np.abs(moved[path] - PARAMS[path]).max()) for path in moved}
    # Three updates move a number by no more than the sum of their rates, about 1e-2; from a random start the distance
    # would be near 1.
    assert max(far[path] for path in far if not path.startswith("sbo/")) < 0.05 < far["sbo/linear1/kernel"]
    start = {path: array for path, array in PARAMS.items() if not path.startswith("sbo/")}
    assert (config.init.path, config.init.fingerprint) == (str(folder), fingerprint(start))


@pytest.mark.slow
def test_the_same_command_resumes_and_other_weights_are_refused(run, store, folder, tmp_path, capfd):
    assert pretrain(config_on(store, folder), run) == 0
    assert "done before: 3 steps" in capfd.readouterr().out
    export_huggingface(tmp_path / "other", random_params(SHAPES, seed=1), CONFIG, TOKENIZER, "")
    before = (run / "config.json").read_text()
    with pytest.raises(InputError, match="init.fingerprint"):
        pretrain(config_on(store, tmp_path / "other"), run)
    assert (run / "config.json").read_text() == before
    # Weights that are no longer there are not needed to resume.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spanbert_jax.training.initial.read_initial", None)
        assert pretrain(config_on(store, ""), run) == 0
    assert (run / "config.json").read_text() == before


def test_a_run_with_a_checkpoint_reads_no_initial_weights(run, store, folder, tmp_path, monkeypatch):
    recorded = read_config(run).init
    moved = tmp_path / "moved"
    moved.symlink_to(folder)
    initial, config = initial_of_run(config_on(store, moved), TOKENIZER, run)
    assert config.init.path == str(moved) and initial.fingerprint == config.init.fingerprint == recorded.fingerprint
    monkeypatch.setattr("spanbert_jax.training.initial.read_initial", None)  # as if the source were gone
    for path in (folder, ""):
        initial, config = initial_of_run(config_on(store, path), TOKENIZER, run)
        assert initial is None and config.init == recorded
    _, config = initial_of_run(config_on(store, folder, init__fingerprint="other"), TOKENIZER, run)
    with pytest.raises(InputError, match="init.fingerprint: .* in the run, 'other' now"):
        check_workdir(run, config)
    with pytest.raises(TypeError):  # without a checkpoint it is read
        initial_of_run(config_on(store, folder), TOKENIZER, tmp_path)


def test_a_fingerprint_without_weights_starts_nothing(store, tmp_path):
    with pytest.raises(InputError, match="say where those weights are"):
        pretrain(config_on(store, "", init__fingerprint="ab"), tmp_path / "w")
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("format", ["huggingface", "original"])
def test_a_run_goes_out_and_comes_back_bit_for_bit(run, format, tmp_path):
    assert export_model(run, tmp_path / "out", format, None) == (f"step 3 of {run}", [])
    weights, _, _ = load_weights(tmp_path / "out")
    params, missing = to_params(weights, SHAPES)
    assert not missing
    assert_same(params, flatten_dict(jax.device_get(restore_run(run).params), sep="/"))
    assert read_initial(small_config(init__path=str(tmp_path / "out")), TOKENIZER).fingerprint == fingerprint(params)
    assert read_initial(small_config(init__path=str(run)), TOKENIZER).fingerprint == fingerprint(params)
    if format == "huggingface":
        card = (tmp_path / "out" / "README.md").read_text()
        (line,) = [line for line in read_metrics(run) if line["step"] == 3]
        assert f"| mlm_loss | 3 | {line['mlm_loss']:.6g} |" in card and str(run) not in card


def test_exports_that_are_refused(run, tmp_path):
    (tmp_path / "mine").write_text("mine")
    for arguments, words in {
        (run, tmp_path / "mine", "huggingface", None): "something at this path already",
        (run, tmp_path / "out", "huggingface", 2): "no checkpoint of step 2; it has those of 3",
        (tmp_path / "none", tmp_path / "out", "original", None): "has no config.json",
    }.items():
        with pytest.raises(InputError, match=words):
            export_model(*arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(data__vocab="cased"), "its vocabulary is not that of data.vocab cased: give --config.data.vocab="),
        (dict(model__heads=2), "model.heads is 4 there, 2 in this config"),
        (dict(model__norm_eps=1e-5), "model.norm_eps is 1e-12 there, 1e-05"),
        (
            dict(model__layers=3, model__width=64),
            "model.layers is 2 there, 3 in this config; model.width is 32 there, 64 in this config",
        ),
        (dict(init__fingerprint="abc"), "init.fingerprint requires abc"),
    ],
    ids=str,
)
def test_weights_that_do_not_fit_are_refused_before_anything_is_written(folder, store, changes, words, tmp_path):
    with pytest.raises(InputError, match=words):
        pretrain(config_on(store, folder, **changes), tmp_path / "w")
    assert not any(tmp_path.iterdir())

"""The folder of a run: one config, one process at a time, and nothing left behind by a run that never began."""

import jax
import numpy as np
import pytest

from spanbert_jax.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from spanbert_jax.data.tokenizer_files import WordRules
from spanbert_jax.errors import InputError
from spanbert_jax.objectives import MLM, SBO
from spanbert_jax.objectives.pretraining import init_params
from spanbert_jax.training.initial import tokenizer_of_run
from spanbert_jax.training.pretrain import pretrain
from spanbert_jax.training.workdir import (
    check_workdir,
    locked,
    read_config,
    restore_run,
    write_config,
    write_config_if_absent,
)
from tests.small import TOKENIZER, small_config

CONFIG, OTHER = small_config(), small_config(seed=5)


def entries(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def begin_and_fail(workdir):
    """As a run does whose text turns out to be unfit."""
    check_workdir(workdir, CONFIG)
    with pytest.raises(InputError, match="unfit"), locked(workdir):
        write_config_if_absent(workdir, CONFIG)
        (workdir / "checkpoints").mkdir()
        raise InputError("unfit")


@pytest.mark.parametrize("workdir", ["new", "deep/er/new", "empty", "prepared"])
def test_a_run_that_cannot_begin_leaves_everything_as_it_was(workdir, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "prepared" / "store").mkdir(parents=True)
    (tmp_path / "prepared" / "store" / "index.json").write_text("{}")
    before = entries(tmp_path)
    begin_and_fail(tmp_path / workdir)
    assert entries(tmp_path) == before


def test_a_run_that_began_keeps_what_it_has(tmp_path):
    write_config(tmp_path, CONFIG)
    (tmp_path / "store").mkdir()
    begin_and_fail(tmp_path)
    assert {"config.json", "store"} <= set(entries(tmp_path))


def test_a_folder_keeps_the_config_that_was_written_first(tmp_path):
    """As after a kill while text was tokenised."""
    workdir = tmp_path / "run"
    with locked(workdir):
        write_config_if_absent(workdir, CONFIG)
        (workdir / ".store.123").mkdir()
        (workdir / ".store.123" / "train-00000.tokens").write_text("half of it")
    check_workdir(workdir, CONFIG)
    with pytest.raises(InputError, match="seed: 0 in the run, 5 now"):
        check_workdir(workdir, OTHER)
    with locked(workdir):
        write_config_if_absent(workdir, OTHER)
        assert read_config(workdir).seed == 0
        assert not (workdir / ".store.123").exists()


def test_one_process_at_a_time(tmp_path):
    with locked(tmp_path):
        with pytest.raises(InputError, match="in use by another process"), locked(tmp_path):
            pytest.fail("two at a time")
        assert (tmp_path / ".lock").exists()
    with locked(tmp_path):
        pass


def test_what_is_no_folder_of_a_run(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="is a file"):
        check_workdir(tmp_path / "file", CONFIG)
    with pytest.raises(InputError, match="holds other files"):
        check_workdir(tmp_path / "thesis", CONFIG)
    with pytest.raises(InputError, match="has no config.json"):
        read_config(tmp_path)
    with pytest.raises(InputError, match="cannot be written"), locked(tmp_path / "file" / "run"):
        pytest.fail("in a file")


@pytest.fixture(scope="module")
def workdir(store, tmp_path_factory):
    """A run with checkpoints of steps 3 and 6."""
    workdir = tmp_path_factory.mktemp("restore") / "run"
    config = small_config(total_steps=6, data__store=str(store.folder), eval__every=0, checkpoint__every=3)
    assert pretrain(config.lock(), workdir) == 0
    return workdir


def test_a_run_is_restored_with_its_own_parameters_and_at_any_step(workdir):
    config, tokenizer, spec, objectives, params = restore_run(workdir)
    assert config.total_steps == 6 and objectives == (MLM, SBO)
    assert tokenizer.fingerprint == TOKENIZER.fingerprint and spec.vocab_size == TOKENIZER.vocab_size
    assert all(len(leaf.devices()) == 1 for leaf in jax.tree.leaves(params))
    earlier = restore_run(workdir, 3).params
    shapes = jax.eval_shape(lambda: init_params(spec, objectives, jax.random.key(0)))
    assert jax.tree.structure(earlier) == jax.tree.structure(params) == jax.tree.structure(shapes)
    assert not np.array_equal(earlier["mlm"]["bias"], params["mlm"]["bias"])
    with pytest.raises(InputError, match="no checkpoint of step 5; it has those of 3, 6"):
        restore_run(workdir, 5)


def test_restoring_does_not_disturb_a_run_that_is_saving(workdir):
    saving = workdir / "checkpoints" / "step_9.orbax-checkpoint-tmp"
    saving.mkdir()
    (saving / "half").write_text("")
    before = sorted(workdir.rglob("*"))
    restore_run(workdir)
    assert sorted(workdir.rglob("*")) == before
    (saving / "half").unlink()
    saving.rmdir()


def test_the_tokenizer_of_a_run_is_the_one_that_it_began_with(workdir, tmp_path):
    gone = small_config(data__vocab=str(tmp_path / "gone.txt"))
    assert tokenizer_of_run(gone, workdir).fingerprint == TOKENIZER.fingerprint
    with pytest.raises(InputError, match=r"gone\.txt"):
        tokenizer_of_run(gone, tmp_path)
    # Rules that would be decided in another way now: nothing but the run says that its text is cased.
    lower = [
        token for token in TOKENIZER.tokens if token in SPECIAL_TOKENS or (token.isascii() and token == token.lower())
    ]
    Tokenizer(lower, False, "").save(tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "step_3").mkdir(parents=True)
    (tmp_path / "tokens.txt").write_bytes((tmp_path / "run" / "vocab.txt").read_bytes())
    config = small_config(data__vocab=str(tmp_path / "tokens.txt"))
    assert tokenizer_of_run(config, tmp_path).rules == WordRules(True)
    assert tokenizer_of_run(config, tmp_path / "run").rules == WordRules(False)
    assert tokenizer_of_run(small_config(data__vocab="cased"), tmp_path / "run").vocab_size == 28_996


def test_a_folder_without_a_run_or_with_another_vocabulary_is_refused(workdir, tmp_path):
    with pytest.raises(InputError, match="config.json"):
        restore_run(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_bytes((workdir / "config.json").read_bytes())
    with pytest.raises(InputError, match="no checkpoint yet"):
        restore_run(run)
    assert [entry.name for entry in run.iterdir()] == ["config.json"]
    (run / "checkpoints").symlink_to(workdir / "checkpoints")
    lines = (workdir / "vocab.txt").read_text().splitlines()
    (run / "vocab.txt").write_text("\n".join([*lines[:-2], lines[-1], lines[-2]]) + "\n")
    with pytest.raises(InputError, match="not the vocabulary"):
        restore_run(run)

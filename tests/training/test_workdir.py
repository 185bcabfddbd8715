"""The folder of a run: whose it is, one process at a time, and nothing left behind by a run that never was."""

import pytest

from spanbert_jax.errors import InputError
from spanbert_jax.training.workdir import check_workdir, claim, locked, read_config, write_config
from tests.small import small_config

CONFIG, OTHER = small_config(), small_config(seed=5)


def entries(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def begin_and_fail(workdir):
    """As a run does whose text turns out to be unfit."""
    check_workdir(workdir, CONFIG)
    with pytest.raises(InputError, match="unfit"), locked(workdir):
        claim(workdir, CONFIG)
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


def test_a_claimed_folder_is_its_configs(tmp_path):
    """As after a kill while text was tokenised."""
    workdir = tmp_path / "run"
    with locked(workdir):
        claim(workdir, CONFIG)
        (workdir / ".store.123").mkdir()
        (workdir / ".store.123" / "train-00000.tokens").write_text("half of it")
    check_workdir(workdir, CONFIG)
    with pytest.raises(InputError, match="seed: 0 in the run, 5 now"):
        check_workdir(workdir, OTHER)
    with locked(workdir):
        claim(workdir, OTHER)
        assert read_config(workdir).seed == 0  # the first claim stands
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

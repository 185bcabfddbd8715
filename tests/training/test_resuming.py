"""What a resumed run may change, and that a change is exact and recorded."""

import json
from collections.abc import Mapping
from types import MappingProxyType

import pytest

from spanbert_jax.errors import InputError
from spanbert_jax.training.branching import branch
from spanbert_jax.training.metrics import read_metrics
from spanbert_jax.training.pretrain import pretrain
from spanbert_jax.training.resuming import changes, check_allowed, refuse
from tests.small import small_config

RATE = "optimizer.learning_rate"


def refused(step: int, allowed: tuple[str, ...] = (), before: Mapping = MappingProxyType({}), **now) -> list[str]:
    """Returns the keys that a run with the config changes `before` may not change to `now` after `step`."""
    configs = small_config(**before), small_config(**{**before, **now})
    try:
        refuse(changes(*configs, step), *configs, allowed, "the run")
    except InputError as error:
        return [line.split(":")[0].strip() for line in str(error).splitlines()[1:]]
    return []


def test_the_length_may_change_while_no_rate_depended_on_it():
    constant = dict(optimizer__schedule="constant")
    assert refused(20, before=constant, total_steps=40) == []
    assert refused(20, before=dict(optimizer__schedule="linear"), total_steps=40) == ["total_steps"]
    assert refused(2, before=dict(optimizer__schedule="linear"), total_steps=40) == []  # warm-up is of 2 steps
    assert refused(20, before=constant, total_steps=40, optimizer__warmup_steps=5) == ["optimizer.warmup_steps"]


def test_an_allowed_key_and_no_other_may_change():
    assert refused(20, optimizer__learning_rate=1e-4, seed=3) == [RATE, "seed"]
    assert refused(20, (RATE,), optimizer__learning_rate=1e-4, seed=3) == ["seed"]
    assert refused(20, (RATE, "seed", "batch_size"), optimizer__learning_rate=1e-4, seed=3) == []
    assert refused(20, accumulation=2, mesh__fsdp=2, log_every=1) == []
    with pytest.raises(
        InputError, match="--allow: config has no key 'learning_rate'; did you mean 'optimizer.learning_rate'"
    ):
        check_allowed(["seed", "learning_rate"])


def test_a_run_is_extended_to_the_bits_of_a_longer_one_and_changed_on_purpose(store, tmp_path, capfd):
    def config(**changes):
        fixed = dict(optimizer__schedule="constant", log_every=1, eval__every=0, checkpoint__every=100)
        return small_config(data__store=str(store.folder), **fixed | changes)

    def losses(name):
        return {line["step"]: line["loss"] for line in read_metrics(tmp_path / name)}

    assert pretrain(config(total_steps=8), tmp_path / "straight") == 0
    assert pretrain(config(total_steps=5), tmp_path / "run") == 0
    assert pretrain(config(total_steps=8), tmp_path / "run") == 0
    assert losses("run") == losses("straight")

    lower = config(total_steps=10, optimizer__learning_rate=1e-4)
    with pytest.raises(InputError, match=rf"--allow={RATE} .*\n  {RATE}: 0.005 in the run, 0.0001 now$"):
        pretrain(lower, tmp_path / "run")
    assert pretrain(lower, tmp_path / "run", (RATE,)) == 0
    assert "after step 8, optimizer.learning_rate 0.005 -> 0.0001\n" in capfd.readouterr().out
    rates = {line["step"]: line["learning_rate"] for line in read_metrics(tmp_path / "run")}
    assert [rates[step] for step in (8, 9)] == pytest.approx([5e-3, 1e-4])

    assert pretrain(config(total_steps=11, optimizer__learning_rate=1e-4), tmp_path / "run") == 0
    recorded = json.loads((tmp_path / "run" / "config.json").read_text())["changes"]
    assert [(change["step"], change["key"], change["now"]) for change in recorded] == [
        (5, "total_steps", 8),
        (8, RATE, 1e-4),
        (8, "total_steps", 10),
        (10, "total_steps", 11),
    ]


WSD = dict(optimizer__schedule="wsd", optimizer__decay_steps=4)


def test_the_decay_may_change_while_the_rate_is_stable():
    assert refused(10, before=WSD, total_steps=15, optimizer__decay_steps=5) == []
    assert refused(11, before=WSD, total_steps=15, optimizer__decay_steps=5) == []  # its rate is still the peak
    assert refused(13, before=WSD, total_steps=15, optimizer__decay_steps=5) == ["optimizer.decay_steps", "total_steps"]
    assert refused(10, before=dict(optimizer__schedule="constant"), **WSD) == []
    assert refused(10, before=WSD, optimizer__learning_rate=1.0) == [RATE]


def test_a_decay_branches_off_the_stable_part(store, tmp_path):
    """The branch has the bits of a run of its length, and the run that it left goes on as if there were none."""

    def config(**changes):
        fixed = dict(log_every=1, eval__every=0, checkpoint__every=4, checkpoint__keep_last=9)
        return small_config(data__store=str(store.folder), **WSD | fixed | changes)

    def losses(name):
        return {line["step"]: line["loss"] for line in read_metrics(tmp_path / name)}

    assert pretrain(config(total_steps=16), tmp_path / "long") == 0
    assert pretrain(config(total_steps=12), tmp_path / "short") == 0
    before = {path: path.read_bytes() for path in (tmp_path / "long").rglob("*") if path.is_file()}
    assert branch(tmp_path / "long", 8, tmp_path / "branch") == 8
    assert pretrain(config(total_steps=12), tmp_path / "branch") == 0
    assert losses("branch") == losses("short") and losses("branch")[12] != losses("long")[12]
    assert branch(tmp_path / "long", 8, tmp_path / "branch") == 12  # the same command again
    assert {path: path.read_bytes() for path in before} == before
    with pytest.raises(InputError, match="has no checkpoint of step 7; it has those of 4, 8"):
        branch(tmp_path / "long", 7, tmp_path / "other")
    assert not (tmp_path / "other").exists()
    with pytest.raises(InputError, match="is the workdir itself"):
        branch(tmp_path / "long", 8, tmp_path / "long")

"""Phases: what a config may say of them, what their batches are, and that a run crosses them exactly."""

import re

import jax
import numpy as np
import pytest

from spanbert_jax.data.batches import feeds_of
from spanbert_jax.data.mixture import Mixture
from spanbert_jax.data.sources.embedded import embedded_documents
from spanbert_jax.data.store import open_store, write_store
from spanbert_jax.errors import InputError
from spanbert_jax.phases import config_at, phases_of, tokens_until
from spanbert_jax.training.checkpoint import Checkpoints
from spanbert_jax.training.metrics import read_metrics
from spanbert_jax.training.pretrain import pretrain
from spanbert_jax.training.pretraining import all_problems, compiled
from spanbert_jax.training.trained import restore
from tests.small import TOKENIZER, small_config, small_program

PHASES = ("6: seq_len=32 batch_size=32 masking.rate=0.3", "13: model.rope_base=1e5 batch_size=8")


def phased(store, **changes):
    """A run of 20 steps in three phases, with rotary positions."""
    small = dict(
        phases=PHASES,
        model__positions="rotary",
        log_every=1,
        eval__every=5,
        checkpoint__every=5,
        checkpoint__keep_last=9,
    )
    return small_config(data__store=str(store.folder), **(small | changes))


def test_phases_change_what_they_say_and_keep_it():
    config = small_config(phases=PHASES)
    first, second, third = phases_of(config)
    assert [(phase.first, phase.last) for phase in (first, second, third)] == [(0, 6), (6, 13), (13, 20)]
    assert (first.config.seq_len, first.config.batch_size, first.config.masking.rate) == (64, 16, 0.15)
    assert (third.config.seq_len, third.config.batch_size, third.config.model.rope_base) == (32, 8, 1e5)
    assert [config_at(config, step).batch_size for step in (0, 6, 7, 13, 14, 20, 99)] == [16, 16, 32, 32, 8, 8, 8]
    assert tokens_until(config, 10) == 6 * 64 * 16 + 4 * 32 * 32
    (only,) = phases_of(small_config())
    assert (only.first, only.last) == (0, 20)


@pytest.mark.parametrize(
    "phases, said",
    [
        (("10: seq_len=32", "10: batch_size=8"), "after step 10 has no step before the next phase, .* after step 10"),
        (("12: seq_len=32", "10: batch_size=8"), "after step 12 has no step before the next phase, .* after step 10"),
        (("20: seq_len=32",), "after step 20 has no step before the end, total_steps 20"),
        (("0: seq_len=32",), "after step 0 has no step before the next phase"),
        (("seq_len=32",), 'give the number of steps before it .*"90000: seq_len=512'),
        (("10:",), "give the number of steps before it"),
        (("10: model.layers=3",), "model.layers cannot change within a run; what can: seq_len"),
        (("10: seq_len=long",), "needs a value like 512"),
        (("10: seq_len=1000",), "phases, after step 10: seq_len 1000 is longer than the position table"),
        (("10: masking.rate=2",), "phases, after step 10: masking.rate must be at most 1"),
    ],
)
def test_what_phases_cannot_be(phases, said):
    problems = "\n".join(all_problems(small_config(phases=phases), jax.devices()[0]))
    assert re.search(said, problems) and problems.count("\n") == 0


def test_a_batch_that_the_mesh_does_not_divide_is_refused(store, tmp_path):
    with pytest.raises(InputError, match="phases, after step 10: batch_size / accumulation = 12 / 1"):
        pretrain(small_config(data__store=str(store.folder), phases=("10: batch_size=12",)), tmp_path / "run")


@pytest.fixture(scope="module")
def two_stores(tmp_path_factory):
    documents = list(embedded_documents("train"))
    folder = tmp_path_factory.mktemp("stores")
    for name, part in (("one", documents[:9]), ("other", documents[9:14])):
        write_store(folder / name, TOKENIZER, {"train": part, "valid": documents[20:21]})
    return Mixture([open_store(folder / name) for name in ("one", "other")])


def rows_read(feeds):
    """(epoch, row) of all positions of all phases."""
    positions = [np.arange(feed.positions(feed.phase.last)) for feed in feeds]
    return [pair for feed, each in zip(feeds, positions) for pair in zip(*map(np.ndarray.tolist, feed.order.at(each)))]


def test_a_ramp_of_the_batch_size_reads_the_same_rows(two_stores):
    """Of one store and of several."""
    for mixture in (two_stores, Mixture(two_stores.stores[:1])):
        ramp = small_config(total_steps=60, phases=("10: batch_size=8", "30: batch_size=4"), eval__every=0)
        steady = small_config(total_steps=55, batch_size=8, eval__every=0)
        feeds = feeds_of(ramp, mixture, TOKENIZER)
        assert feeds[0].train is feeds[2].train
        assert rows_read(feeds) == rows_read(feeds_of(steady, mixture, TOKENIZER))


def test_other_weights_go_on_in_the_epochs_of_each_store(two_stores):
    config = small_config(total_steps=60, data__weights=(0.8, 0.2), phases=("30: data.weights=0.1,0.9",), eval__every=0)
    before, after = feeds_of(config, two_stores, TOKENIZER)
    begun, drawn = before.drawn(30), after.drawn(60)
    assert (after.drawn(30) == begun).all() and drawn.sum() == 60 * 16
    share = (drawn - begun) / (30 * 16)
    assert begun[0] / begun.sum() == pytest.approx(0.8, abs=0.08) and share[1] == pytest.approx(0.9, abs=0.08)


def test_rows_of_another_length_go_on_at_the_same_share_of_an_epoch(store):
    config = small_config(data__store=str(store.folder), phases=("10: seq_len=32",))
    long, short = feeds_of(config, Mixture([store]), TOKENIZER)
    assert short.drawn(10)[0] / short.train.num_rows == pytest.approx(long.drawn(10)[0] / long.train.num_rows, abs=0.01)


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("phases") / "run"
    assert pretrain(phased(store), workdir) == 0
    return workdir


def state_of(workdir, step=20):
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    state = checkpoints.read(step)
    checkpoints.close()
    return jax.tree.leaves(state)


def test_a_run_names_its_phases(run, store):
    lines = [line for line in read_metrics(run) if "loss" in line]
    assert [line["phase"] for line in lines] == [1] * 6 + [2] * 7 + [3] * 7
    trained, _ = restore(run, 20)
    assert trained.config.seq_len == 32 and trained.spec.rope_base == 1e5
    assert restore(run, 5)[0].config.seq_len == 64


def test_stops_within_and_between_phases_change_no_bit(run, store, tmp_path):
    stops = iter([5, 10, 15])

    def stop(step, metrics):
        return step == next(stops, None)

    for _ in range(4):
        assert pretrain(phased(store), tmp_path / "run", watch=stop) == 0
    for one, other in zip(state_of(tmp_path / "run"), state_of(run)):
        assert np.array_equal(one, other)


def test_phases_are_the_changes_that_allow_makes(store, tmp_path):
    """A change of the masks at a step is the same by either way."""

    def common(**changes):
        return small_config(**dict(data__store=str(store.folder), eval__every=0) | changes)

    assert pretrain(common(phases=("10: masking.rate=0.3",)), tmp_path / "phases") == 0
    ends = common(eval__every=10)
    assert pretrain(ends, tmp_path / "allowed", watch=lambda step, metrics: step == 10) == 0
    assert pretrain(common(masking__rate=0.3), tmp_path / "allowed", ("masking.rate",)) == 0
    for one, other in zip(state_of(tmp_path / "phases"), state_of(tmp_path / "allowed")):
        assert np.array_equal(one, other)


def test_phases_to_come_may_change_and_earlier_ones_may_not(run, store, tmp_path):
    later, earlier = (*PHASES[:1], "15: batch_size=8"), ("7: seq_len=32", *PHASES[1:])
    stopped = tmp_path / "run"
    assert pretrain(phased(store), stopped, watch=lambda step, metrics: step == 10) == 0
    with pytest.raises(InputError, match="phases: "):
        pretrain(phased(store, phases=earlier), stopped)
    assert pretrain(phased(store, phases=later), stopped) == 0


def test_a_run_beyond_its_lowered_length_is_done(store, tmp_path, capsys):
    steady = dict(optimizer__schedule="constant", phases=(), eval__every=0)
    assert pretrain(phased(store, total_steps=6, **steady), tmp_path / "run") == 0
    assert pretrain(phased(store, total_steps=4, **steady), tmp_path / "run") == 0
    assert "done before: 6 steps" in capsys.readouterr().out


def test_phases_of_the_same_shapes_share_their_program():
    config = small_config(phases=("5: masking.geometric_p=0.3", "10: batch_size=8"))
    phases = phases_of(config)
    programs = [small_program(phase.config, 1) for phase in phases]
    first, second, third = compiled(phases, programs, 0, print)
    assert first is second and third is not second
    assert compiled(phases, programs, 10, print)[0] is programs[0]  # it is over

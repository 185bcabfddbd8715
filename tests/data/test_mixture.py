"""Several stores as one corpus: their rows, their shares, and the batches of a feed."""

import itertools
import shutil

import numpy as np
import pytest

from spanbert_jax.data.batches import Feed, open_corpus
from spanbert_jax.data.mixture import MixedRows, Mixture, unknown_warnings, weights_of
from spanbert_jax.data.order import Order
from spanbert_jax.data.store import open_store, write_store
from spanbert_jax.errors import InputError
from tests.small import TOKENIZER, small_config

TEXTS = {"poems": "The rose is red , the violet blue .", "laws": "It shall be lawful for the House to adjourn ."}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Makes two stores with different texts, the second three times as large."""
    root = tmp_path_factory.mktemp("stores")
    for copies, (name, line) in zip((20, 60), TEXTS.items()):
        documents = [[f"{line} {number}" for number in range(number, number + 12)] for number in range(copies)]
        write_store(root / name, TOKENIZER, {"train": documents, "valid": documents[:9]})
    return root


def mixed(folders, **changes):
    stores = ",".join(str(folders / name) for name in TEXTS)
    config = small_config(data__store=stores, data__max_blocks_per_row=1, **changes)
    mixture = open_corpus(config, TOKENIZER, folders, None)
    return Feed(config, mixture, TOKENIZER), mixture


def source_of(batch, row):
    """Returns the text that a row is from, by its words; masks hide too few of them to matter."""
    text = TOKENIZER.decode(batch["tokens"][row]).lower()
    return "poems" if sum(word in text for word in ("rose", "violet", "red", "blue")) > 2 else "laws"


def test_rows_of_the_stores_are_numbered_consecutively(folders):
    feed, mixture = mixed(folders)
    rows = feed.train
    assert rows.num_rows == sum(rows.sizes) and isinstance(rows, MixedRows)
    ids = np.random.default_rng(0).permutation(rows.num_rows)
    together = rows.read(ids)
    for index, number in enumerate(ids):
        corpus = int(number >= rows.sizes[0])
        alone = rows.parts[corpus].read(np.array([number - corpus * rows.sizes[0]]))
        for name, field in alone.items():
            assert np.array_equal(together[name][index], field[0])
    assert mixture.totals()["train"]["num_documents"] == 80
    assert mixture.token_counts("train").sum() == mixture.totals()["train"]["num_tokens"]


SHARES = {"weights": dict(data__weights=(0.9, 0.1)), "size": dict(), "equal": dict(data__temperature=1e9)}


@pytest.mark.parametrize("changes", SHARES.values(), ids=SHARES)
def test_batches_have_the_configured_shares(folders, changes):
    feed, _ = mixed(folders, **changes)
    steps = 40
    batches = list(itertools.islice(feed.training(0), steps))
    found = [source_of(batch, row) for batch in batches for row in range(16)]
    drawn = dict(zip(feed.names, feed.drawn(steps).tolist()))
    assert {name: found.count(name) for name in TEXTS} == drawn  # counted without reading a row
    by_size = weights_of(feed.train.sizes, (0.0,), changes.get("data__temperature", 1.0))
    weights = changes.get("data__weights", by_size)
    share = weights[0] / sum(weights)
    assert drawn["poems"] / (16 * steps) == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / (16 * steps)))
    resumed = next(feed.training(17))
    assert all(np.array_equal(resumed[name], batches[17][name]) for name in resumed)


def test_held_out_batches_of_each_store_are_those_of_the_store_alone(folders):
    feed, mixture = mixed(folders, eval__max_rows=8)
    for store, name in zip(mixture.stores, feed.names):
        alone = Feed(small_config(data__max_blocks_per_row=1, eval__max_rows=4), Mixture([store]), TOKENIZER)
        ours, theirs = next(feed.held_out(name)), next(alone.held_out(name))
        assert ours["segments"].any(1).sum() == 4  # half of eval.max_rows
        assert all(np.array_equal(ours[field], theirs[field]) for field in ours if not field.startswith("tokens"))


def test_names_and_fingerprint(folders):
    poems, laws = (open_store(folders / name) for name in TEXTS)
    assert Mixture([poems]).fingerprint == poems.fingerprint
    mixtures = Mixture([poems]), Mixture([poems, laws]), Mixture([laws, poems])
    assert len({mixture.fingerprint for mixture in mixtures}) == 3
    assert Mixture([poems, laws]).names == ["poems", "laws"]


def test_stores_with_the_same_last_name_have_their_paths_as_names(folders, tmp_path):
    (tmp_path / "poems").symlink_to(folders / "laws")
    paths = [str(folder / "poems") for folder in (folders, tmp_path)]
    assert Mixture([open_store(path) for path in paths]).names == paths


def test_a_store_is_named_once(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(folders)
    (tmp_path / "link").symlink_to(folders / "poems")
    shutil.copytree(folders / "poems", tmp_path / "copy")
    for other in ("poems", "./poems/", "laws/../poems", tmp_path / "link", tmp_path / "copy"):
        config = small_config(data__store=f"laws,{folders / 'poems'},{other}")
        with pytest.raises(InputError) as error:
            open_corpus(config, TOKENIZER, folders, None)
        assert str(error.value).startswith(f"data.store: {folders / 'poems'}, {other} have the same content; name one")
    laws, poems = open_store("laws"), open_store("poems")
    with pytest.raises(InputError) as error:
        Mixture([laws, poems, poems, laws, poems])
    assert [line.count(",") for line in str(error.value).splitlines()] == [2, 3]


def test_any_temperature_gives_shares():
    assert weights_of([100, 400], (0.0,), 2.0) == [10, 20]
    assert weights_of([10**6, 2 * 10**6, 2 * 10**6], (0.0,), 1e-3) == pytest.approx([0, 1, 1])
    assert Order([10**6, 2 * 10**6], weights_of([10**6, 2 * 10**6], (0.0,), 1e-3), 0).shares.tolist() == [1, 65535]


def test_weights_must_fit_the_stores(folders):
    with pytest.raises(InputError, match="3 of them for the 2 stores"):
        mixed(folders, data__weights=(0.2, 0.3, 0.5))


def test_too_many_unknown_tokens_are_warned_of(folders, tmp_path):
    for name, count in (("some", 1), ("many", 2)):
        text = ["the " * (100 - count) + "☃ " * count]
        write_store(tmp_path / name, TOKENIZER, {"train": [text], "valid": []})
    stores = [open_store(path) for path in (folders / "laws", tmp_path / "some", tmp_path / "many")]
    [line] = unknown_warnings(stores, TOKENIZER)
    assert line.startswith(f"warning: 2.0% of the tokens of {tmp_path / 'many'} are [UNK]") and "cased" in line

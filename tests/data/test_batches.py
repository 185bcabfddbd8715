"""What the stores of a config lack is named at once, before rows are planned."""

import pytest

from spanbert_jax.data import batches as batches_module
from spanbert_jax.data.batches import Feed
from spanbert_jax.data.mixture import Mixture
from spanbert_jax.data.store import open_store, write_store
from spanbert_jax.errors import InputError
from tests.small import TOKENIZER, small_config

LINE = "In the beginning was the word ."
LONG = " ".join([LINE] * 20)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Makes stores without held-out text and tags, and one whose sentences fit no row; by name."""
    root = tmp_path_factory.mktemp("stores")
    texts = {
        "plain": {"train": [[LINE] * 3] * 4, "valid": []},
        "other": {"train": [[LINE] * 4] * 4, "valid": []},
        "long": {"train": [[LONG] * 3] * 4, "valid": [[LONG]]},
        "longer": {"train": [[LONG, LINE, LONG]] * 4, "valid": [[LINE, LONG, LONG]]},
    }
    for name, splits in texts.items():
        write_store(root / name, TOKENIZER, splits)
    return {name: open_store(root / name) for name in texts}


def problems(stores, **changes):
    with pytest.raises(InputError) as error:
        Feed(small_config(**changes), Mixture(stores), TOKENIZER)
    return str(error.value).splitlines()


def test_all_that_stores_lack_is_named_before_rows_are_planned(stores, monkeypatch):
    monkeypatch.delattr(batches_module, "build_rows")
    changes = dict(masking__schemes=("named_entity", "noun_phrase"), masking__weights=(1.0, 1.0))
    lines = problems([stores["plain"], stores["other"]], **changes)
    assert [line.split(": ")[0].rpartition("/")[2] for line in lines] == ["plain", "plain", "other", "other"]
    for tags, held_out in (lines[:2], lines[2:]):
        assert "masking.schemes = named_entity, noun_phrase" in tags and "prepare_data.py --tags" in tags
        assert "--valid_fraction of scripts/prepare_data.py, or give eval.every = 0" in held_out


def test_a_store_without_held_out_text_is_trained_on_but_has_no_evaluation(stores):
    feed = Feed(small_config(eval__every=0), Mixture([stores["plain"]]), TOKENIZER)
    assert list(feed.held_out("plain")) == []
    assert next(feed.training(0))["segments"].any()


def test_text_that_is_lost_altogether_is_named(stores):
    long = [stores["long"], stores["longer"]]
    lines = problems(long, data__long_sentences="lose", eval__every=0)
    assert [line.split(": ")[0].rpartition("/")[2] for line in lines] == ["long", "longer"]
    assert all("train split at seq_len = 64" in line and "data.long_sentences = cut" in line for line in lines)
    assert Feed(small_config(), Mixture(long), TOKENIZER).train.num_rows

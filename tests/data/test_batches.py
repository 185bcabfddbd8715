"""The corpus that a config names: its format, what is skipped in it, and what its stores lack."""

import json
import re

import pytest

from spanbert_jax.config import load_config
from spanbert_jax.data import batches as batches_module
from spanbert_jax.data.batches import Feed, data_problems, open_corpus
from spanbert_jax.data.mixture import Mixture
from spanbert_jax.data.store import open_store, write_store
from spanbert_jax.data.tokenizer import load_tokenizer
from spanbert_jax.errors import InputError
from tests.data.sources.test_wiki import TEXT as ARTICLES
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


def open_text(folder, *overrides, tokenizer=TOKENIZER):
    """(number of training documents, what was logged) of the text that a config names."""
    logged = []
    config = load_config("spanbert:tiny", ["data.valid_fraction=0", "eval.every=0", *overrides])
    mixture = open_corpus(config, tokenizer, folder, logged.append)
    return mixture.stores[0].split("train").num_documents, logged


def test_format_by_name_and_by_key(tmp_path):
    (tmp_path / "c4-train.00000-of-01024.json").write_text('{"text": "the cat", "url": "x"}\n')
    (tmp_path / "wiki_00").write_text(ARTICLES)
    c4, wiki = f"data.source={tmp_path}/c4*.json", f"data.source={tmp_path}/wiki_*"
    assert open_text(tmp_path / "c4", c4)[0] == 1
    assert open_text(tmp_path / "wiki", wiki, "data.format=wiki")[0] == 3
    with pytest.raises(
        InputError, match=r"output of WikiExtractor, not plain text; give its format, wiki \(data.format\)$"
    ):
        open_text(tmp_path / "text", wiki)


def test_an_unknown_format_is_a_problem():
    problems = data_problems(load_config("spanbert:tiny", ["data.format=csv"]))
    assert problems == ["data.format must be one of auto, text, jsonl, json, parquet, wiki, not 'csv'"]


def test_what_is_skipped_is_logged_once(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, [{"text": "the cat"}, {"body": "x"}, {"text": "sat"}])))
    (tmp_path / "b.txt").write_text("")
    source = f"data.source={tmp_path}/*.*"
    documents, logged = open_text(tmp_path / "run", source)
    assert documents == 2 and logged[1:] == [
        f"skipped 1 file without text: {tmp_path}/b.txt: it is empty",
        f"skipped 1 record without the field of the text: {tmp_path}/a.jsonl, line 2: no field 'text' (it has 'body')",
    ]
    assert open_text(tmp_path / "run", source) == (2, [])


def test_advice_names_what_the_user_of_a_config_can_give(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"body": "the cat"}\n')
    for overrides, advice in (
        ([f"data.source={tmp_path}/none*"], "separated by commas (data.source)"),
        (
            [f"data.source={tmp_path}/a.jsonl"],
            "name the field with the text (--field of scripts/prepare_data.py; then name its store in data.store)",
        ),
        (
            [f"data.source={tmp_path}/a.jsonl", "data.format=text", "data.valid_fraction=1e-9"],
            "hold out a larger share than 1e-09, or 0 for none (data.valid_fraction)",
        ),
    ):
        with pytest.raises(InputError) as error:
            open_text(tmp_path / "run", *overrides)
        assert str(error.value).endswith(advice)


def test_a_store_of_other_text_is_refused(tmp_path):
    """A run's store, made before the run was stopped, is compared with the config that would make it now."""
    (tmp_path / "a.txt").write_text("the cat\n\nthe dog\n")
    (tmp_path / "b.txt").write_text("the sun\n\nthe sea\n")
    a, b = (f"data.source={tmp_path}/{name}.txt" for name in "ab")
    assert open_text(tmp_path / "run", a)[0] == 2
    assert open_text(tmp_path / "run", a, "seq_len=64", "data.lowercase=no") == (2, [])
    for overrides, said in (
        ([b], f"input was '{tmp_path}/a.txt', now '{tmp_path}/b.txt'"),
        ([a, "data.valid_fraction=0.5"], "valid_fraction was 0.0, now 0.5"),
        ([a, "data.format=text"], "format was 'auto', now 'text'"),
    ):
        with pytest.raises(InputError, match=re.escape(said)) as error:
            open_text(tmp_path / "run", *overrides)
        assert f"remove {tmp_path}/run/store to make it again" in str(error.value)
    with pytest.raises(InputError, match="made with another vocabulary"):
        open_text(tmp_path / "run", a, tokenizer=load_tokenizer("cased", "auto"))
    (tmp_path / "a.txt").write_text("the cat\n\nthe dogs\n")
    with pytest.raises(InputError, match=r"the input has changed \(17 bytes before, 18 now\)"):
        open_text(tmp_path / "run", a)
    (tmp_path / "run" / "checkpoints" / "step_5").mkdir(parents=True)
    assert open_text(tmp_path / "run", a)[0] == 2  # a run goes on with the text that it began with
    with pytest.raises(InputError, match="was made of other text"):
        open_text(tmp_path / "run", b)


def test_keys_that_describe_other_text_than_a_named_store_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("the cat\n\nthe dog\n")
    open_text(tmp_path / "run", f"data.source={tmp_path}/a.txt")
    store = f"data.store={tmp_path}/run/store"
    assert open_text(tmp_path, store)[0] == 2
    assert open_text(tmp_path, store, f"data.source={tmp_path}/a.txt")[0] == 2
    with pytest.raises(InputError) as error:
        open_text(tmp_path, store, "data.source=b.txt", "data.valid_fraction=0.2")
    lines = str(error.value).splitlines()
    assert [line.split(",")[0] for line in lines] == ["data.source is 'b.txt'", "data.valid_fraction is 0.2"]
    assert all("leave that key out, since data.store names the text" in line for line in lines)

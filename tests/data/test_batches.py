"""The corpus that a config names: its format, what was skipped in it, and advice that names keys."""

import json

import pytest

from spanbert_jax.config import load_config
from spanbert_jax.data.batches import data_problems, open_corpus
from spanbert_jax.data.tokenizer import load_tokenizer
from spanbert_jax.errors import InputError
from tests.data.sources.test_wiki import TEXT as ARTICLES

TOKENIZER = load_tokenizer("tiny", "auto")


def open_text(folder, *overrides):
    """(number of training documents, what was logged) of the text that a config names."""
    logged = []
    config = load_config("spanbert:tiny", ["data.valid_fraction=0", "eval.every=0", *overrides])
    mixture = open_corpus(config, TOKENIZER, folder, logged.append)
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

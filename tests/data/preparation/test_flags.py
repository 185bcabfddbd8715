"""Flags of a preparation: defaults, what they are read as, and the advice on how to pretrain."""

import argparse

import pytest

from spanbert_jax.configs import base
from spanbert_jax.data.preparation.flags import add_flags, pretrain_advice, read_flags

CONFIG = base.get_config()


def parsed(*flags):
    parser = argparse.ArgumentParser()
    add_flags(parser, CONFIG)
    return read_flags(parser.parse_args(["--input=text.txt", *flags]))


def test_defaults_shared_with_runs_are_those_of_the_config():
    settings, execution = parsed()
    assert settings.vocab == CONFIG.data.vocab and settings.lowercase == CONFIG.data.lowercase
    assert settings.valid_fraction == CONFIG.data.valid_fraction and settings.seq_len == CONFIG.seq_len
    assert settings.tags == execution.beam_options == () and execution.workers == 0
    settings.check()


def test_values_have_the_types_of_the_fields():
    settings, execution = parsed("--min_words=3", "--near_threshold=1", "--workers=2", "--beam_options=--a=1 --b='x y'")
    assert (settings.min_words, settings.near_threshold, execution.workers) == (3, 1.0, 2)
    assert execution.beam_options == ("--a=1", "--b=x y")


def test_a_list_of_ngrams_adds_its_tag_once():
    assert parsed("--tags=entities, phrases")[0].tags == ("entities", "phrases")
    assert parsed("--tags=ngrams,entities", "--ngrams=list.txt")[0].tags == ("ngrams", "entities")
    assert parsed("--ngrams=list.txt")[0].tags == ("ngrams",)


@pytest.mark.parametrize(
    "flag, of_the_store", [("--seq_len=64", False), ("--vocab=tiny", True), ("--train_vocab=500", True)]
)
def test_advice_names_the_vocabulary_of_the_store_where_it_is_not_the_default(flag, of_the_store):
    advice = pretrain_advice(parsed(flag)[0], "folder", CONFIG)
    assert "--config.data.store=folder" in advice
    assert ("--config.data.vocab=store" in advice) == of_the_store

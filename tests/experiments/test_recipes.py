"""The comparison of the quickstart's recipe with the plain one, on models shrunk to a few steps."""

import types

from spanbert_jax.experiments import recipes
from tests.small import small_config


def test_figures_of_both_recipes(store, monkeypatch):
    def module(**changes):
        config = small_config(data__store=str(store.folder), total_steps=10, eval__every=10, **changes)
        return types.SimpleNamespace(get_config=lambda variant: config)

    modules = {"plain": module(), "modern": module(optimizer__name="muon", log_every=2)}
    monkeypatch.setattr(recipes, "RECIPES", modules)
    figures = recipes.recipes()
    for name in modules:
        assert figures[f"{name}_steps"] == 10 and figures[f"{name}_training_seconds"] > 0
        assert -2 < figures[f"{name}_nats_below_unigram"] < 2

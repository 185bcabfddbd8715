"""The arms of configs/suites.py: each is a valid config, and differs in what its name says alone."""

import pytest

from spanbert_jax.config import changed, load_config, sweep_of, with_changes
from spanbert_jax.configs import modern, spanbert
from spanbert_jax.experiments.pretraining_quality import MASKS
from spanbert_jax.model.encoder import model_problems
from spanbert_jax.model.extensions import EXTENSIONS
from spanbert_jax.training.pretraining import all_problems


class Cpu:
    """A device to check configs for."""

    platform = device_kind = "cpu"


ARMS = {"parts": 12, "masks": 8, "table6": 3, "table7": 3, "extensions": 4}


@pytest.mark.parametrize("suite", ARMS)
def test_every_arm_is_valid_and_has_its_own_name(suite):
    spec = f"suites:{suite}"
    config, arms = load_config(spec), sweep_of(spec)
    assert len({arm["name"] for arm in arms}) == len(arms) == ARMS[suite]
    for arm in arms:
        assert all_problems(with_changes(config, arm), Cpu()) == [], arm["name"]
        assert with_changes(config, arm).eval.masking == config.eval.masking == MASKS


def test_parts_lead_from_the_one_recipe_to_the_other():
    config, arms = load_config("suites:parts"), sweep_of("suites:parts")
    first, last = (with_changes(config, arm) for arm in (arms[0], arms[6]))
    bert, today = spanbert.get_config("tiny"), modern.get_config("tiny")
    differing = {key for key in bert.model if first.model[key] != bert.model[key]}
    assert not differing and first.optimizer.name == "adamw"
    assert last.model.to_dict() == today.model.to_dict() and last.optimizer.to_dict() == today.optimizer.to_dict()
    assert last.masking.rate == 0.3
    assert arms[5]["name"] == "+ Muon" and "masking.rate" in arms[5]
    assert not model_problems(first)


def test_every_extension_is_an_arm():
    named = [name for arm in sweep_of("suites:extensions") for name in arm.get("model.extensions", ())]
    assert set(named) == set(EXTENSIONS)


def test_tables_of_the_paper_are_the_variants_of_its_ablations():
    for suite in ("table6", "table7"):
        config = load_config(f"suites:{suite}")
        for arm in sweep_of(f"suites:{suite}"):
            expected = load_config(f"ablations:{arm['name']}-tiny")
            assert set(changed(expected, with_changes(config, arm))) == set()

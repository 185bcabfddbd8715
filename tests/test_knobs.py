"""Knobs: what they allow, and those that are declared from outside."""

import pytest

from spanbert_jax import knobs
from spanbert_jax.config import changed, config_problems, known_knobs, load_config
from spanbert_jax.configs import base
from spanbert_jax.errors import InputError
from spanbert_jax.knobs import Execution, Knob, at_least, at_most, below, declare, fraction, one_of, positive


@pytest.mark.parametrize(
    "knob, good, bad",
    [
        (Knob(3, "", at_least(1)), [1, 10], [0, 1.5, "3", True]),
        (Knob(3, "", at_least(0), below(8, "eight")), [0, 7], [-1, 8]),
        (Knob(0.5, "", fraction), [0, 0.99, 0.0], [1.0, -0.1, "x"]),
        (Knob(0.5, "", positive, at_most(1)), [1, 0.1], [0, 1.1]),
        (Knob("a", "", one_of("a", "b")), ["b"], ["c", 1]),
        (Knob(False, ""), [True], [1, "yes"]),
        (Knob((0.0,), ""), [(1.0, 2), ()], [[1.0], ("a",), 1.0]),
        (Knob((), "", item=str), [("a",), ()], [(1,)]),
    ],
)
def test_values_are_checked_by_type_and_range(knob, good, bad):
    assert [knob.problem(value) for value in good] == [None] * len(good)
    assert all(knob.problem(value) for value in bad)


def test_every_knob_of_the_base_has_a_meaning_and_an_allowed_default():
    for key, knob in knobs.flat(base.KNOBS).items():
        assert knob.meaning and knob.problem(knob.default) is None, key


def test_a_declared_knob_is_one_like_the_others(monkeypatch):
    monkeypatch.setattr(knobs, "DECLARED", {})
    declare("model.novelty", Knob(2, "how new", at_least(1)))
    declare("log_color", Execution("red", "of the log"))
    config = load_config("spanbert:tiny", ["model.novelty=3"])
    assert config.model.novelty == 3 and config.log_color == "red"
    assert changed(config, load_config("spanbert:tiny", ["log_color=blue"])) == {"model.novelty": (3, 2)}
    config = load_config("spanbert:tiny", ["model.novelty=0"])
    assert config_problems(config) == ["model.novelty must be at least 1, not 0"]
    with pytest.raises(ValueError, match="declared twice"):
        declare("model.novelty", Knob(5, "another"))
    monkeypatch.setattr(knobs, "DECLARED", {})
    assert "model.novelty" not in known_knobs()
    with pytest.raises(InputError, match="no key 'model.novelty'"):
        load_config("spanbert:tiny", ["model.novelty=3"])

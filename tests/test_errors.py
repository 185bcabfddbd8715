"""Errors know which setting helps; the command that runs says how it is given."""

import pickle

import pytest

from spanbert_jax.errors import DoesNotFit, InputError, settings_named


def test_each_line_says_how_the_setting_is_given():
    with pytest.raises(InputError) as error, settings_named(lambda name: f"--{name}"):
        raise InputError("a: name the field\nb: name the field", "field")
    assert str(error.value) == "a: name the field (--field)\nb: name the field (--field)"


@pytest.mark.parametrize("raised", [InputError("without a setting"), DoesNotFit("too large", 7)])
def test_other_errors_pass_unchanged(raised):
    with pytest.raises(InputError) as error, settings_named(lambda name: f"--{name}"):
        raise raised
    assert error.value is raised


def test_the_setting_survives_the_way_from_a_worker():
    error = pickle.loads(pickle.dumps(InputError("message", "field")))
    assert (str(error), error.setting) == ("message", "field")

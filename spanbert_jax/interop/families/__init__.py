"""The registry of families of models in transformers that encoders are read from and written as."""

from ml_collections import ConfigDict

from spanbert_jax.errors import InputError
from spanbert_jax.interop.families.bert import BERT
from spanbert_jax.interop.families.family import Family, no_counterpart
from spanbert_jax.interop.families.modernbert import MODERNBERT

FAMILIES = (BERT, MODERNBERT)


def family_of(config: ConfigDict) -> Family | None:
    """Returns the family that has the encoder of a config, None if there is none."""
    return next((family for family in FAMILIES if not family.differences(config)), None)


def required_family(config: ConfigDict) -> Family:
    """Returns the family that has the encoder of a config.

    Raises:
      InputError: there is none; the error names the settings that keep it from the family that is closest.
    """
    if family := family_of(config):
        return family
    closest = min(FAMILIES, key=lambda family: len(family.differences(config)))
    raise no_counterpart(f"transformers' {closest.title}", closest.differences(config))


def model_fields(hf_config: dict, source: str) -> dict:
    """Returns {"layers": 12, "norm": "layer", ...}: the keys of config.model that a config.json determines.

    Raises:
      InputError: the config is of no family, has a setting that encoders here lack, or lacks a size.
    """
    kind = hf_config.get("model_type", BERT.model_type)
    family = next((family for family in FAMILIES if family.model_type == kind), None)
    if family is None:
        known = " or ".join(repr(family.model_type) for family in FAMILIES)
        raise InputError(f"{source}: model_type is {kind!r}, must be {known}")
    fields, problems = family.fields(hf_config)
    if problems:
        raise InputError(f"{source}: not the config of a {family.title} encoder: {'; '.join(problems)}")
    return fields

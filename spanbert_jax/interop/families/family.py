"""A family of models in transformers whose encoder is one of ours; a new family is a file and an entry of FAMILIES.

All families share one form of weights in this project, BERT's names as names.py has them; a family converts this form
to its own tensors and back.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from ml_collections import ConfigDict

from spanbert_jax.errors import InputError
from spanbert_jax.interop.names import Weights


@dataclasses.dataclass(frozen=True)
class Family:
    """What transformers calls a model, and how its files differ from the common form."""

    title: str  # for people
    model_type: str  # in config.json
    # Class of BERT in transformers -> the family's. Heads whose class is not among them are written to files beside.
    classes: Mapping[str, str]
    inputs: Sequence[str]  # arguments that the tokenizer makes for the model
    has_pooler: bool  # whether its class without heads has a pooler unless asked not to
    # config -> the settings of its encoder that the family lacks, one text each.
    differences: Callable[[ConfigDict], list[str]]
    tensors: Callable[[Weights], Weights]  # common form -> the family's
    common: Callable[[Weights], Weights]  # tensors of any family -> the same, those of this family in the common form
    settings: Callable[[ConfigDict], dict]  # config -> keys of config.json that describe the encoder
    # config.json -> keys of config.model that it determines, and what keeps it from being read, one text each.
    fields: Callable[[dict], tuple[dict, list[str]]]


def missing_sizes(hf_config: dict, required: Sequence[str]) -> list[str]:
    """Returns a problem for each required key that a config.json lacks."""
    return [f"{key} is missing" for key in required if key not in hf_config]


def unlike(config: ConfigDict, values: Mapping[str, object]) -> list[str]:
    """Returns the settings of a config's encoder that differ from these values of config.model, one text each."""
    return [f"model.{key} is {config.model[key]!r}" for key, value in values.items() if config.model[key] != value]


def no_counterpart(title: str, differences: Sequence[str]) -> InputError:
    """Returns the error of an encoder that a format lacks."""
    return InputError(f"{title} has no counterpart for this encoder: {', '.join(differences)}; --format=stablehlo has")

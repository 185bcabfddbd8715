"""Objectives of pretraining: one record per file, and the registry. spanbert_jax.data.targets makes their targets."""

from spanbert_jax.objectives.mlm import MLM
from spanbert_jax.objectives.nsp import NSP
from spanbert_jax.objectives.objective import Objective
from spanbert_jax.objectives.sbo import SBO

OBJECTIVES: dict[str, Objective] = {objective.name: objective for objective in (MLM, SBO, NSP)}

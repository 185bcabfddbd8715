"""Every problem of a config that shows without a corpus, told at once."""

from jax.sharding import Mesh

from spanbert_jax import config as config_lib
from spanbert_jax.data import batches as batches_lib
from spanbert_jax.errors import InputError
from spanbert_jax.model import spec as model_spec
from spanbert_jax.model.flash import platform_of
from spanbert_jax.training import sharding


def problems_of(config, device) -> list[str]:
    """What is wrong on such a device, however many there are, one line each."""
    return config_lib.validate(config) + batches_lib.validate(config) + model_spec.validate(config, platform_of(device))


def checked_mesh(config, devices, slices: int = 0) -> Mesh:
    """The mesh of a config over these devices, after every check that needs no corpus.

    slices: that the devices are in, where they do not say so themselves (see sharding.make_mesh) and mesh.slices does not either.

    Raises:
      InputError: with all problems, one a line.
    """
    problems = problems_of(config, devices[0])
    mesh_config = config.mesh.copy_and_resolve_references()
    mesh_config.slices = mesh_config.slices or slices
    mesh = None
    try:
        mesh = sharding.make_mesh(mesh_config, devices)
    except InputError as error:
        problems += str(error).splitlines()
    if mesh is not None and config.accumulation >= 1:
        problems += sharding.validate(config, mesh.shape)
    if problems:
        raise InputError("\n".join(problems))
    return mesh

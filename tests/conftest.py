"""Eight CPU devices for every test: the meshes of a slice, on one machine."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import pytest  # noqa: E402  (after the environment that jax reads on import)


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """A small tokenised part of the embedded corpus."""
    from tests.small import small_store
    return small_store(tmp_path_factory.mktemp("corpus") / "store")

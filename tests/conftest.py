"""Eight CPU devices for every test: the meshes of a slice, on one machine. And one compile cache for all test
processes.
"""

import atexit
import os
import shutil
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
# Programs of tests run for milliseconds and compile for seconds, so the compiler is told not to try hard.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers have it from the process that started them
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(
        prefix="spanbert_jax_tests_"
    )  # what several tests compile is compiled once
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.5"

import pytest


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """A small tokenised part of the embedded corpus."""
    from tests.small import small_store

    return small_store(tmp_path_factory.mktemp("corpus") / "store")

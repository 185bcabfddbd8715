"""Memory that processes on a CPU keep from step to step."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STEPS = """
import resource
from spanbert_jax.memory import keep_memory, return_memory
{call}
import jax, jax.numpy as jnp
step = jax.jit(lambda x: ((x @ x.T) @ x).sum())
x = jnp.ones((3000, 32))  # and 36 MB in between
faults = []
for _ in range(24):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(x).block_until_ready()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

before = resident()
return_memory()
print(sorted(faults)[len(faults) // 2], before - resident())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_steps_on_the_cpu_reuse_memory_until_it_is_returned():
    """Pages that the system has to clear in a step, which needs thousands, with and without, and what is returned."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    environment = environment | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    (without, _), (kept, returned), (tuned, _) = (
        map(
            int,
            subprocess.run(
                [sys.executable, "-c", STEPS.format(call=call)],
                env=environment | more,
                capture_output=True,
                text=True,
                check=True,
            ).stdout.split()[-2:],
        )
        for call, more in (("", {}), ("keep_memory()", {}), ("keep_memory()", {"MALLOC_ARENA_MAX": "8"}))
    )
    assert without > 4_000 and tuned > 4_000 and kept < 400
    assert returned > 30e6

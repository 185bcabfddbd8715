"""Memory of a process whose steps run on the CPU.

XLA allocates the intermediate arrays of each step again, several GiB for a small model. By default glibc returns them
to the system after the step, which then clears every page again: a fifth to a third of a step.
"""

import ctypes
import glob
import os
import sys

# What accelerators look like on Linux: GPUs of NVIDIA and AMD, and TPUs.
ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/accel*", "/dev/vfio/[0-9]*")
# Parameters of mallopt(3), as (number, value): one arena, no blocks of their own in the address space, no trimming.
KEEP = ((-8, 1), (-4, 0), (-1, -1))


def keep_memory() -> None:
    """Lets this process reuse the memory that it frees; call it before jax starts threads.

    It then keeps its largest size until return_memory. This is for steps of one shape, as in pretraining: batches of
    several sizes, as in fine-tuning, leave gaps between arrays, and take half as much memory again or more.
    Accelerators have their own memory, and settings of the user in the environment prevail.
    """
    platforms = os.environ.get("JAX_PLATFORMS", "")
    on_cpu = platforms == "cpu" or not (platforms or any(map(glob.glob, ACCELERATORS)))
    is_tuned = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    mallopt = _glibc("mallopt")
    if mallopt and on_cpu and not is_tuned:
        for number, value in KEEP:
            mallopt(number, value)


def return_memory() -> None:
    """Returns free memory to the system.

    Call it where arrays of other sizes follow, as after a run or an evaluation: what is free lies between small blocks
    that are not, so that programs that run one after another would otherwise take the sum of their sizes.
    """
    if trim := _glibc("malloc_trim"):
        trim(0)


def _glibc(name: str):
    """Returns a function of glibc, None with another C library."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None

"""Names of topologies, and what must be set before jax is imported to compile for one. Imports no jax."""

import contextlib
import dataclasses
import math
import os
import re
import sys

from spanbert_jax.errors import InputError

KNOWN = (
    "v5e:16x16, v6e:8x8, v4:4x4x4, v5p:2x2x4, 2*v5e:16x16 (two slices joined by the data-centre network), "
    "h100:8, h100:4x8 (4 nodes of 8), a100:8, cpu:8"
)

# Slices that exist (Google Cloud TPU documentation, pages of v4, v5e, v5p, v6e): flat ones; and boxes, of which the larger ones are made
# of cubes of 4 x 4 x 4 chips, up to so many chips.
FLAT = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
BOXES = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))
LARGEST = {"v4": 4096, "v5p": 6144}
TPUS = ("v4", "v5e", "v5p", "v6e")
GPUS = ("a100", "h100")
GPUS_A_NODE = 8

# Chatter of libraries that look for the machine they compile for, and find it missing.
QUIET = {
    "JAX_PLATFORMS": "cpu",  # with an installed plugin for CUDA: no search for GPUs, and no traceback because there are none
    "TPU_SKIP_MDS_QUERY": "1",  # do not ask a cloud's metadata server which TPU this is
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # any: it only stops a warning
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # several plans at a time: none of them uses a TPU
    "TF_CPP_MIN_LOG_LEVEL": "3",
}

# The compiler for TPUs spends most of its time on the fastest code for each product. What a plan tells (memory, collectives, operations) is
# decided before that: at this level it is there in a fifth of the time, and hardly another.
FAST = {"JAX_OPTIMIZATION_LEVEL": "O1"}


@dataclasses.dataclass(frozen=True)
class Layout:
    """What the name of a topology says."""

    family: str  # "v5e", "h100", "cpu", ...
    slices: int  # slices of TPUs, or nodes of GPUs: what the slow network joins
    shape: tuple[int, ...]  # of one slice, in chips; (devices,) of a GPU node or a CPU

    @property
    def torus(self) -> tuple[int, ...] | None:
        """The shape, of a TPU."""
        return self.shape if self.family in TPUS else None

    @property
    def wraps(self) -> tuple[bool, ...] | None:
        """Whether each dimension of the torus closes to a ring: with v5e and v6e one of 16, with v4 and v5p all if made of whole cubes."""
        if self.family in LARGEST:
            return (all(side % 4 == 0 for side in self.shape),) * 3
        return tuple(side == 16 for side in self.shape) if self.torus else None


def parse(name: str) -> Layout:
    """The layout that a name such as "v5e:16x16", "2*v4:4x4x4", "h100:4x8" or "cpu:8" tells.

    Raises:
      InputError: a name of another form, an unknown family, or a shape that does not exist.
    """
    match = re.fullmatch(r"(?:([1-9]\d*)\*)?([a-z0-9]+):([1-9]\d*(?:x[1-9]\d*)*)", name)
    family = match and match[2]
    if family not in (*TPUS, *GPUS, "cpu"):
        raise InputError(f"topology {name!r} is unknown; known are, in these and other sizes: {KNOWN}")
    slices, shape = int(match[1] or 1), tuple(map(int, match[3].split("x")))
    if family in TPUS and not _exists(family, shape):
        raise InputError(f"topology {name}: slices of {family} come as {_shapes(family)}")
    if family in GPUS:
        if len(shape) > 2 or shape[-1] > GPUS_A_NODE:
            raise InputError(
                f"topology {name}: give {family} as GPUs (at most {GPUS_A_NODE}, one node) or nodes x GPUs, as {family}:4x8"
            )
        slices, shape = slices * math.prod(shape[:-1]), shape[-1:]
    if family == "cpu" and (slices, len(shape)) != (1, 1):
        raise InputError(f"topology {name}: give a CPU's devices as one number, as cpu:8")
    return Layout(family, slices, shape)


def _exists(family: str, shape: tuple[int, ...]) -> bool:
    """Whether a slice of a TPU has that shape somewhere."""
    if family not in LARGEST:
        return shape in FLAT
    cubes = len(shape) == 3 and all(side % 4 == 0 for side in shape) and list(shape) == sorted(shape)
    return shape in BOXES or (cubes and math.prod(shape) <= LARGEST[family])


def _shapes(family: str) -> str:
    """The shapes of a family's slices in words."""
    listed = ", ".join("x".join(map(str, shape)) for shape in (BOXES if family in LARGEST else FLAT))
    cubes = f", and AxBxC with A <= B <= C, multiples of 4, of at most {LARGEST.get(family)} chips, as 4x4x8"
    return listed + (cubes if family in LARGEST else "")


def environment(name: str) -> dict[str, str]:
    """Variables to set before jax is imported in a process that compiles for the topology.

    Raises:
      InputError: as parse.
    """
    layout = parse(name)
    if layout.family in TPUS:
        return QUIET | FAST
    if layout.family != "cpu":
        return dict(QUIET)
    flags = os.environ.get("XLA_FLAGS", "").split()
    kept = [flag for flag in flags if not flag.startswith("--xla_force_host_platform_device_count")]
    return QUIET | {"XLA_FLAGS": " ".join([*kept, f"--xla_force_host_platform_device_count={layout.shape[0]}"])}


def start_jax(name: str) -> None:
    """Sets the environment and starts jax: the first thing that a script does, before anything else imports jax.

    No variable silences the plugin for CUDA, which says from C++, as jax starts, that it finds no GPU: its words are dropped here.

    Raises:
      InputError: as parse.
    """
    os.environ.update(environment(name))
    with _silence():
        import jax

        jax.devices("cpu")


@contextlib.contextmanager
def _silence():
    """What libraries write to the process's standard error goes nowhere. Exceptions pass."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)

"""Names of topologies, and what must be set before jax is imported to compile for one. Imports no jax."""

import contextlib
import dataclasses
import math
import os
import re
import sys
from collections.abc import Iterator

from spanbert_jax.errors import InputError

EXAMPLES = (
    "v5e:16x16, v6e:8x8, v4:4x4x4, v5p:2x2x4, 2*v5e:16x16 (two slices joined by the data-centre network), "
    "h100:8, h100:4x8 (4 nodes of 8), a100:8, cpu:8"
)

TPUS = ("v4", "v5e", "v5p", "v6e")
GPUS = ("a100", "h100")
GPUS_PER_NODE = 8

# Slices that exist, in chips (Google Cloud TPU documentation, pages of v4, v5e, v5p and v6e). Slices of v5e and v6e are
# flat. Those of v4 and v5p are boxes: the small ones listed here, and cubes of 4 x 4 x 4 chips put together.
FLAT_SHAPES = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
SMALL_BOXES = ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4))
MAX_BOX_CHIPS = {"v4": 4096, "v5p": 6144}

# Stops libraries from looking for the accelerator that they compile for, and from warning that there is none.
QUIET = {
    "JAX_PLATFORMS": "cpu",  # an installed CUDA plugin does not look for GPUs, which would end in a traceback
    "TPU_SKIP_MDS_QUERY": "1",  # the metadata server of a cloud is not asked which TPU this is
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # any type: it only stops a warning
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # several plans may be made at a time: none of them uses a TPU
    "TF_CPP_MIN_LOG_LEVEL": "3",
}

# The compiler for TPUs spends most of its time on the fastest code for each product. What a plan reports (memory,
# collectives, FLOPs) is decided before that: this level takes a fifth of the time and reports nearly the same.
FAST_COMPILATION = {"JAX_OPTIMIZATION_LEVEL": "O1"}


@dataclasses.dataclass(frozen=True)
class TopologySpec:
    """What the name of a topology specifies."""

    family: str  # "v5e", "h100", "cpu", ...
    slices: int  # slices of TPUs or nodes of GPUs, which the slower network joins
    shape: tuple[int, ...]  # TPU: chips of one slice along each dimension; GPU: (GPUs of one node,); CPU: (devices,)

    @property
    def torus(self) -> tuple[int, ...] | None:
        """The shape if it is one of a TPU, else None."""
        return self.shape if self.family in TPUS else None

    @property
    def wraps(self) -> tuple[bool, ...] | None:
        """For each dimension of the torus whether it closes to a ring; None without a torus.

        With v5e and v6e a dimension of 16 does, with v4 and v5p all dimensions do if the slice consists of cubes.
        """
        if self.family in MAX_BOX_CHIPS:
            return (_consists_of_cubes(self.shape),) * 3
        return tuple(side == 16 for side in self.shape) if self.torus else None


def parse(name: str) -> TopologySpec:
    """Parses a name such as "v5e:16x16", "2*v4:4x4x4", "h100:4x8" or "cpu:8".

    Raises:
      InputError: the name has another form, its family is unknown, or its shape does not exist.
    """
    match = re.fullmatch(r"(?:([1-9]\d*)\*)?([a-z0-9]+):([1-9]\d*(?:x[1-9]\d*)*)", name)
    if not match or match[2] not in (*TPUS, *GPUS, "cpu"):
        raise InputError(f"topology {name!r} is unknown; known are, in these and other sizes: {EXAMPLES}")
    family, slices, shape = match[2], int(match[1] or 1), tuple(map(int, match[3].split("x")))
    if family in TPUS and not _exists(family, shape):
        raise InputError(f"topology {name}: slices of {family} come as {_existing_shapes(family)}")
    if family in GPUS:
        if len(shape) > 2 or shape[-1] > GPUS_PER_NODE:
            raise InputError(
                f"topology {name}: give {family} as GPUs (at most {GPUS_PER_NODE}, one node) or nodes x GPUs, "
                f"as {family}:4x8"
            )
        slices, shape = slices * math.prod(shape[:-1]), shape[-1:]
    if family == "cpu" and (slices, len(shape)) != (1, 1):
        raise InputError(f"topology {name}: give a CPU's devices as one number, as cpu:8")
    return TopologySpec(family, slices, shape)


def _consists_of_cubes(shape: tuple[int, ...]) -> bool:
    return all(side % 4 == 0 for side in shape)


def _exists(family: str, shape: tuple[int, ...]) -> bool:
    """Tests whether slices of a TPU family come in a shape."""
    if family not in MAX_BOX_CHIPS:
        return shape in FLAT_SHAPES
    is_large_box = len(shape) == 3 and list(shape) == sorted(shape) and _consists_of_cubes(shape)
    return shape in SMALL_BOXES or (is_large_box and math.prod(shape) <= MAX_BOX_CHIPS[family])


def _existing_shapes(family: str) -> str:
    """Returns the shapes of a TPU family's slices in words."""
    if family not in MAX_BOX_CHIPS:
        return ", ".join("x".join(map(str, shape)) for shape in FLAT_SHAPES)
    boxes = ", ".join("x".join(map(str, shape)) for shape in SMALL_BOXES)
    return f"{boxes}, and AxBxC with A <= B <= C, multiples of 4, of at most {MAX_BOX_CHIPS[family]} chips, as 4x4x8"


def environment(name: str) -> dict[str, str]:
    """Returns the variables to set before jax is imported in a process that compiles for a topology.

    Raises:
      InputError: see `parse`.
    """
    spec = parse(name)
    if spec.family in TPUS:
        return QUIET | FAST_COMPILATION
    if spec.family != "cpu":
        return dict(QUIET)
    count_flag = "--xla_force_host_platform_device_count"
    kept = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if not flag.startswith(count_flag)]
    return QUIET | {"XLA_FLAGS": " ".join([*kept, f"{count_flag}={spec.shape[0]}"])}


def start_jax(name: str) -> None:
    """Sets the environment for a topology and starts jax. Must come before any other import of jax.

    Standard error is discarded while jax starts: the CUDA plugin reports from C++ that it finds no GPU, and no variable
    stops it.

    Raises:
      InputError: see `parse`.
    """
    os.environ.update(environment(name))
    with _discard_stderr():
        import jax

        jax.devices("cpu")


@contextlib.contextmanager
def _discard_stderr() -> Iterator[None]:
    """Discards what is written to the process's standard error, from C++ too. Exceptions pass."""
    sys.stderr.flush()
    saved = os.dup(2)
    with open(os.devnull, "wb") as devnull:
        os.dup2(devnull.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)

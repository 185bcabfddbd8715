"""The processes of one run: finding each other, agreeing, and stopping together. One process is the ordinary case, and pays nothing.

All processes make the same calls in the same order. What only one of them sees (a file it cannot read, a signal) it must tell the others, or
they would wait for it in the next collective for ever.
"""

import contextlib
import glob
import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Iterator

import jax
from jax._src import distributed  # its client has no public door; orbax comes in by this one too

from spanbert_jax.errors import Diverged, InputError
from spanbert_jax.training.watch import watching

PATIENCE = (
    24 * 3600
)  # seconds to wait for the others to do their part, such as tokenising; one that dies is noticed long before
CONNECTING = 300  # seconds for all processes to be there
HEARTBEAT = 100  # seconds after which a process that says nothing is taken for dead


def join(mode: str, coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Makes this process one of several, before JAX is used: by the arguments, else as Slurm, Open MPI or a TPU slice says, else not at all.

    Args:
      mode: "auto", or "off" for a process alone whatever started it.
      coordinator: "host:port" of the first process.
      processes: how many there are.
      process: which one this is, from 0.

    Raises:
      InputError: some of the last three without the others, or the processes do not find each other.
    """
    given = (coordinator, processes, process)
    if any(value is not None for value in given):
        if None in given or not 0 <= process < processes or ":" not in coordinator:
            raise InputError(
                "--coordinator=HOST:PORT, --processes=N and --process=I (from 0 to N - 1) go together, in each of the N processes"
            )
    elif mode == "off" or not started_together():
        return
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        jax.distributed.initialize(*given, initialization_timeout=CONNECTING, heartbeat_timeout_seconds=HEARTBEAT)
    except Exception as error:  # of many types, by what went wrong
        raise InputError(
            f"the processes of this run do not find each other ({str(error).splitlines()[0][:200]}): start all of them, with one "
            "coordinator that each can reach, or give --distributed=off"
        ) from None


def started_together() -> bool:
    """Whether a launcher that JAX knows has started several processes."""
    if int(os.environ.get("SLURM_NTASKS", 1)) > 1 and "SLURM_STEP_NODELIST" in os.environ:
        return True
    if int(os.environ.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        return True
    on_tpu = importlib.util.find_spec("libtpu") and (glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*"))
    return (
        bool(on_tpu) and os.environ.get("JAX_PLATFORMS", "") in ("", "tpu") and "TPU_SKIP_MDS_QUERY" not in os.environ
    )


def is_first() -> bool:
    """Whether this process is the one that writes and tells."""
    return jax.process_index() == 0


_agreements = 0


@contextlib.contextmanager
def agreed(same: str = "") -> Iterator[None]:
    """A part of the work that all processes must have done well before any goes on: an InputError of one becomes that of all.

    Args:
      same: a text that must be the same in all of them.

    Raises:
      InputError: of any process; of another one it says which.
    """
    if jax.process_count() == 1:
        yield
        return
    global _agreements
    _agreements += 1
    problem = None
    try:
        yield
    except InputError as error:
        problem = str(error)
    client, folder = distributed.global_state.client, f"spanbert_jax/{_agreements}"
    client.key_value_set(f"{folder}/{jax.process_index()}", json.dumps([problem, same]))
    client.wait_at_barrier(folder, PATIENCE * 1000)
    told = {int(key.rpartition("/")[2]): json.loads(value) for key, value in client.key_value_dir_get(folder)}
    problems = {process: problem for process, (problem, _) in sorted(told.items()) if problem}
    if problems:
        first = min(problems)
        raise InputError(
            problems[first] if len(problems) == len(told) else f"process {first} of {len(told)}: {problems[first]}"
        )
    if other := [process for process, (_, text) in sorted(told.items()) if text != told[0][1]]:
        raise InputError(
            f"process {other[0]} of {len(told)} was started with another config than process 0: give all the same flags"
        )


@contextlib.contextmanager
def ending_together(progress) -> Iterator[None]:
    """Ends this process at once when another one is gone, or when something fails in this one that the others cannot know of.

    progress: () -> a few words on where the run stands, for the message.
    """
    if jax.process_count() == 1:
        yield
        return

    def gone(how: str = "") -> None:
        _end(
            f"process {jax.process_index()}: another process of this run is gone{how}. {progress()}: start all processes again, and they go on from "
            "there"
        )

    with watching(alarm=gone):
        try:
            yield
        except (InputError, Diverged, SystemExit):  # all processes raise these, at the same place
            raise
        except jax.errors.JaxRuntimeError as error:
            gone(
                f", it seems, since a program of all devices failed ({str(error).strip().partition(chr(10))[0][:300]})"
            )
        except BaseException:
            _end(traceback.format_exc())


def _end(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(1)  # not sys.exit: at a regular exit JAX waits minutes for the others, who wait for this one

"""The processes of one run: how they connect, agree, stop together, and notice that one of them is gone.

All processes make the same calls in the same order. A process must share with the others what only it sees (a file that
it cannot read, a signal), or they would wait for it in the next collective without end. With a single process all of
this does nothing.
"""

import contextlib
import glob
import hmac
import importlib.util
import json
import os
import secrets
import selectors
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any, cast

import jax
from jax._src import distributed  # its client is not public; orbax imports it the same way

from spanbert_jax.errors import DiskFull, Diverged, InputError
from spanbert_jax.training.sharding import highest_on

AGREEMENT_SECONDS = 24 * 3600  # to wait for the work of others, such as tokenising; a dead one is noticed earlier
START_SECONDS = 300  # for all processes to start
HEARTBEAT_SECONDS = 100  # after which a silent process is considered dead
WATCH_KEY = "spanbert_jax/watch"  # under which the first process publishes its port and a secret for the others
FAREWELL = b"!"  # sent by a process that ends normally
CONNECT_SECONDS = 60  # to connect to the first process
# These end a run after saving: a scheduler's, Ctrl-C, a closed terminal's, and what Slurm may send before a time limit.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


def join(mode: str, coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Connects this process with the others of a run, by the arguments, else by Slurm, Open MPI or a TPU slice.

    It must be called before JAX is used.

    Args:
      mode: "auto", or "off" for a single process, whatever started it.
      coordinator: "host:port" of the first process.
      processes: their number.
      process: number of this one, from 0.

    Raises:
      InputError: only some of the last three arguments are given, or the processes do not find each other.
    """
    given = (coordinator, processes, process)
    if any(value is not None for value in given):
        complete = coordinator is not None and processes is not None and process is not None
        if not (complete and 0 <= int(process or 0) < int(processes or 0) and ":" in str(coordinator)):
            raise InputError(
                "--coordinator=HOST:PORT, --processes=N and --process=I (from 0 to N - 1) go together, "
                "in each of the N processes"
            )
    elif mode == "off" or not started_together():
        return
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        jax.distributed.initialize(
            *given, initialization_timeout=START_SECONDS, heartbeat_timeout_seconds=HEARTBEAT_SECONDS
        )
    except Exception as error:  # its type depends on what went wrong
        raise InputError(
            f"the processes of this run do not find each other ({str(error).splitlines()[0][:200]}): "
            "start all of them, with one coordinator that each can reach, or give --distributed=off"
        ) from None


def started_together() -> bool:
    """Returns whether a launcher that JAX knows has started several processes."""
    if int(os.environ.get("SLURM_NTASKS", 1)) > 1 and "SLURM_STEP_NODELIST" in os.environ:
        return True
    if int(os.environ.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        return True
    if importlib.util.find_spec("libtpu") is None or not (glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")):
        return False
    return os.environ.get("JAX_PLATFORMS", "") in ("", "tpu") and "TPU_SKIP_MDS_QUERY" not in os.environ


def is_first() -> bool:
    """Returns whether this process is the one that writes files and prints."""
    return jax.process_index() == 0


def _client() -> Any:
    """Returns this process's client of JAX's coordination service; there is one if several processes run."""
    return distributed.global_state.client


_agreements = 0


@contextlib.contextmanager
def agreed(same: str = "") -> Iterator[None]:
    """While entered, runs work that must succeed in all processes before any of them continues.

    An InputError of one process is raised in all.

    Args:
      same: a text that must be equal in all processes.

    Raises:
      InputError: the work of any process raised it; unless all did, the message names the first of them.
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
    client, folder = _client(), f"spanbert_jax/{_agreements}"
    client.key_value_set(f"{folder}/{jax.process_index()}", json.dumps([problem, same]))
    client.wait_at_barrier(folder, AGREEMENT_SECONDS * 1000)
    answers = {int(key.rpartition("/")[2]): json.loads(value) for key, value in client.key_value_dir_get(folder)}
    problems = {process: problem for process, (problem, _) in sorted(answers.items()) if problem}
    if problems:
        first = min(problems)
        raise InputError(
            problems[first]
            if len(problems) == len(answers)
            else f"process {first} of {len(answers)}: {problems[first]}"
        )
    if other := [process for process, (_, text) in sorted(answers.items()) if text != answers[0][1]]:
        raise InputError(
            f"process {other[0]} of {len(answers)} was started with another config than process 0: "
            "give all the same flags"
        )


@contextlib.contextmanager
def ending_together(progress) -> Iterator[None]:
    """While entered, ends this process at once if another one is gone, or on a failure that only this process sees.

    Args:
      progress: returns a sentence on the progress of the run, for the message.
    """
    if jax.process_count() == 1:
        yield
        return

    def gone(how: str = "") -> None:
        _end(
            f"process {jax.process_index()}: another process of this run is gone{how}. "
            f"{progress()}: start all processes again, and they go on from there"
        )

    with watching(alarm=gone):
        try:
            yield
        except DiskFull as error:
            _end(str(error))
        except (InputError, Diverged, SystemExit):  # all processes raise these at the same point
            raise
        except jax.errors.JaxRuntimeError as error:
            reason = str(error).strip().partition("\n")[0][:300]
            gone(f", it seems, since a program of all devices failed ({reason})")
        except BaseException:
            _end(traceback.format_exc())


def _end(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(1)  # not sys.exit: at a regular exit JAX waits minutes for the others, which wait for this one


class StopSignal:
    """While entered, receives the SIGNALS for all processes of a run. A second one has its usual effect.

    A signal that the process was started to ignore (SIGHUP under nohup) stays ignored.
    """

    def __init__(self, mesh):
        self._code = 0
        self._handlers: dict[int, Any] = {}  # before entering, by signal
        self._highest = highest_on(mesh) if jax.process_count() > 1 else None
        self._pending: jax.Array | None = None  # the result of the last poll

    def poll(self) -> int:
        """Returns the exit code of a received signal, or 0.

        It is the same in all processes, which must poll equally often. With several processes it is the result of the
        poll before: a poll is a small collective, which is not waited for.
        """
        if self._highest is None:
            return self._code
        before, self._pending = self._pending, self._highest(self._code)
        return 0 if before is None else int(jax.device_get(before))

    def _receive(self, number, frame):
        self._code = 128 + number
        signal.signal(number, self._handlers[number])

    def __enter__(self):
        received = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self._handlers = {number: signal.signal(number, self._receive) for number in received}
        return self

    def __exit__(self, *_):
        for number, handler in self._handlers.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def watching(alarm: Callable[[], None]) -> Iterator[None]:
    """While entered, calls `alarm` in a thread if another process is gone without having left this context.

    A collective would wait for that process for minutes, or without end. Each process has a connection to the first
    one. When a process dies, its system closes the connection; the first process then ends, which closes the
    connections of all others. JAX's own heartbeats notice machines that vanish without closing connections.
    """
    count = jax.process_count()
    if count == 1:
        yield
        return
    others: list[socket.socket] = []
    with contextlib.suppress(OSError):  # the network allows no connections: only JAX's heartbeats remain
        others = _as_first(count, alarm) if jax.process_index() == 0 else _as_other(alarm)
    try:
        yield
    finally:
        for connection in others:
            with contextlib.suppress(OSError):
                connection.sendall(FAREWELL)


def _as_first(count: int, alarm: Callable[[], None]) -> list[socket.socket]:
    """Accepts connections of the others in a thread; returns the list of them, to which the thread adds."""
    server, secret = socket.create_server(("", 0)), secrets.token_hex(16)
    others: list[socket.socket] = []
    _client().key_value_set(WATCH_KEY, f"{server.getsockname()[1]} {secret}")

    def watch():
        with selectors.DefaultSelector() as selector:
            while len(others) < count - 1:
                connection, _ = server.accept()
                connection.settimeout(CONNECT_SECONDS)
                with contextlib.suppress(OSError):
                    if hmac.compare_digest(connection.recv(len(secret), socket.MSG_WAITALL), secret.encode()):
                        connection.settimeout(None)
                        selector.register(connection, selectors.EVENT_READ)
                        others.append(connection)
            while selector.get_map():
                for key, _ in selector.select():
                    if _next_byte(cast(socket.socket, key.fileobj)) != FAREWELL:
                        alarm()
                    selector.unregister(key.fileobj)

    threading.Thread(target=watch, daemon=True).start()
    return others


def _as_other(alarm: Callable[[], None]) -> list[socket.socket]:
    """Connects to the first process and listens in a thread; returns the connection."""
    host = str(distributed.global_state.coordinator_address).rpartition(":")[0].strip("[]")
    port, secret = _client().blocking_key_value_get(WATCH_KEY, CONNECT_SECONDS * 1000).split()
    connection = socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS)
    connection.settimeout(None)
    connection.sendall(secret.encode())

    def watch():
        if _next_byte(connection) != FAREWELL:
            alarm()

    threading.Thread(target=watch, daemon=True).start()
    return [connection]


def _next_byte(connection: socket.socket) -> bytes:
    """Waits for the next byte and returns it; b"" when the other side is gone."""
    try:
        return connection.recv(1)
    except OSError:
        return b""

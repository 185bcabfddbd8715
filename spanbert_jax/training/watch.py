"""Notices when another process of a run is gone, at once: what waits for it in a collective would wait for minutes, or for ever.

Each process holds a connection to the first one. When a process dies its system closes the connection; the first process then ends, and with it
the connections of all others. A machine that vanishes without a word is left to JAX's own heartbeats.
"""

import contextlib
import hmac
import secrets
import selectors
import socket
import threading
from collections.abc import Callable, Iterator

import jax
from jax._src import distributed  # see processes.py

KEY = "spanbert_jax/watch"  # under which the first process tells its port, and a secret by which it knows its own
FAREWELL = b"!"  # of a process that ends as it should
PATIENCE = 60  # seconds to connect


@contextlib.contextmanager
def watching(alarm: Callable[[], None]) -> Iterator[None]:
    """While entered, calls `alarm` in a thread when another process is gone without having left this context."""
    count = jax.process_count()
    if count == 1:
        yield
        return
    others = []
    with contextlib.suppress(OSError):  # a network that lets nobody through: then JAX's heartbeats must do
        others = _as_first(count, alarm) if jax.process_index() == 0 else _as_other(alarm)
    try:
        yield
    finally:
        for connection in others:
            with contextlib.suppress(OSError):
                connection.sendall(FAREWELL)


def _as_first(count: int, alarm: Callable[[], None]) -> list[socket.socket]:
    """Awaits the others in a thread; the list of their connections, which grows."""
    server, secret, others = socket.create_server(("", 0)), secrets.token_hex(16), []
    distributed.global_state.client.key_value_set(KEY, f"{server.getsockname()[1]} {secret}")

    def watch():
        with selectors.DefaultSelector() as selector:
            while len(others) < count - 1:
                connection, _ = server.accept()
                connection.settimeout(PATIENCE)
                with contextlib.suppress(OSError):
                    if hmac.compare_digest(connection.recv(len(secret), socket.MSG_WAITALL), secret.encode()):
                        connection.settimeout(None)
                        selector.register(connection, selectors.EVENT_READ)
                        others.append(connection)
            while selector.get_map():
                for key, _ in selector.select():
                    if _said(key.fileobj) != FAREWELL:
                        alarm()
                    selector.unregister(key.fileobj)

    threading.Thread(target=watch, daemon=True).start()
    return others


def _as_other(alarm: Callable[[], None]) -> list[socket.socket]:
    """Connects to the first process and listens in a thread."""
    client, address = distributed.global_state.client, distributed.global_state.coordinator_address
    port, secret = client.blocking_key_value_get(KEY, PATIENCE * 1000).split()
    connection = socket.create_connection((address.rpartition(":")[0].strip("[]"), int(port)), timeout=PATIENCE)
    connection.settimeout(None)
    connection.sendall(secret.encode())

    def watch():
        if _said(connection) != FAREWELL:
            alarm()

    threading.Thread(target=watch, daemon=True).start()
    return [connection]


def _said(connection: socket.socket) -> bytes:
    """The next byte that comes, b"" when the other side is gone."""
    try:
        return connection.recv(1)
    except OSError:
        return b""

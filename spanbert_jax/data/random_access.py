"""Files that are read at any address, by any number of threads, with a bounded number of open ones.

A corpus has more files than a process may have open: one for each shard, split, store and kind of tag. A file is opened
when it is read; if there are too many, the one that was opened first is closed until it is read again.
"""

import collections
import os
import resource
import threading
import weakref
from collections.abc import Callable

from spanbert_jax.errors import InputError

LEAST_LIMIT = 64  # of the files that a process may have open: a run opens about 30 of its own
MOST_OPEN = 4096  # files of all corpora


class RandomAccessFile:
    """A file for reading; safe in threads. It is closed when it is garbage-collected."""

    def __init__(self, open_descriptor: Callable[[], int]):
        """Prepares a file.

        Args:
          open_descriptor: opens the file and returns a new descriptor; called whenever the file has to be opened.

        Raises:
          InputError: this process may not open enough files.
        """
        most_open()
        self._open_descriptor = open_descriptor
        self._descriptor: _Descriptor | None = None

    def read(self, address: int, size: int) -> bytes:
        """Returns `size` bytes from `address` on; fewer at the end of the file.

        Raises:
          OSError, or what `open_descriptor` raises: the file cannot be read.
        """
        descriptor = self._opened()  # held until the end of the read, see _Descriptor
        return os.pread(descriptor.number, size, address)

    def size(self) -> int:
        """Returns the number of bytes in the file. Raises what `read` does."""
        descriptor = self._opened()
        return os.fstat(descriptor.number).st_size

    def _opened(self) -> "_Descriptor":
        """Returns the descriptor, which stays open as long as the caller holds it."""
        descriptor = self._descriptor
        if descriptor is None:
            descriptor = self._descriptor = _Descriptor(self._open_descriptor())
            _close_first(self)
        return descriptor


class _Descriptor:
    """An open descriptor, closed with the last reference: a thread that reads keeps it open while another drops it."""

    def __init__(self, number: int):
        self.number = number

    def __del__(self, close=os.close):
        close(self.number)


_lock = threading.Lock()
_open_files: collections.deque[weakref.ref[RandomAccessFile]] = collections.deque()  # in the order of their opening


def _close_first(opened: RandomAccessFile) -> None:
    """Registers a file that was opened, and closes those opened first until there are few enough."""
    with _lock:
        _open_files.append(weakref.ref(opened))
        while len(_open_files) > most_open():
            first = _open_files.popleft()()
            if first:
                first._descriptor = None


def most_open() -> int:
    """Returns how many files may be open at a time: half of what the process may open, at most MOST_OPEN.

    Raises:
      InputError: the process may open fewer than LEAST_LIMIT files.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return MOST_OPEN
    if limit < LEAST_LIMIT:
        raise InputError(
            f"this process may have only {limit} files open, and needs at least {LEAST_LIMIT};"
            " raise the limit, for example with: ulimit -n 1024"
        )
    return min(limit // 2, MOST_OPEN)

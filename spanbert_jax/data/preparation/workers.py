"""Tasks by many processes of this machine, or on Apache Beam. Who does what decides nothing: a task's result is the files it writes."""

import concurrent.futures
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool

from spanbert_jax.data.preparation.job import Job, Task
from spanbert_jax.data.preparation.settings import Means
from spanbert_jax.errors import InputError


def run(job: Job, step: str, tasks: list[Task], means: Means) -> Iterator[None]:
    """Does the step ("sign" or "make") of the job for each task; yields once for each that is done.

    Raises:
      InputError: the first that a task raised (the others are given up), or a process died.
    """
    if means.runner:
        from spanbert_jax.data.preparation.on_beam import run_on_beam

        yield from run_on_beam(job, step, tasks, means)
        return
    processes = min(means.processes(sum(task.unit.size for task in tasks)), len(tasks))
    if processes > 1:
        yield from run_in_processes(job, step, tasks, processes)
        return
    for task in tasks:
        getattr(job, step)(task)
        yield


def run_in_processes(job: Job, step: str, tasks: list[Task], processes: int) -> Iterator[None]:
    """`run` by so many processes of this machine, each of which takes the next task when it is done with one."""
    before = set(multiprocessing.active_children())
    pool = concurrent.futures.ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), begin, (getattr(job, step),)
    )
    ended = False
    try:
        futures = [pool.submit(work, task) for task in tasks]
        for future in concurrent.futures.as_completed(futures):
            future.result()
            yield
        ended = True
    except BrokenProcessPool:
        raise InputError(
            "a worker was killed, perhaps for want of memory; run the same command again to go on, with fewer --workers"
        ) from None
    finally:
        if not ended:
            for process in set(multiprocessing.active_children()) - before:
                process.terminate()
        pool.shutdown(cancel_futures=True)


_STATE: list[Callable[[Task], None]] = []  # of a worker: what it does with a task


def begin(function: Callable[[Task], None]) -> None:
    """Makes a process a worker: it uses one core, leaves Ctrl-C to the process that started it, and ends when that one does."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["RAYON_NUM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=die_with_parent, daemon=True).start()
    _STATE[:] = [function]


def die_with_parent() -> None:
    """Ends this process when the one that started it ends, even by SIGKILL."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def work(task: Task) -> None:
    """Does one task in a worker."""
    _STATE[0](task)

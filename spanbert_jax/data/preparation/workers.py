"""Execution of tasks by processes of this machine or on Apache Beam. A task's result is the files it writes."""

import concurrent.futures
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Generator
from concurrent.futures.process import BrokenProcessPool

from spanbert_jax.data.preparation.job import CleaningJob, Task
from spanbert_jax.data.preparation.settings import ExecutionOptions
from spanbert_jax.errors import InputError

Progress = Generator[None, None, None]  # yields once per finished task


def run_tasks(job: CleaningJob, method: str, tasks: list[Task], execution: ExecutionOptions) -> Progress:
    """Calls a method of the job ("sign" or "tokenise") with each task; yields once per finished task.

    Raises:
      InputError: the first that a task raised (the other tasks are cancelled), or a process was killed.
    """
    if execution.runner:
        yield from run_on_beam(job, method, tasks, execution)
        return
    processes = min(execution.processes(sum(task.unit.size for task in tasks)), len(tasks))
    if processes > 1:
        yield from run_in_processes(getattr(job, method), tasks, processes)
        return
    for task in tasks:
        getattr(job, method)(task)
        yield


# ----------------------------------------------------------------------------------------------------------------------
# Processes of this machine.


def run_in_processes(function: Callable[[Task], None], tasks: list[Task], processes: int) -> Progress:
    """Calls the function with each task, in so many processes. On leaving, also by Ctrl-C, no process is left."""
    before = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(processes, context, start_worker, (function,))
    finished = False
    try:
        futures = [pool.submit(do_task, task) for task in tasks]
        for future in concurrent.futures.as_completed(futures):
            future.result()
            yield
        finished = True
    except BrokenProcessPool:
        raise InputError(
            "a worker was killed, perhaps because memory ran out; run the same command again to continue, with fewer"
            " workers",
            "workers",
        ) from None
    finally:
        if not finished:
            for process in set(multiprocessing.active_children()) - before:
                process.terminate()
        pool.shutdown(cancel_futures=True)


_TASK_FUNCTION: list[Callable[[Task], None]] = []  # of a worker process


def start_worker(function: Callable[[Task], None]) -> None:
    """Sets up a worker process: it uses one core, ignores Ctrl-C, and ends when its parent process ends."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.environ["RAYON_NUM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=exit_with_parent, daemon=True).start()
    _TASK_FUNCTION[:] = [function]


def exit_with_parent() -> None:
    """Waits for the parent process to end, even by SIGKILL, and ends this one."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "only a worker process calls this"
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def do_task(task: Task) -> None:
    """Does one task in a worker process."""
    _TASK_FUNCTION[0](task)


# ----------------------------------------------------------------------------------------------------------------------
# Apache Beam, for sources too large for one machine.


def run_on_beam(job: CleaningJob, method: str, tasks: list[Task], execution: ExecutionOptions) -> Progress:
    """Calls a method of the job with each task in one Beam pipeline, then yields once per task.

    All of Beam's workers must see the work folder: it must be on a network file system, except for DirectRunner.

    Raises:
      InputError: Beam is missing or refuses its options; or the first that a task raised, after all others were done.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        advice = "pip install 'spanbert_jax[beam]'"
        raise InputError(f"--runner={execution.runner} needs Apache Beam: {advice}") from error
    try:
        with beam.Pipeline(execution.runner, PipelineOptions(list(execution.beam_options))) as pipeline:
            spread = pipeline | "units" >> beam.Create(tasks) | "to all workers" >> beam.Reshuffle()
            _ = spread | method >> beam.Map(do_task_on_beam, job, method)
    except ValueError as error:
        raise InputError(f"--runner={execution.runner}: {error}") from error
    for task in tasks:
        error_file = job.error_file(task.number)
        if error_file.exists():
            raise InputError(*json.loads(error_file.read_text(encoding="utf-8")))
        yield


def do_task_on_beam(task: Task, job: CleaningJob, method: str) -> None:
    """Does one task in a Beam worker.

    An InputError is written to the job's error file: Beam would retry a task that raises, and print a traceback.
    """
    try:
        getattr(job, method)(task)
    except InputError as error:
        job.error_file(task.number).write_text(json.dumps([str(error), error.setting]), encoding="utf-8")

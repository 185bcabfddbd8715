"""Tasks on Apache Beam, for a source that one machine cannot read: the same step for each unit, so the same bytes.

The work folder must be one that all of Beam's workers see, such as a network file system; with DirectRunner they are on this machine.
"""

from collections.abc import Iterator

from spanbert_jax.data.preparation.job import Job, Task
from spanbert_jax.data.preparation.settings import Means
from spanbert_jax.errors import InputError


def run_on_beam(job: Job, step: str, tasks: list[Task], means: Means) -> Iterator[None]:
    """Does a step for each task in one Beam pipeline, then yields once for each.

    Raises:
      InputError: Beam is missing or refuses its options, or the first of the tasks' own; all others have been done.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise InputError(f"--runner={means.runner} needs Apache Beam: pip install 'spanbert_jax[beam]'") from error
    try:
        with beam.Pipeline(means.runner, PipelineOptions(list(means.beam_options))) as pipeline:
            spread = pipeline | "units" >> beam.Create(tasks) | "to all workers" >> beam.Reshuffle()
            _ = spread | step >> beam.Map(attempt, job, step)
    except ValueError as error:
        raise InputError(f"--runner={means.runner}: {error}") from error
    for task in tasks:
        mistake = job.mistake_file(task.number)
        if mistake.exists():
            raise InputError(mistake.read_text(encoding="utf-8"))
        yield


def attempt(task: Task, job: Job, step: str) -> None:
    """One task, in a worker of Beam's.

    An InputError is written down: Beam would try a task that raises again, and tell of it in a traceback.
    """
    try:
        getattr(job, step)(task)
    except InputError as error:
        job.mistake_file(task.number).write_text(str(error), encoding="utf-8")

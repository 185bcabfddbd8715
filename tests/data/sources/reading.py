"""Reads documents, and the problems on the way, of a reader or of units."""

from spanbert_jax.data.sources.problems import Skipped


def read_all(documents, *arguments):
    """(documents, what was skipped by kind, messages of the problems) of documents(*arguments, report)."""
    skipped, messages = Skipped(), []

    def report(problem):
        skipped(problem)
        messages.append(problem.message())

    return list(documents(*arguments, report)), skipped.counts, messages

"""Pretrains a model as a config describes. The same command resumes an interrupted run."""

import argparse

from spanbert_jax import cli


def main() -> int:
    """Runs the command on sys.argv; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    cli.add_run_flags(parser)
    flags = cli.parse(parser)
    if flags.init:
        flags.config.init.path = flags.init
    from spanbert_jax.training.processes import join  # slow imports, so after the flags are checked

    join(flags.distributed, flags.coordinator, flags.processes, flags.process)
    from spanbert_jax.training.pretrain import pretrain

    return pretrain(flags.config, flags.workdir, tuple(filter(None, flags.allow.split(","))))

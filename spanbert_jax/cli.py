"""What every script shares: the flags of a config, and errors told in one line."""

import argparse
import os
import sys
from collections.abc import Callable

from spanbert_jax import config as config_lib
from spanbert_jax.errors import Diverged, InputError

STACK = "--fibers_default_thread_stack_size"  # of the threads of the compiler for TPUs: its own 64 KiB overflow on attention for v6e


def parse(parser: argparse.ArgumentParser, argv: list[str] | None = None):
    """Parses flags, of which "--config.a.b=value" override the file that --config names.

    Returns:
      The argparse namespace; its `config` is the loaded ConfigDict if the parser has such a flag.
    """
    argv = sys.argv[1:] if argv is None else argv
    prefix = "--config."
    overrides = [flag[len(prefix) :] for flag in argv if flag.startswith(prefix)]
    flags = parser.parse_args([flag for flag in argv if not flag.startswith(prefix)])
    if "config" in flags and flags.config is not None:
        flags.config = config_lib.load(flags.config, overrides)
    elif overrides:
        raise InputError(f"{prefix}{overrides[0]} needs --config=FILE.py:VARIANT beside it")
    return flags


def run(main: Callable[[], int | None]) -> None:
    """Runs a script's main and exits with its code; an InputError becomes its message on stderr and exit code 2, Ctrl-C 130."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault(
        "TF_ENABLE_ONEDNN_OPTS", "0"
    )  # no operation of ours has any use for it, and it says on some CPUs that it is there
    of_user = os.environ.get("LIBTPU_INIT_ARGS", "")
    if STACK not in of_user:
        os.environ["LIBTPU_INIT_ARGS"] = f"{of_user} {STACK}={2**20}".lstrip()
    try:
        code = main()
    except (InputError, Diverged) as error:
        print(f"{os.path.basename(sys.argv[0])}: {error}", file=sys.stderr)
        code = 2 if isinstance(error, InputError) else 1
    except KeyboardInterrupt:
        print(f"{os.path.basename(sys.argv[0])}: stopped", file=sys.stderr)
        code = 130  # what a shell says of a process that SIGINT ended
    sys.exit(code)

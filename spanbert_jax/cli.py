"""What all scripts share: config overrides on the command line, and errors reported in one line."""

import argparse
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from spanbert_jax.config import load_config
from spanbert_jax.errors import DiskFull, Diverged, InputError

# Stack size of the threads of the TPU compiler: its default of 64 KiB overflows on attention for v6e.
COMPILER_STACK_FLAG = "--fibers_default_thread_stack_size"
COMPILER_STACK_BYTES = 2**20
MODEL_HELP = "folder of a pretraining run, an exported or other Hugging Face folder, or a file of weights in one"
REMOTE = re.compile("[a-z0-9]{2,}:/")  # what begins a URL, of which pathlib keeps one slash


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of a command that trains: config, workdir, init, allow, and those of several processes."""
    config_help = "config of the run; --config.a.b=VALUE overrides the key a.b"
    parser.add_argument("--config", required=True, metavar="CONFIG:VARIANT", help=config_help)
    parser.add_argument("--workdir", required=True, type=Path, help="folder of the run")
    init_help = "weights to start from: a run, a Hugging Face folder or a file; sets init.path"
    parser.add_argument("--init", metavar="PATH", help=init_help)
    allow_help = "config keys, separated by commas, that a resumed run changes from here on (recorded with the step)"
    parser.add_argument("--allow", default="", metavar="KEY,...", help=allow_help)
    group = parser.add_argument_group(
        "several processes",
        "Found automatically under Slurm (srun), Open MPI and on TPU slices, otherwise by these flags.",
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0, the same in all processes")
    group.add_argument("--processes", type=int, metavar="N", help="number of processes")
    group.add_argument("--process", type=int, metavar="I", help="index of this process, from 0")
    distributed_help = "off: this process runs alone, whatever launched it (default: %(default)s)"
    group.add_argument("--distributed", choices=("auto", "off"), default="auto", help=distributed_help)


def parse(parser: argparse.ArgumentParser, argv: list[str] | None = None) -> argparse.Namespace:
    """Parses flags; "--config.a.b=value" overrides a key of the file that --config names.

    Returns:
      The flags. If the parser has a flag `config`, its value is the loaded ConfigDict, and `config_spec` and
      `config_overrides` the texts that it came from.
    """
    argv = sys.argv[1:] if argv is None else argv
    prefix = "--config."
    overrides = [flag[len(prefix) :] for flag in argv if flag.startswith(prefix)]
    flags = parser.parse_args([flag for flag in argv if not flag.startswith(prefix)])
    if "config" in flags and flags.config is not None:
        flags.config_spec, flags.config_overrides = flags.config, overrides
        flags.config = load_config(flags.config, overrides)
    elif overrides:
        raise InputError(f"{prefix}{overrides[0]} requires --config=CONFIG:VARIANT")
    remote = [
        f"--{name}={path}" for name, path in vars(flags).items() if isinstance(path, Path) and REMOTE.match(str(path))
    ]
    if remote:
        raise InputError(f"{', '.join(remote)}: remote paths are not supported here; give a local or mounted one")
    return flags


def run(main: Callable[[], int | None]) -> None:
    """Runs a script's main function and exits with the code that it returns.

    The message of an InputError or Diverged is printed to stderr; the exit code is then 2 or 1. It is 130 after Ctrl-C.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # The input pipeline uses no operation of oneDNN, which on some CPUs logs that it is enabled.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    compiler_flags = os.environ.get("LIBTPU_INIT_ARGS", "")
    if COMPILER_STACK_FLAG not in compiler_flags:
        compiler_flags = f"{compiler_flags} {COMPILER_STACK_FLAG}={COMPILER_STACK_BYTES}"
        os.environ["LIBTPU_INIT_ARGS"] = compiler_flags.lstrip()
    script = os.path.basename(sys.argv[0])
    try:
        code = main()
    except (InputError, Diverged) as error:
        print(f"{script}: {error}", file=sys.stderr)
        code = 2 if isinstance(error, InputError) else 1
        if isinstance(error, DiskFull):  # threads that still write would each print a traceback
            sys.stderr.flush()
            os._exit(code)
    except KeyboardInterrupt:
        print(f"{script}: stopped", file=sys.stderr)
        code = 130  # the shell's exit code for a process that SIGINT ended
    sys.exit(code)

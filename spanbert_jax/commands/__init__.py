"""The commands of the project, one module each: `spanbert NAME` in an installation, scripts/NAME.py in a clone."""

import importlib
import pkgutil
import sys

from spanbert_jax import cli


def main() -> None:
    """Runs the command that the first argument names; the entry point of `spanbert`."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    name = sys.argv[1].replace("-", "_") if len(sys.argv) > 1 else ""
    if name not in names:
        asked_for_help = name in ("", "__help", "_h")
        usage = f"usage: spanbert {{{','.join(names)}}} ...; spanbert NAME --help describes one"
        print(usage, file=sys.stdout if asked_for_help else sys.stderr)
        sys.exit(0 if asked_for_help else 2)
    sys.argv = [f"spanbert {name}", *sys.argv[2:]]
    cli.run(importlib.import_module(f"spanbert_jax.commands.{name}").main)

"""Reports what a config costs on a machine, without that machine."""

import argparse
import contextlib
import json
from pathlib import Path

from spanbert_jax import cli
from spanbert_jax.errors import InputError
from spanbert_jax.folders import atomic_file


def main() -> int:
    """Runs the command on sys.argv; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--config", required=True, metavar="CONFIG:VARIANT", help="--config.a.b=VALUE overrides one of its keys")
    examples = "v5e:16x16, 2*v5e:16x16, v5p:2x2x4, h100:8, h100:4x8, cpu:8, ..."
    add("--topology", required=True, metavar="NAME", help=examples)
    search_help = "try meshes, microbatches and remat policies; print the fastest plan that fits"
    add("--search", action="store_true", help=search_help)
    add("--most", type=int, default=12, metavar="N", help="number of plans that --search compiles at most")
    add("--json", type=Path, metavar="FILE", help="also write the figures to a file, as one JSON object")
    flags = cli.parse(parser)
    from spanbert_jax.planning.environment import start_jax  # sets what jax reads when it is imported

    start_jax(flags.topology)
    from spanbert_jax.data.batches import configured_tokenizer
    from spanbert_jax.phases import phases_of
    from spanbert_jax.planning.plan import plans_of_phases
    from spanbert_jax.planning.search import search
    from spanbert_jax.planning.show import phases_to_json, show_phases
    from spanbert_jax.planning.topologies import make_topology

    topology, vocab_size = make_topology(flags.topology), configured_tokenizer(flags.config).vocab_size
    if flags.search and flags.config.phases:
        raise InputError("--search: finds one plan, and the phases of a config need one each; give --config.phases=")
    with atomic_file(flags.json) if flags.json else contextlib.nullcontext() as file:
        if flags.search:
            plans = [(phases_of(flags.config)[0], search(flags.config, topology, vocab_size, flags.most, print))]
        else:
            plans = plans_of_phases(flags.config, topology, vocab_size)
        print(show_phases(plans))
        if file:
            file.write(json.dumps(phases_to_json(plans), indent=2) + "\n")
    return 0

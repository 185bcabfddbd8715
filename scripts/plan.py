"""What a config costs on a machine that is not here: python scripts/plan.py --config=configs/spanbert.py:large --topology=v5e:16x16"""

import argparse
import contextlib
import json
from pathlib import Path

from spanbert_jax import cli
from spanbert_jax.folders import new_file


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--config", required=True, metavar="FILE.py:VARIANT", help="and --config.a.b=VALUE overrides a key of it"
    )
    parser.add_argument(
        "--topology",
        required=True,
        metavar="NAME",
        help="v5e:16x16, 2*v5e:16x16, v5p:2x2x4, h100:8, h100:4x8, cpu:8, ...",
    )
    parser.add_argument(
        "--search",
        action="store_true",
        help="try meshes, microbatches and remat policies; print the fastest plan that fits",
    )
    parser.add_argument("--most", type=int, default=12, metavar="N", help="plans that --search compiles at the most")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too, as one JSON object")
    flags = cli.parse(parser)
    from spanbert_jax.planning.environment import start_jax  # it sets what jax reads when it is imported

    start_jax(flags.topology)
    from spanbert_jax.data.batches import tokenizer_of
    from spanbert_jax.planning.plan import make_plan
    from spanbert_jax.planning.search import search
    from spanbert_jax.planning.show import show, to_json
    from spanbert_jax.planning.topologies import topology

    asked, vocab_size = topology(flags.topology), tokenizer_of(flags.config).vocab_size
    with new_file(flags.json) if flags.json else contextlib.nullcontext() as file:
        plan = (
            search(flags.config, asked, vocab_size, flags.most, print)
            if flags.search
            else make_plan(flags.config, asked, vocab_size)
        )
        print(show(plan))
        if file:
            file.write(json.dumps(to_json(plan), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    cli.run(main)

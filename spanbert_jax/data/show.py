"""A masked batch as text for a person: what was masked, what the model sees of it, and what it must predict.

Colour only repeats what the text says, so it reads the same through a pipe. All is taken from the batch, as the model gets it.
"""

import dataclasses
import itertools
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import rich.box
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from spanbert_jax import config as config_lib
from spanbert_jax.data import batches as batches_lib
from spanbert_jax.data.pipeline import Batch
from spanbert_jax.data.tokenizer import CONTINUATION, Tokenizer
from spanbert_jax.errors import InputError

FATES = {
    "masked": "bold yellow",
    "random": "bold magenta",
    "kept": "bold green",
    "mixed": "bold red",
}  # of spans, with their styles
BOUNDARY, SPECIAL, HEADING = "underline cyan", "dim", "bold"


@dataclasses.dataclass(frozen=True)
class Span:
    """A run of masked tokens of one row, whose places are counted from 0."""

    number: int  # of the row's spans, from 1
    first: int  # place of its first token
    last: int
    original: list[int]  # ids of its tokens
    seen: list[int]  # what stands there in the model's input
    fate: str  # of FATES: "mixed" where its tokens fared differently
    boundaries: tuple[int, int] | None  # the two places that SBO sees it from; None: it has no SBO target
    offsets: list[int]  # which of its tokens are SBO targets, counted from 0


def batch_to_show(
    config, workdir: Path | None, split: str, step: int, tell: Callable[[str], None]
) -> tuple[Batch, Tokenizer]:
    """The batch that a run of this config sees before update `step` (or the one of that number of an evaluation), and its tokenizer.

    The corpus is the store of `workdir` or of config.data.store, else the text of the config, tokenised into a temporary folder.

    Raises:
      InputError: every problem of the config, or a corpus or number that cannot be used.
    """
    problems = config_lib.validate(config) + batches_lib.validate(config)
    if problems:
        raise InputError("\n".join(problems))
    if step < 0:
        raise InputError(f"--step {step}: batches are numbered from 0")
    if workdir is not None and not config.data.store and not (workdir / "store").exists():
        raise InputError(
            f"workdir {workdir} has no store: give the folder of a run, or leave --workdir out to tokenise the text anew"
        )
    tokenizer = batches_lib.tokenizer_of(config)
    with tempfile.TemporaryDirectory() as temporary:
        mixture = batches_lib.open_corpus(config, tokenizer, workdir or Path(temporary), tell)
        feed = batches_lib.Feed(config, mixture, tokenizer)
        held_out = itertools.chain.from_iterable(map(feed.held_out, feed.names))
        batches = feed.training(step) if split == "train" else itertools.islice(held_out, step, None)
        batch = next(batches, None)
    if batch is None:
        count = sum(1 for name in feed.names for _ in feed.held_out(name))
        raise InputError(f"--step {step}: the held-out text makes {count} batches, numbered from 0")
    return batch, tokenizer


def show_batch(batch: Batch, tokenizer: Tokenizer, rows: int) -> Group:
    """The first `rows` rows of a batch of pipeline.make_batches, and a line on all of it, for a rich Console."""
    count = len(batch["tokens"])
    shown = [show_row(batch, row, tokenizer) for row in range(min(rows, count))]
    return Group(
        legend(), *shown, Text(f"all {count} rows: ", HEADING) + Text(summary(batch, range(count), tokenizer.mask_id))
    )


def legend() -> Text:
    """How to read a row."""
    return Text.assemble(
        "Spans stand in braces: number, text, and what the model sees of it. ",
        ("{1 text => [MASK]}", FATES["masked"]),
        " masked, ",
        ("{2 text => other}", FATES["random"]),
        " random tokens, ",
        ("{3 text = kept}", FATES["kept"]),
        " kept. ",
        ("Underlined", BOUNDARY),
        ", and below left and right: the tokens that SBO sees a span from.\n",
    )


def show_row(batch: Batch, row: int, tokenizer: Tokenizer) -> Group:
    """One row: the text of each block with its spans, a table of the spans, and a summary."""
    tokens, segments = batch["tokens"][row], batch["segments"][row]
    spans = spans_of(batch, row, tokenizer.mask_id)
    content, pair, parts = content_of(batch, [row])[0], "", []
    if "nsp_targets" in batch:
        kind = "from elsewhere" if batch["nsp_targets"][row, 0] else "what follows A"
        pair = f"; a pair, B ({kind}) from place {int(np.argmax(batch['token_types'][row]))} on"
    for segment in range(1, segments.max() + 1):
        places = np.flatnonzero(segments == segment)
        inside = [span for span in spans if places[0] <= span.first <= places[-1]]
        masked = sum(len(span.original) for span in inside)
        parts.append(
            Text(
                f"row {row}, block {segment} (segment {segment}): places {places[0]} to {places[-1]}, "
                f"{int(content[places].sum())} tokens, {masked} masked{pair}",
                HEADING,
            )
        )
        parts.append(Padding(block_text(tokens, places, inside, tokenizer), (0, 0, 0, 2)))
        parts.append(span_table(tokens, inside, tokenizer))
    padding = int(np.count_nonzero(segments == 0))
    if padding:
        parts.append(Text(f"row {row}: {padding} places of padding (segment 0) at its end", SPECIAL))
    return Group(*parts, Text(f"row {row}: ", HEADING) + Text(summary(batch, [row], tokenizer.mask_id)), Text())


def block_text(tokens: np.ndarray, places: np.ndarray, spans: list[Span], tokenizer: Tokenizer) -> Text:
    """The text of a block from [CLS] to [SEP], its masked spans in braces. tokens: [L]; places: those of the block."""
    span_at = {place: span for span in spans for place in range(span.first, span.last + 1)}
    boundaries = {place for span in spans for place in span.boundaries or ()}
    text = Text()
    for place in places.tolist():
        span, token = span_at.get(place), tokenizer.tokens[tokens[place]]
        if span and place > span.first:
            continue
        glued = (
            token.startswith(CONTINUATION) and not span and place - 1 not in span_at
        )  # where a span cuts a word, its "##" shows it
        text.append("" if glued or place == places[0] else " ")
        if span:
            text.append(span_text(span, tokenizer), FATES[span.fate])
        else:
            special = place in (places[0], places[-1])
            style = SPECIAL if special else BOUNDARY if place in boundaries else ""
            text.append(token.removeprefix(CONTINUATION) if glued else token, style)
    return text


def span_text(span: Span, tokenizer: Tokenizer) -> str:
    """A span in braces: its number, its text, and what the model sees of it."""
    original = words_of(span.original, tokenizer)
    if span.fate == "kept":
        return f"{{{span.number} {original} = kept}}"
    return f"{{{span.number} {original} => {seen_text(span.seen, tokenizer)}}}"


def words_of(ids: list[int], tokenizer: Tokenizer) -> str:
    """Tokens put together to words; a first token that continues a word keeps its "##"."""
    return " ".join(tokenizer.tokens[i] for i in ids).replace(f" {CONTINUATION}", "")


def seen_text(ids: list[int], tokenizer: Tokenizer) -> str:
    """Tokens one by one, a run of the same one with its length."""
    runs = [(tokenizer.tokens[i], len(list(run))) for i, run in itertools.groupby(ids)]
    return " ".join(f"{token} x{count}" if count > 1 else token for token, count in runs)


def span_table(tokens: np.ndarray, spans: list[Span], tokenizer: Tokenizer) -> Table:
    """A line a span: where it is, its fate, and its SBO targets, each with its place in the span. tokens: [L]."""
    table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name in ("span", "fate", "places", "left", "right", "SBO targets, offset:token"):
        table.add_column(name, justify="right" if name == "span" else "left", overflow="fold")
    for span in spans:
        left, right = (
            (f"{place} {tokenizer.tokens[tokens[place]]}" for place in span.boundaries)
            if span.boundaries
            else ("-", "-")
        )
        targets = "  ".join(f"{offset}:{tokenizer.tokens[span.original[offset]]}" for offset in span.offsets)
        if not span.boundaries:
            targets = "none: it touches an end of its block"
        elif len(span.offsets) < len(span.original):
            targets += f"  (and {len(span.original) - len(span.offsets)} beyond masking.max_targets)"
        table.add_row(
            str(span.number),
            Text(span.fate, FATES[span.fate]),
            f"{span.first}-{span.last}",
            Text(left),
            Text(right),
            Text(targets),
        )
    return table


def spans_of(batch: Batch, row: int, mask_id: int) -> list[Span]:
    """The merged spans of a row, from left to right. Slot i of MLM and of SBO speak of the same token."""
    slots = np.flatnonzero(batch["mlm_weights"][row])
    positions = batch["mlm_positions"][row][slots]
    runs = (
        np.split(slots, np.flatnonzero(np.diff(positions) != 1) + 1) if len(slots) else []
    )  # [CLS] and [SEP] part those of two blocks
    spans = []
    for number, run in enumerate(runs, 1):
        places = batch["mlm_positions"][row][run]
        original, seen = batch["mlm_targets"][row][run].tolist(), batch["tokens"][row][places].tolist()
        targets = run[batch["sbo_weights"][row][run] > 0]
        boundaries = (
            tuple(int(batch[f"sbo_{side}"][row][targets[0]]) for side in ("left", "right")) if len(targets) else None
        )
        spans.append(
            Span(
                number,
                int(places[0]),
                int(places[-1]),
                original,
                seen,
                fate_of(original, seen, mask_id),
                boundaries,
                batch["sbo_offset"][row][targets].tolist(),
            )
        )
    return spans


def fate_of(original: list[int], seen: list[int], mask_id: int) -> str:
    """What became of the tokens of a span."""
    fates = {
        "masked" if shown == mask_id else "kept" if shown == token else "random"
        for token, shown in zip(original, seen, strict=True)
    }
    return fates.pop() if len(fates) == 1 else "mixed"


def content_of(batch: Batch, rows: list[int]) -> np.ndarray:
    """bool [rows, L]: places that hold text; not padding, [CLS] and [SEP], which are where positions start and segments or types end."""
    segments, types = batch["segments"][rows], batch["token_types"][rows]
    parts = np.pad(
        2 * segments + types, ((0, 0), (0, 1)), constant_values=-1
    )  # one number a part that ends with a [SEP]
    return (segments > 0) & (batch["positions"][rows] > 0) & (parts[:, 1:] == parts[:, :-1])


def summary(batch: Batch, rows: Iterable[int], mask_id: int) -> str:
    """One line on some rows together."""
    rows = list(rows)
    segments = batch["segments"][rows]
    spans = [span for row in rows for span in spans_of(batch, row, mask_id)]
    fates = Counter(span.fate for span in spans)
    tokens = int(content_of(batch, rows).sum())
    masked, targets = (int(np.count_nonzero(batch[f"{kind}_weights"][rows])) for kind in ("mlm", "sbo"))
    slots = batch["sbo_weights"][rows].size
    told = ", ".join(f"{fates[fate]} {fate}" for fate in FATES if fates[fate])
    return (
        f"{masked} of {tokens} tokens masked ({masked / max(tokens, 1):.1%}), {len(spans)} spans ({told or 'none'}),"
        f" {targets} of {slots} SBO slots used, {np.mean(segments == 0):.1%} padding"
    )

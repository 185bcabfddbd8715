"""A masked batch as text for a terminal: what was masked, what the model sees of it, and what it must predict.

Everything is taken from the batch, as the model gets it. Colour only repeats what the text says, so that the text reads
the same without it.
"""

import dataclasses
import itertools
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import rich.box
from ml_collections import ConfigDict
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from spanbert_jax.config import config_problems
from spanbert_jax.data.batches import configured_tokenizer, data_problems, feeds_of, open_corpus
from spanbert_jax.data.pipeline import Batch
from spanbert_jax.data.schemes import settings_from_config, tags_of
from spanbert_jax.data.targets import enabled_targets
from spanbert_jax.data.tokenizer import CONTINUATION, Tokenizer
from spanbert_jax.errors import InputError

# What can replace the tokens of a span, with its style. "mixed": different replacements within the span.
REPLACEMENTS = {"masked": "bold yellow", "random": "bold magenta", "kept": "bold green", "mixed": "bold red"}
JOINT = "|"
TAGGED = 0x55555555  # the bits of rows.Rows.read's tags that say that a token has one
BOUNDARY, SPECIAL, HEADING = "underline cyan", "dim", "bold"


@dataclasses.dataclass(frozen=True)
class MaskedSpan:
    """An interval of masked tokens of one row. Positions are counted from 0."""

    number: int  # among the spans of the row, from 1
    first: int  # position of the first token
    last: int  # position of the last token
    original: list[int]  # ids of the tokens before masking
    seen: list[int]  # ids of the tokens in the model's input
    replacement: str  # a key of REPLACEMENTS
    boundaries: tuple[int, int] | None  # the two positions that SBO predicts from; None without SBO targets
    offsets: list[int]  # indices, from 0, of the tokens of the span that are SBO targets
    joints: list[int]  # indices of tokens where a tagged span begins that touches the one before


def batch_to_show(
    config: ConfigDict, workdir: Path | None, split: str, step: int, log: Callable[[str], None]
) -> tuple[Batch, Tokenizer]:
    """Returns a batch of a config, with tags if its masking keeps those that touch apart, and its tokenizer.

    The corpus is the store of `workdir` or of config.data.store. If there is none, the text of the config is tokenised
    into a temporary folder.

    Args:
      config: of a run.
      workdir: folder of a run; None for none.
      split: "train" for a training batch, "valid" for an evaluation batch.
      step: number of the train step that reads the batch, or of the batch in an evaluation, from 0.
      log: called with a message before text is tokenised.

    Raises:
      InputError: the config has problems (all are named), or the corpus or step cannot be used.
    """
    problems = list(dict.fromkeys(config_problems(config) + data_problems(config)))
    if problems:
        raise InputError("\n".join(problems))
    if step < 0:
        raise InputError(f"--step {step}: batches are numbered from 0")
    if workdir is not None and not config.data.store and not (workdir / "store").exists():
        raise InputError(
            f"workdir {workdir} has no store: give the folder of a run, or leave --workdir out to tokenise the text"
        )
    tokenizer = configured_tokenizer(config)
    with tempfile.TemporaryDirectory() as temporary:
        mixture = open_corpus(config, tokenizer, workdir or Path(temporary), log)
        apart = tags_of(settings_from_config(config)) and config.masking.touching_tags == "apart"
        shown = ("tags",) if apart else ()
        feeds = feeds_of(config, mixture, tokenizer, (*enabled_targets(config), *shown))
        feed = next((feed for feed in feeds if split == "train" and step < feed.phase.last), feeds[-1])
        held_out = itertools.chain.from_iterable(map(feed.held_out, feed.names))
        batches = feed.training(step) if split == "train" else itertools.islice(held_out, step, None)
        batch = next(batches, None)
        if batch is None:
            count = sum(1 for name in feed.names for _ in feed.held_out(name))
            raise InputError(f"--step {step}: the held-out text makes {count} batches, numbered from 0")
    return batch, tokenizer


def show_batch(batch: Batch, tokenizer: Tokenizer, rows: int) -> Group:
    """Returns the first `rows` rows of a batch (of pipeline.make_batches) and a summary of all its rows."""
    count = len(batch["tokens"])
    shown = [show_row(batch, row, tokenizer) for row in range(min(rows, count))]
    total = Text(f"all {count} rows: ", HEADING) + Text(summary(batch, range(count), tokenizer.mask_id))
    return Group(legend(), *shown, total)


def legend() -> Text:
    """Returns how to read a row."""
    return Text.assemble(
        "Spans are in braces: number, text, and what the model sees of it. ",
        ("{1 text => [MASK]}", REPLACEMENTS["masked"]),
        " masked, ",
        ("{2 text => other}", REPLACEMENTS["random"]),
        " random tokens, ",
        ("{3 text = kept}", REPLACEMENTS["kept"]),
        " kept, ",
        JOINT,
        " where a tagged span touches the one before. ",
        ("Underlined", BOUNDARY),
        ", and left and right in the table: the tokens from which SBO predicts a span.\n",
    )


def show_row(batch: Batch, row: int, tokenizer: Tokenizer) -> Group:
    """Returns one row: the text of each block with its spans, a table of the spans, and a summary."""
    tokens, segments = batch["tokens"][row], batch["segments"][row]  # [L] each
    spans = spans_of(batch, row, tokenizer.mask_id)
    is_text = text_positions(batch, [row])[0]  # [L]
    pair = ""
    if "nsp_targets" in batch:
        origin = "from elsewhere" if batch["nsp_targets"][row, 0] else "what follows A"
        pair = f"; a pair, B ({origin}) from position {int(np.argmax(batch['token_types'][row]))} on"
    shown: list[RenderableType] = []
    for segment in range(1, segments.max() + 1):
        positions = np.flatnonzero(segments == segment)
        first, last = positions[0], positions[-1]
        block_spans = [span for span in spans if first <= span.first <= last]
        masked = sum(len(span.original) for span in block_spans)
        heading = (
            f"row {row}, block {segment} (segment {segment}): positions {first} to {last}, "
            f"{int(is_text[positions].sum())} tokens, {masked} masked{pair}"
        )
        shown.append(Text(heading, HEADING))
        shown.append(Padding(block_text(tokens, positions, block_spans, tokenizer), (0, 0, 0, 2)))
        shown.append(span_table(tokens, block_spans, tokenizer))
    padding = int(np.count_nonzero(segments == 0))
    if padding:
        shown.append(Text(f"row {row}: {padding} positions of padding (segment 0) at its end", SPECIAL))
    shown.append(Text(f"row {row}: ", HEADING) + Text(summary(batch, [row], tokenizer.mask_id)))
    return Group(*shown, Text())


def block_text(tokens: np.ndarray, positions: np.ndarray, spans: list[MaskedSpan], tokenizer: Tokenizer) -> Text:
    """Returns the text of a block from [CLS] to [SEP], its masked spans in braces.

    Args:
      tokens: [L], the row.
      positions: those of the block, ascending.
      spans: those of the block.
      tokenizer: of the batch.
    """
    span_at = {position: span for span in spans for position in range(span.first, span.last + 1)}
    boundaries = {position for span in spans for position in span.boundaries or ()}
    ends = (positions[0], positions[-1])
    text = Text()
    for position in positions.tolist():
        span, token = span_at.get(position), tokenizer.tokens[tokens[position]]
        if span and position > span.first:
            continue
        # Where a word continues beside a span, its "##" is shown.
        continues_word = token.startswith(CONTINUATION) and not span and position - 1 not in span_at
        if not continues_word and position != ends[0]:
            text.append(" ")
        if span:
            text.append(span_text(span, tokenizer), REPLACEMENTS[span.replacement])
        else:
            style = SPECIAL if position in ends else BOUNDARY if position in boundaries else ""
            text.append(token.removeprefix(CONTINUATION) if continues_word else token, style)
    return text


def span_text(span: MaskedSpan, tokenizer: Tokenizer) -> str:
    """Returns a span in braces: its number, its text, and what the model sees of it."""
    edges = [0, *span.joints, len(span.original)]
    parts = [span.original[first:end] for first, end in itertools.pairwise(edges)]
    original = f" {JOINT} ".join(words_of(part, tokenizer) for part in parts)
    if span.replacement == "kept":
        return f"{{{span.number} {original} = kept}}"
    return f"{{{span.number} {original} => {seen_text(span.seen, tokenizer)}}}"


def words_of(ids: list[int], tokenizer: Tokenizer) -> str:
    """Returns tokens joined to words. A first token that continues a word keeps its "##"."""
    return " ".join(tokenizer.tokens[i] for i in ids).replace(f" {CONTINUATION}", "")


def seen_text(ids: list[int], tokenizer: Tokenizer) -> str:
    """Returns tokens separated by spaces. A token that is repeated is written once, with its number."""
    counted = [(tokenizer.tokens[i], len(list(same))) for i, same in itertools.groupby(ids)]
    return " ".join(f"{token} x{count}" if count > 1 else token for token, count in counted)


def span_table(tokens: np.ndarray, spans: list[MaskedSpan], tokenizer: Tokenizer) -> Table:
    """Returns a table with one line per span: replacement, positions and SBO targets. tokens: [L]."""
    table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name in ("span", "input", "positions", "left", "right", "SBO targets, offset:token"):
        table.add_column(name, justify="right" if name == "span" else "left", overflow="fold")
    for span in spans:
        if span.boundaries:
            left, right = (f"{position} {tokenizer.tokens[tokens[position]]}" for position in span.boundaries)
            targets = "  ".join(f"{offset}:{tokenizer.tokens[span.original[offset]]}" for offset in span.offsets)
            beyond = len(span.original) - len(span.offsets)
            targets += f"  (and {beyond} beyond masking.max_targets)" if beyond else ""
        else:
            left, right, targets = "-", "-", "none: it touches an end of its block"
        table.add_row(
            str(span.number),
            Text(span.replacement, REPLACEMENTS[span.replacement]),
            f"{span.first}-{span.last}",
            *map(Text, (left, right, targets)),
        )
    return table


def spans_of(batch: Batch, row: int, mask_id: int) -> list[MaskedSpan]:
    """Returns the spans of a row in order, adjacent ones merged. Slot i of MLM and of SBO is the same token."""
    mlm_positions = batch["mlm_positions"][row]  # [M]
    slots = np.flatnonzero(batch["mlm_weights"][row])
    if not len(slots):
        return []
    # Spans of two blocks are never adjacent: [SEP] and [CLS] are between them.
    starts = np.flatnonzero(np.diff(mlm_positions[slots]) != 1) + 1
    return [
        _span_of_slots(batch, row, number, of_span, mask_id)
        for number, of_span in enumerate(np.split(slots, starts), 1)
    ]


def _span_of_slots(batch: Batch, row: int, number: int, slots: np.ndarray, mask_id: int) -> MaskedSpan:
    positions = batch["mlm_positions"][row][slots]
    original, seen = batch["mlm_targets"][row][slots].tolist(), batch["tokens"][row][positions].tolist()
    sbo_slots = slots[batch["sbo_weights"][row][slots] > 0]
    boundaries = None
    if len(sbo_slots):
        boundaries = int(batch["sbo_left"][row][sbo_slots[0]]), int(batch["sbo_right"][row][sbo_slots[0]])
    return MaskedSpan(
        number=number,
        first=int(positions[0]),
        last=int(positions[-1]),
        original=original,
        seen=seen,
        replacement=replacement_of(original, seen, mask_id),
        boundaries=boundaries,
        offsets=batch["sbo_offset"][row][sbo_slots].tolist(),
        joints=joints_of(batch["tags"][row][positions]) if "tags" in batch else [],
    )


def joints_of(tags: np.ndarray) -> list[int]:
    """Returns the indices of tokens where a tagged span begins that touches the one before.

    Args:
      tags: of a masked span; bits as in rows.Rows.read.
    """
    is_tagged, begins = tags & TAGGED, tags >> 1 & TAGGED
    return (np.flatnonzero(is_tagged[:-1] & is_tagged[1:] & begins[1:]) + 1).tolist()


def replacement_of(original: list[int], seen: list[int], mask_id: int) -> str:
    """Returns what replaced the tokens of a span, a key of REPLACEMENTS."""
    replacements = {
        "masked" if shown == mask_id else "kept" if shown == token else "random"
        for token, shown in zip(original, seen, strict=True)
    }
    return replacements.pop() if len(replacements) == 1 else "mixed"


def text_positions(batch: Batch, rows: Sequence[int]) -> np.ndarray:
    """Returns, as bool [rows, L], which positions are text: not padding, [CLS] or [SEP].

    [CLS] is at position 0 of a block; [SEP] is the last token of a segment or type.
    """
    segments, types = batch["segments"][rows], batch["token_types"][rows]  # [rows, L]
    numbers = np.pad(
        2 * segments + types, ((0, 0), (0, 1)), constant_values=-1
    )  # [rows, L + 1]: change after each [SEP]
    return (segments > 0) & (batch["positions"][rows] > 0) & (numbers[:, 1:] == numbers[:, :-1])


def summary(batch: Batch, rows: Iterable[int], mask_id: int) -> str:
    """Returns one line of figures on some rows together."""
    rows = list(rows)
    spans = [span for row in rows for span in spans_of(batch, row, mask_id)]
    counts = Counter(span.replacement for span in spans)
    by_replacement = ", ".join(f"{counts[name]} {name}" for name in REPLACEMENTS if counts[name])
    tokens = int(text_positions(batch, rows).sum())
    masked, targets = (int(np.count_nonzero(batch[f"{head}_weights"][rows])) for head in ("mlm", "sbo"))
    slots = batch["sbo_weights"][rows].size
    return (
        f"{masked} of {tokens} tokens masked ({masked / max(tokens, 1):.1%}), {len(spans)} spans"
        f" ({by_replacement or 'none'}), {targets} of {slots} SBO slots used,"
        f" {np.mean(batch['segments'][rows] == 0):.1%} padding"
    )

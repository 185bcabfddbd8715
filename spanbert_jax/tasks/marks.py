"""Text in which spans are marked as hidden.

    [[Abraham Lincoln]]    these words: the model does not see them, and its guess can be compared with them
    [MASK:3]               three tokens nobody knows; [MASK] is [MASK:1]

A mark holds whole words, and there is text between two marks. The text beside a [MASK] is cut into tokens as if a space stood there.
"""

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path

from spanbert_jax.data.sources.lines import lines as lines_of
from spanbert_jax.data.tokenizer import Tokenizer
from spanbert_jax.errors import InputError

MARK = re.compile(r"\[\[(?P<words>.*?)\]\]|\[MASK(?::(?P<tokens>[0-9]{1,4}))?\]")
REMAINS = re.compile(r"\[\[|\]\]|\[MASK\b")  # of a mark that was not understood
HELP = "mark what to hide as [[these words]], or as [MASK:3] for three unknown tokens"


@dataclasses.dataclass(frozen=True)
class Span:
    """A run of hidden tokens."""

    start: int  # index of its first token in the text's tokens
    length: int  # tokens
    true: tuple[int, ...] | None  # ids [length] of what was there; None if nobody knows
    text: str | None  # and as it was written

    @property
    def end(self) -> int:
        """Index after its last token."""
        return self.start + self.length


@dataclasses.dataclass(frozen=True)
class MarkedText:
    """A text as the model sees it, and as a person wrote it."""

    tokens: tuple[int, ...]  # ids, [MASK] throughout the spans; without [CLS] and [SEP]
    spans: tuple[Span, ...]  # in order; at least one, and a token between any two
    parts: tuple[str, ...]  # the text before the first span, between the spans, and after the last

    @property
    def marked(self) -> str:
        """The text with its marks."""
        marks = [f"[MASK:{span.length}]" if span.text is None else f"[[{span.text}]]" for span in self.spans]
        return self.filled(marks)

    def filled(self, fillings: Iterable[str]) -> str:
        """The text with a string put into each span. One that continues a word ("##ing") is joined to what stands before it."""
        text = self.parts[0]
        for filling, part in zip(fillings, self.parts[1:], strict=True):
            text = text.rstrip() + filling[2:] if filling.startswith("##") else text + filling
            text += part
        return text


def parse_marks(text: str, tokenizer: Tokenizer, where: str) -> MarkedText:
    """Reads one marked text; `where` ("line 3") names it in errors.

    Raises:
      InputError: no mark, one that is empty, unclosed, inside another or cuts a word, or two with nothing between them.
    """
    matches = list(MARK.finditer(text))
    edges = [0, *(edge for match in matches for edge in match.span()), len(text)]
    parts = tuple(text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True))
    written = tuple(match["words"] for match in matches)  # None for [MASK:n]
    for remains in (REMAINS.search(token) for token in (*parts, *filter(None, written))):
        if remains:
            raise InputError(f"{where}: {remains[0]!r} is no part of a whole mark; {HELP}")
    if not matches:
        raise InputError(f"{where}: nothing is marked; {HELP}")

    *between, after = tokenizer.encode(list(parts))
    hidden = tokenizer.encode([words or "" for words in written])
    tokens, spans = [], []
    for number, (match, before, true) in enumerate(zip(matches, between, hidden, strict=True)):
        length = len(true) if match["words"] is not None else int(match["tokens"] or 1)
        if not length:
            raise InputError(f"{where}: {match[0]!r} hides nothing; {HELP}")
        if spans and not before:
            raise InputError(
                f"{where}: two marks with nothing between them, the second {match[0]!r}; write them as one"
            )
        known = match["words"] is not None
        tokens += before
        spans.append(Span(len(tokens), length, tuple(true) if known else None, written[number]))
        tokens += [tokenizer.mask_id] * length
    check_words(parts, written, [*between, after], hidden, tokenizer, where)
    return MarkedText((*tokens, *after), tuple(spans), parts)


def read_lines(path: Path) -> dict[str, str]:
    """The lines of a text file that are not blank, by "file, line n". Raises InputError when it is not UTF-8 text or has none."""
    lines = {
        f"{path}, line {number}": line
        for number, line in enumerate((line for _, line in lines_of(str(path))), 1)
        if line
    }
    if not lines:
        raise InputError(f"{path} holds no text; {HELP}, a text a line")
    return lines


def check_words(parts, written, between, hidden, tokenizer: Tokenizer, where: str) -> None:
    """Raises InputError if a [[mark]] begins or ends inside a word: the text in one go then has other tokens than part by part."""
    for number, words in enumerate(written):
        if words is None:
            continue
        around = parts[number], words, parts[number + 1]
        [whole] = tokenizer.encode(["".join(around)])
        if whole != between[number] + hidden[number] + between[number + 1]:
            raise InputError(f"{where}: [[{words}]] cuts a word; mark whole words")


def hide(tokens: Iterable[int], hidden: Iterable[bool], tokenizer: Tokenizer) -> MarkedText:
    """The marked text of known tokens, of which every run of `hidden` ones is a span. Spaces in its parts are a guess."""
    tokens, hidden = list(tokens), list(hidden)
    turns = [index for index in range(1, len(tokens)) if hidden[index] != hidden[index - 1]]
    edges = [
        0,
        *([0] if hidden[0] else []),
        *turns,
        *([len(tokens)] if hidden[-1] else []),
        len(tokens),
    ]  # of parts and spans in turn
    spans = tuple(
        Span(start, end - start, tuple(tokens[start:end]), tokenizer.decode(tokens[start:end]))
        for start, end in zip(edges[1::2], edges[2::2])
    )
    parts = [tokenizer.decode(tokens[start:end]) for start, end in zip(edges[::2], edges[1::2], strict=True)]
    last = len(parts) - 1
    parts = tuple(_spaced(part, number > 0, number < last) for number, part in enumerate(parts))
    shown = tuple(tokenizer.mask_id if is_hidden else token for token, is_hidden in zip(tokens, hidden, strict=True))
    return MarkedText(shown, spans, parts)


def _spaced(part: str, follows: bool, goes_on: bool) -> str:
    """A decoded part, set off from the spans it follows and goes on to, except inside a word (which a budget may have cut)."""
    if not part:
        return part
    before = "" if not follows or part.startswith("##") else " "
    return before + (part.removeprefix("##") if follows else part) + " " * goes_on

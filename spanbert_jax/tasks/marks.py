"""Text in which spans are marked as hidden.

    [[Abraham Lincoln]]    known words: the model does not see them, and its guess can be compared with them
    [MASK:3]               three unknown tokens; [MASK] is short for [MASK:1]

A mark contains whole words, and there is text between two marks. The text on both sides of a [MASK] is tokenised as if
the [MASK] were a space.
"""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from spanbert_jax.data.sources.lines import text_lines
from spanbert_jax.data.tokenizer import CONTINUATION, Tokenizer
from spanbert_jax.errors import InputError

MARK = re.compile(r"\[\[(?P<words>.*?)\]\]|\[MASK(?::(?P<tokens>[0-9]{1,4}))?\]")
INCOMPLETE_MARK = re.compile(r"\[\[|\]\]|\[MASK\b")
HELP = "mark what to hide as [[these words]], or as [MASK:3] for three unknown tokens"


@dataclasses.dataclass(frozen=True)
class HiddenSpan:
    """An interval of hidden tokens."""

    start: int  # index of the first token in MarkedText.tokens
    length: int  # in tokens
    true: tuple[int, ...] | None  # ids [length] of the tokens that are hidden; None if they are unknown
    text: str | None  # the hidden words as they were written; None if they are unknown

    @property
    def end(self) -> int:
        """Index after the last token."""
        return self.start + self.length


@dataclasses.dataclass(frozen=True)
class MarkedText:
    """A text as the model sees it, and as it was written."""

    tokens: tuple[int, ...]  # ids; [MASK] at all positions of the spans; without [CLS] and [SEP]
    spans: tuple[HiddenSpan, ...]  # in order; at least one, and at least one token between any two
    context: tuple[str, ...]  # the text before the first span, between each two, and after the last: spans + 1 strings

    @property
    def marked(self) -> str:
        """The text with its marks."""
        marks = [f"[MASK:{span.length}]" if span.text is None else f"[[{span.text}]]" for span in self.spans]
        return self.filled(marks)

    def filled(self, fillings: Iterable[str]) -> str:
        """Returns the text with one string per span filled in. "##ing" is joined to the word before it."""
        text = self.context[0]
        for filling, after in zip(fillings, self.context[1:], strict=True):
            continues_word = filling.startswith(CONTINUATION)
            text = text.rstrip() + filling.removeprefix(CONTINUATION) if continues_word else text + filling
            text += after
        return text


def parse_marks(text: str, tokenizer: Tokenizer, where: str) -> MarkedText:
    """Parses one marked text; `where` ("line 3") names it in errors.

    Raises:
      InputError: there is no mark; one is empty, not closed, inside another or splits a word; two have no text between.
    """
    matches = list(MARK.finditer(text))
    edges = [0, *(edge for match in matches for edge in match.span()), len(text)]
    context = tuple(text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True))
    hidden_words = [match["words"] for match in matches]  # None for [MASK:n]
    for string in (*context, *filter(None, hidden_words)):
        if incomplete := INCOMPLETE_MARK.search(string):
            raise InputError(f"{where}: {incomplete[0]!r} is not part of a complete mark; {HELP}")
    if not matches:
        raise InputError(f"{where}: nothing is marked; {HELP}")

    context_ids = tokenizer.encode(list(context))
    hidden_ids = tokenizer.encode([words or "" for words in hidden_words])
    tokens: list[int] = []
    spans: list[HiddenSpan] = []
    for match, before, ids in zip(matches, context_ids, hidden_ids):
        is_known = match["words"] is not None
        length = len(ids) if is_known else int(match["tokens"] or 1)
        if not length:
            raise InputError(f"{where}: {match[0]!r} hides nothing; {HELP}")
        if spans and not before:
            raise InputError(f"{where}: nothing between two marks, the second of which is {match[0]!r}; join them")
        tokens += before
        spans.append(HiddenSpan(len(tokens), length, tuple(ids) if is_known else None, match["words"]))
        tokens += [tokenizer.mask_id] * length
    check_whole_words(context, hidden_words, context_ids, hidden_ids, tokenizer, where)
    return MarkedText((*tokens, *context_ids[-1]), tuple(spans), context)


def check_whole_words(
    context: Sequence[str],
    hidden_words: Sequence[str | None],
    context_ids: Sequence[list[int]],
    hidden_ids: Sequence[list[int]],
    tokenizer: Tokenizer,
    where: str,
) -> None:
    """Raises InputError if a [[mark]] begins or ends inside a word: the whole text then has other tokens."""
    for number, words in enumerate(hidden_words):
        if words is None:
            continue
        [whole_ids] = tokenizer.encode([context[number] + words + context[number + 1]])
        if whole_ids != context_ids[number] + hidden_ids[number] + context_ids[number + 1]:
            raise InputError(f"{where}: [[{words}]] splits a word; mark whole words")


def read_lines(path: Path) -> dict[str, str]:
    """Returns the lines of a text file that are not blank, by "FILE, line N".

    Raises:
      InputError: the file is not UTF-8 text, or all its lines are blank.
    """
    lines = {f"{path}, line {number}": line for number, line in enumerate(text_lines(str(path)), 1) if line}
    if not lines:
        raise InputError(f"{path} has no text; {HELP}, one text per line")
    return lines


def hide_tokens(tokens: Sequence[int], is_hidden: Sequence[bool], tokenizer: Tokenizer) -> MarkedText:
    """Returns the marked text of known tokens, each maximal interval of hidden ones as a span.

    The text is decoded from the tokens, so its spaces need not be those of the original.
    """
    # Edges of context and spans in turn; where a span touches an end of the text, the context there is empty.
    changes = [index for index in range(1, len(tokens)) if is_hidden[index] != is_hidden[index - 1]]
    edges = [0, *([0] if is_hidden[0] else []), *changes, *([len(tokens)] if is_hidden[-1] else []), len(tokens)]
    spans = tuple(
        HiddenSpan(start, end - start, tuple(tokens[start:end]), tokenizer.decode(tokens[start:end]))
        for start, end in zip(edges[1::2], edges[2::2])
    )
    context = [tokenizer.decode(tokens[start:end]) for start, end in zip(edges[::2], edges[1::2], strict=True)]
    last = len(context) - 1
    spaced = tuple(_add_spaces(string, number > 0, number < last) for number, string in enumerate(context))
    shown = tuple(tokenizer.mask_id if hidden else token for token, hidden in zip(tokens, is_hidden, strict=True))
    return MarkedText(shown, spans, spaced)


def _add_spaces(string: str, has_span_before: bool, has_span_after: bool) -> str:
    """Separates context from the spans beside it, except inside a word: the masking budget can end a span there."""
    if not string:
        return string
    if has_span_before:
        string = string.removeprefix(CONTINUATION) if string.startswith(CONTINUATION) else f" {string}"
    return f"{string} " if has_span_after else string

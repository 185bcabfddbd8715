"""Tagged sentences in columns: named entities, chunks, parts of speech. One word a line, a blank line after a sentence.

Source of the format: the shared tasks of CoNLL-2000 and 2003. Spans are read as their scorer, conlleval, reads them.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from spanbert_jax.errors import InputError
from spanbert_jax.folders import atomic_file
from spanbert_jax.labelled.files import Paths, Problems, find_files, reported_together, text_lines

Span = tuple[str, int, int]  # type, first word, last word

DOCUMENT = "-DOCSTART-"
# A line before a sentence that is about it: "# sent_id = 3", "# newdoc", "# id 12". A "#" alone is a word of tweets.
COMMENT = re.compile(r"# ?([\w.:\-]+ *=|id |newdoc|newpar|global\.columns)")
NOT_A_WORD = re.compile(r"\d+[-.]\d+")  # number of a multi-word token, or of an empty node, in CoNLL-U
CONLL_U_COLUMNS = 10

PLAIN = "plain"  # a label for each word, as of parts of speech
IOB1, IOB2, BIOES, BILOU = "IOB1", "IOB2", "BIOES", "BILOU"
SCHEMES = (IOB1, IOB2, BIOES, BILOU, PLAIN)
OUTSIDE = "O"
TAG = re.compile(r"([BIESLU])(?:-(.*))?|O")
# Scheme -> prefix of the words of a span: its first, those within, its last, and its only word.
PREFIXES = {IOB1: "IIII", IOB2: "BIIB", BIOES: "BIES", BILOU: "BILU"}


@dataclasses.dataclass(frozen=True)
class Sentence:
    """A sentence: its words, the tag of each (no tags at all where the file has none), and its document's number."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    document: int = 0


def read_conll(path: Paths, word_column: int = 0, tag_column: int = -1) -> list[Sentence]:
    """Returns the sentences of files, in order; documents are numbered through all of them.

    Columns are separated by tabs, if the first line with a word has one, or else by blanks. Lines of comment stand
    before a sentence, as in CoNLL-U. A file of one column is text to be tagged: its sentences have no tags.

    Args:
      path: of the files.
      word_column, tag_column: from 0; or from -1, the last, backwards.

    Raises:
      InputError: files are missing, or lines have more or fewer columns than the first.
    """
    sentences: list[Sentence] = []
    with reported_together() as problems:
        for number, file in enumerate(find_files(path)):
            document = sentences[-1].document + 1 if number and sentences else 0
            found = _Columns(file, word_column, tag_column, problems).sentences(document)
            if not found and not problems.lines:
                problems.add(file, "it has no sentences", "remove it from the input")
            sentences += found
    return sentences


class _Columns:
    """Reads one file. What its first line with a word has decides on the separator and the number of columns."""

    def __init__(self, file: str, word_column: int, tag_column: int, problems: Problems):
        self.file, self.columns, self.problems = file, (word_column, tag_column), problems
        self.tabs: bool | None = None
        self.count = 0

    def sentences(self, document: int) -> list[Sentence]:
        found: list[Sentence] = []
        words: list[str] = []
        tags: list[str] = []
        lines = itertools.chain(text_lines(self.file, self.problems), [(0, "")])
        for number, line in lines:
            starts = line.startswith(DOCUMENT)
            if not line.strip() or starts:
                if words:
                    found.append(Sentence(tuple(words), tuple(tags), document))
                    words, tags = [], []
                if starts and found:
                    document = found[-1].document + 1
            elif words or not self.is_comment(line):
                word, tag = self.word_and_tag(line, f"{self.file}, line {number}")
                words += word
                tags += tag
        return found

    def is_comment(self, line: str) -> bool:
        """Whether a line before a sentence is about it: where columns have tabs, a "# " without one is too."""
        return bool(COMMENT.match(line)) or (bool(self.tabs) and line.startswith("# ") and "\t" not in line)

    def word_and_tag(self, line: str, where: str) -> tuple[list[str], list[str]]:
        """Returns ([word], [tag]) of a line; nothing for what is wrong or no word, and no tag for untagged text."""
        if self.tabs is None:
            self.tabs = "\t" in line.strip()
        columns = line.split("\t") if self.tabs else re.split(" +", line.strip(" "))
        columns = [column.strip(" ") for column in columns]
        if not self.count:
            self.count = len(columns)
            for column in self.columns if self.count > 1 else ():
                if not -self.count <= column < self.count:
                    raise InputError(f"{where}: no column {column}, as it has {self.count}; give another column")
        if len(columns) != self.count:
            separator = "a tab" if self.tabs else "blanks"
            what = f"{len(columns)} columns, but {self.count} in the lines before"
            self.problems.add(where, what, f"separate as many by {separator}, or put a blank line after a sentence")
            return [], []
        if self.count == CONLL_U_COLUMNS and NOT_A_WORD.fullmatch(columns[0]):
            return [], []
        if self.count == 1:
            return columns, []
        word, tag = (columns[column] for column in self.columns)
        if not word or not tag:
            self.problems.add(where, f"the {'tag' if word else 'word'} is empty", "give it one, or remove the line")
            return [], []
        return [word], [tag]


def scheme_of(sentences: Iterable[Sentence]) -> str:
    """Returns the scheme of the tags, one of SCHEMES.

    Prefixes E and S are those of BIOES (also called IOBES), L and U those of BILOU. With B and I alone it is IOB1 if
    B is only used to part neighbours of one type and some span begins with I; else IOB2.

    Raises:
      InputError: the sentences have no tags.
    """
    tagged = [sentence.tags for sentence in sentences if sentence.tags]
    distinct = set(itertools.chain.from_iterable(tagged))
    if not distinct:
        raise InputError("the sentences have no tags; give a file with words and tags in columns")
    matches = [TAG.fullmatch(tag) for tag in distinct]
    if not all(matches):
        return PLAIN
    prefixes = {match[1] for match in matches if match} - {None}
    if prefixes & set("ES"):
        return PLAIN if prefixes & set("LU") else BIOES
    if prefixes & set("LU"):
        return BILOU
    begun_by_inside = needless = False  # needless: a B that parts nothing, so that it is there for each span
    for tags in tagged:
        for before, tag in itertools.pairwise((OUTSIDE, *tags)):
            same = before != OUTSIDE and _split(before)[1] == _split(tag)[1]
            prefix = _split(tag)[0]
            begun_by_inside |= prefix == "I" and not same
            needless |= prefix == "B" and not same
    return IOB1 if begun_by_inside and not needless else IOB2


def to_spans(tags: Sequence[str], scheme: str) -> list[Span]:
    """Returns (type, first, last) of the spans, both words inclusive, in order.

    Any sequence of tags has spans, also one that a model predicts against the scheme: as in conlleval, a span also
    begins where an I, E or L does not continue one of its type. With plain labels each word is a span.
    """
    if scheme == PLAIN:
        return [(tag, position, position) for position, tag in enumerate(tags)]
    spans: list[Span] = []
    open_type, first = None, 0  # of the span that goes on
    for position, tag in enumerate((*tags, OUTSIDE)):
        prefix, kind = _split(tag)
        goes_on = prefix in "IEL" and kind == open_type
        if open_type is not None and not goes_on:
            spans.append((open_type, first, position - 1))
            open_type = None
        if prefix == OUTSIDE:
            continue
        if not goes_on:
            open_type, first = kind, position
        if prefix in "ESLU":
            spans.append((kind, first, position))
            open_type = None
    return spans


def from_spans(spans: Iterable[Span], length: int, scheme: str = IOB2) -> tuple[str, ...]:
    """Returns the tags of a sentence of `length` words; the inverse of `to_spans`.

    Raises:
      ValueError: spans overlap or are not within the sentence.
    """
    tags = [OUTSIDE] * length
    end, last_type = 0, None  # of the span before
    for kind, first, last in sorted(spans, key=lambda span: span[1]):
        if not end <= first <= last < length:
            raise ValueError(f"span {kind} {first}-{last} overlaps the one before, or is not within {length} words")
        if scheme == PLAIN:
            tags[first : last + 1] = [kind] * (last + 1 - first)
        else:
            of, count = PREFIXES[scheme], last + 1 - first
            prefixes = of[3] if count == 1 else of[0] + of[1] * (count - 2) + of[2]
            if scheme == IOB1 and first == end and first and kind == last_type:
                prefixes = "B" + prefixes[1:]
            tags[first : last + 1] = [f"{prefix}-{kind}" if kind else prefix for prefix in prefixes]
        end, last_type = last + 1, kind
    return tuple(tags)


def write_conll(path: str | Path, sentences: Sequence[Sentence], predicted: Sequence[Sequence[str]]) -> None:
    """Writes word, tag and predicted tag of each word, separated by blanks, as conlleval reads them.

    The tag is left out where sentences have none. A blank within a word becomes "_".

    Raises:
      InputError: the file cannot be written.
      ValueError: a sentence has not one predicted tag for each word.
    """
    with atomic_file(Path(path)) as file:
        for sentence, tags in zip(sentences, predicted, strict=True):
            columns = [[re.sub(r"\s", "_", word) for word in sentence.words], sentence.tags or None, tags]
            for line in zip(*(column for column in columns if column is not None), strict=True):
                file.write(" ".join(line) + "\n")
            file.write("\n")


def _split(tag: str) -> tuple[str, str]:
    """Returns (prefix, type): ("B", "PER") of "B-PER", ("O", "") of "O"."""
    prefix, _, kind = tag.partition("-")
    return prefix, kind

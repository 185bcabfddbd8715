"""Documents with clusters of mentions of one thing: CoNLL-2012 (and OntoGUM's short form), and e2e-coref's JSON Lines.

Sources: Pradhan et al., CoNLL 2012; Zhu et al., ACL 2021 (OntoGUM); Lee et al., EMNLP 2017 (e2e-coref).
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from spanbert_jax.folders import atomic_file
from spanbert_jax.labelled.documents import Clusters, Document, Mention
from spanbert_jax.labelled.files import (
    Fields,
    Paths,
    Problems,
    find_files,
    first_line,
    records,
    reported_together,
    text_lines,
)
from spanbert_jax.labelled.gap import Gap, read_gap
from spanbert_jax.labelled.raw_text import document_of_text, read_raw_text

__all__ = [
    "Clusters",
    "Document",
    "Gap",
    "Mention",
    "document_of_text",
    "read_conll2012",
    "read_documents",
    "read_gap",
    "read_json_lines",
    "read_raw_text",
    "sorted_clusters",
    "write_conll2012",
]

IN_FOLDERS = ("*conll", "*.conll.gz", "*.conll.xz", "*.conll.bz2", "*.jsonl", "*.jsonlines")
BEGIN = re.compile(r"#\s*begin document\s*(?:\((?P<id>.*)\)\s*(?:;\s*part\s*(?P<part>\d+))?|(?P<name>.*?))\s*")
END = re.compile(r"#\s*end document\b.*")
MENTION = re.compile(r"\((?P<only>[^()|]+)\)|\((?P<first>[^()|]+)|(?P<last>[^()|]+)\)|\|")
SHORT_COLUMNS, MIN_COLUMNS = 3, 12  # of OntoGUM; of CoNLL-2012, which has one more for each predicate
NO_MENTION = ("-", "_", "*")
NO_SPEAKER = "-"
EMPTY_WORD = "_"


def read_documents(path: Paths) -> list[Document]:
    """Returns the documents of files of CoNLL-2012 or JSON Lines, which are known by their content.

    A folder stands for the files in it whose names end in "conll", "jsonl" or "jsonlines".

    Raises:
      InputError: files are missing or malformed.
    """
    return _read(path, lambda file: _json_lines if first_line(file).startswith("{") else _conll)


def read_conll2012(path: Paths) -> list[Document]:
    """Returns the documents of files in columns; a folder stands for the files in it whose names end in "conll".

    Of CoNLL-2012 words, speakers and mentions are read. Files of three columns (number, word, mentions) are OntoGUM's.
    Where a file has no blank lines, each document is one sentence.

    Raises:
      InputError: files are missing or malformed: other columns, or a mention that does not end or begin.
    """
    return _read(path, lambda file: _conll)


def read_json_lines(path: Paths) -> list[Document]:
    """Returns the documents of JSON Lines with doc_key, sentences, speakers and clusters. Raises InputError."""
    return _read(path, lambda file: _json_lines)


def _read(path: Paths, reader_of) -> list[Document]:
    found: list[Document] = []
    with reported_together() as problems:
        for file in find_files(path, IN_FOLDERS):
            before = len(found)
            found += reader_of(file)(file, problems)
            if len(found) == before and not problems.lines:
                problems.add(file, "it has no documents", "remove it from the input")
    return found


def genre_of(id: str) -> str:
    """Returns "bc" of OntoNotes' "bc/cctv/00/cctv_0000", "fiction" of GUM's "GUM_fiction_beast", else ""."""
    parts = id.split("_")
    if "/" in id:
        return id.split("/")[0]
    return parts[1] if parts[0] == "GUM" and len(parts) > 2 else ""


def sorted_clusters(clusters: Iterable[Iterable[Sequence[int]]]) -> Clusters:
    """Returns clusters in the order of `Document.clusters`, with each mention once."""
    return tuple(sorted(tuple(sorted({(first, last) for first, last in cluster})) for cluster in clusters))


def _conll(file: str, problems: Problems) -> Iterator[Document]:
    reader: _DocumentLines | None = None
    stem = PurePosixPath(file).name.split(".")[0]
    for number, line in text_lines(file, problems):
        where = f"{file}, line {number}"
        begins = BEGIN.fullmatch(line)
        if begins or END.fullmatch(line):
            if reader:
                yield reader.document()
            id = (begins["id"] or begins["name"] or stem) if begins else ""
            reader = _DocumentLines(id, int(begins["part"] or 0), where, problems) if begins else None
        elif not line.strip():
            if reader:
                reader.end_sentence()
        elif reader:
            reader.add(line, where)
        elif not line.startswith("#"):
            problems.add(where, "no '#begin document' stands before it", "begin each document with such a line")
            return
    if reader:
        problems.add(reader.where, f"document {reader.id} has no '#end document'", "get the file again: it is cut off")


class _DocumentLines:
    """Collects the lines of one document."""

    def __init__(self, id: str, part: int, where: str, problems: Problems):
        self.id, self.part, self.where, self.problems = id, part, where, problems
        self.sentences: list[list[tuple[str, str]]] = [[]]  # (word, speaker)
        self.count = 0  # words
        self.open: dict[str, list[tuple[int, str]]] = defaultdict(list)  # cluster -> (first word, where) of mentions
        self.clusters: dict[str, list[Mention]] = defaultdict(list)

    def end_sentence(self) -> None:
        if self.sentences[-1]:
            self.sentences.append([])

    def add(self, line: str, where: str) -> None:
        columns = [column.strip(" ") for column in line.split("\t")] if "\t" in line else line.split()
        if len(columns) != SHORT_COLUMNS and len(columns) < MIN_COLUMNS:
            what = f"{len(columns)} columns, not {SHORT_COLUMNS} (number, word, mentions) nor {MIN_COLUMNS} or more"
            self.problems.add(where, what, "give CoNLL-2012, or convert it to JSON Lines")
            return
        short = len(columns) == SHORT_COLUMNS
        word, speaker = (columns[1], NO_SPEAKER) if short else (columns[3], columns[9])
        self.sentences[-1].append((word or EMPTY_WORD, "" if speaker == NO_SPEAKER else speaker))
        if columns[-1] not in NO_MENTION:
            self.add_mentions(columns[-1], where)
        self.count += 1

    def add_mentions(self, column: str, where: str) -> None:
        matches = list(MENTION.finditer(column))
        if "".join(match[0] for match in matches) != column:
            self.problems.add(where, f"mentions {column!r} are not as in '(1)', '(1|(2' or '1)'", "correct them")
            return
        for match in matches:
            if match["only"]:
                self.clusters[match["only"]].append((self.count, self.count))
            elif match["first"]:
                self.open[match["first"]].append((self.count, where))
            elif match["last"] and self.open[match["last"]]:
                self.clusters[match["last"]].append((self.open[match["last"]].pop()[0], self.count))
            elif match["last"]:
                what = f"a mention of cluster {match['last']} ends that has not begun"
                self.problems.add(where, what, f"begin it with '({match['last']}'")

    def document(self) -> Document:
        for cluster, begun in self.open.items():
            for _, where in begun:
                what = f"the mention of cluster {cluster} that begins here does not end in its document"
                self.problems.add(where, what, f"end it with '{cluster})'")
        if not self.count:
            self.problems.add(self.where, f"document {self.id} has no words", "remove it")
        sentences = [sentence for sentence in self.sentences if sentence]
        words = tuple(tuple(word for word, _ in sentence) for sentence in sentences)
        speakers = tuple(tuple(speaker for _, speaker in sentence) for sentence in sentences)
        clusters = sorted_clusters(self.clusters.values())
        return Document(self.id, self.part, genre_of(self.id), words, speakers, clusters)


def _json_lines(file: str, problems: Problems) -> Iterator[Document]:
    for where, record in records(file, problems):
        fields = Fields(record, where, problems)
        key = fields.get("doc_key", str, PurePosixPath(file).name)
        sentences = fields.get("sentences", list)
        speakers = fields.get("speakers", list, [])
        clusters = fields.get("clusters", list, [])
        if not fields.wrong and not _are_words(sentences):
            fields.problem("'sentences' are not lists of words", 'as in [["He", "left", "."], ["So", "."]]')
        if not fields.wrong and speakers and not _have_shape(speakers, sentences):
            fields.problem(
                "'speakers' have not the shape of 'sentences'", "give a name (text) for each word, or leave them out"
            )
        count = 0 if fields.wrong else sum(map(len, sentences))
        if not fields.wrong and not _are_clusters(clusters, count):
            fields.problem(f"'clusters' are not lists of [first, last] of the {count} words", "correct them")
        if fields.wrong:
            continue
        # The id of e2e-coref has the part of CoNLL-2012 at its end: bc/cctv/00/cctv_0000_0.
        match = re.fullmatch(r"(.*/.*)_(\d+)", key)
        id, part = (match[1], int(match[2])) if match else (key, 0)
        known = speakers or [[""] * len(sentence) for sentence in sentences]
        yield Document(
            id,
            part,
            genre_of(id),
            tuple(map(tuple, sentences)),
            tuple(tuple("" if name in (None, NO_SPEAKER) else name for name in names) for names in known),
            sorted_clusters(clusters),
        )


def _are_words(value: list[Any]) -> bool:
    return all(
        isinstance(words, list) and words and all(isinstance(word, str) and word for word in words) for words in value
    )


def _have_shape(speakers: list[Any], sentences: list[Any]) -> bool:
    return len(speakers) == len(sentences) and all(
        isinstance(names, list) and len(names) == len(words) and all(isinstance(name, str | None) for name in names)
        for names, words in zip(speakers, sentences)
    )


def _are_clusters(value: list[Any], count: int) -> bool:
    return all(
        isinstance(mention, list)
        and len(mention) == 2
        and all(isinstance(end, int) for end in mention)
        and 0 <= mention[0] <= mention[1] < count
        for cluster in value
        for mention in (cluster if isinstance(cluster, list) else [None])
    )


def write_conll2012(path: str | Path, documents: Sequence[Document], clusters: Sequence[Clusters]) -> None:
    """Writes documents with the clusters of each, in the columns of CoNLL-2012 separated by tabs, as scorers read them.

    Reading the file gives the words, speakers and clusters again.

    Raises:
      InputError: the file cannot be written.
      ValueError: mentions of one cluster cross, which the format cannot say.
    """
    with atomic_file(Path(path)) as file:
        for document, found in zip(documents, clusters, strict=True):
            file.write(f"#begin document ({document.id}); part {document.part:03d}\n")
            marks = _marks(found)
            position = 0
            for words, speakers in zip(document.words, document.speakers):
                for number, (word, speaker) in enumerate(zip(words, speakers)):
                    columns = [document.id, str(document.part), str(number), word, "-", "*", "-", "-", "-"]
                    columns += [speaker or NO_SPEAKER, "*", "|".join(marks.get(position, "-"))]
                    file.write("\t".join(columns) + "\n")
                    position += 1
                file.write("\n")
            file.write("#end document\n")


def _marks(clusters: Clusters) -> dict[int, list[str]]:
    """Returns the marks at each word that has some: ends, then mentions of one word, then beginnings."""
    ends, only, begins = defaultdict(list), defaultdict(list), defaultdict(list)
    for number, cluster in enumerate(clusters):
        for (first, last), (other_first, other_last) in itertools.combinations(sorted(set(cluster)), 2):
            if first < other_first <= last < other_last:
                crossing = f"{first}-{last} and {other_first}-{other_last}"
                raise ValueError(f"mentions {crossing} of one cluster cross; CoNLL-2012 cannot say that")
        for first, last in sorted(set(cluster)):
            if first == last:
                only[first].append(f"({number})")
            else:
                begins[first].append((-last, f"({number}"))
                ends[last].append((-first, f"{number})"))
    return {
        word: [*(mark for _, mark in sorted(ends[word])), *only[word], *(mark for _, mark in sorted(begins[word]))]
        for word in {*ends, *only, *begins}
    }

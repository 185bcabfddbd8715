"""Relations between two marked spans of a sentence: TACRED and SemEval-2010 task 8.

Sources: Zhang et al., EMNLP 2017; Hendrickx et al., SemEval 2010.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from spanbert_jax.data.sources.compression import split_suffix
from spanbert_jax.errors import InputError
from spanbert_jax.folders import atomic_file
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
from spanbert_jax.labelled.tfds import PREFIX, name_and_split, read_tfds
from spanbert_jax.labelled.words import word_ranges

FIRST_LINE = re.compile(r"(\d+)\t(.*)")
MARKS = re.compile(r"<e1>(?P<e1>.*?)</e1>|<e2>(?P<e2>.*?)</e2>")
MARK = re.compile(r"</?e[12]>")
COMMENT = "Comment:"


@dataclasses.dataclass(frozen=True)
class Relation:
    """A sentence with two marked spans, and the relation of the first, the subject, to the second, the object.

    Attributes:
      id: of the example.
      words: of the sentence.
      subject, object: (first, last) word of the span, both inclusive.
      subject_type, object_type: such as PERSON; "" where the file has none.
      label: the relation; "" where the file has none (test data).
      blanks: what stands after each word, so that the text is known; () where the file has words alone.
    """

    id: str
    words: tuple[str, ...]
    subject: tuple[int, int]
    object: tuple[int, int]
    subject_type: str
    object_type: str
    label: str
    blanks: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The sentence; where blanks are not known, there is one after each word."""
        blanks = self.blanks or (*[" "] * (len(self.words) - 1), "")
        return "".join(word + blank for word, blank in zip(self.words, blanks))


def read_relations(path: Paths) -> list[Relation]:
    """Returns the examples of files of TACRED or SemEval-2010 task 8, which are known by their content.

    Of tfds:NAME/SPLIT, records with the fields of TACRED.

    Raises:
      InputError: files are missing or malformed, or of neither format.
    """
    if isinstance(path, str) and path.startswith(PREFIX):
        with reported_together() as problems:
            numbered = enumerate(read_tfds(*name_and_split(path)))
            return list(_tacred(((f"{path}, record {number}", record) for number, record in numbered), problems))
    return _read(path, None)


def read_tacred(path: Paths) -> list[Relation]:
    """Returns the examples of TACRED's JSON (an array, or one record on each line) or Parquet. Raises InputError."""
    return _read(path, _tacred_file)


def read_semeval(path: Paths) -> list[Relation]:
    """Returns the examples of SemEval's text: <e1> is the subject, <e2> the object. Raises InputError.

    The label has the direction, as in Cause-Effect(e2,e1).
    """
    return _read(path, _semeval)


def _read(path: Paths, reader) -> list[Relation]:
    found: list[Relation] = []
    with reported_together() as problems:
        for file in find_files(path):
            before = len(found)
            found += (reader or _reader_of(file))(file, problems)
            if len(found) == before and not problems.lines:
                problems.add(file, "it has no examples", "remove it from the input")
    return found


def _reader_of(file: str):
    if split_suffix(file)[0] == ".parquet":
        return _tacred_file
    line = first_line(file)
    if line.startswith(("[", "{")):
        return _tacred_file
    if FIRST_LINE.match(line):
        return _semeval
    advice = "give TACRED's JSON, or SemEval's text, in which lines begin with a number, a tab and a sentence"
    raise InputError(f"{file}, line 1: neither TACRED nor SemEval-2010 task 8; {advice}")


def _tacred_file(file: str, problems: Problems) -> Iterator[Relation]:
    return _tacred(records(file, problems), problems)


def _tacred(records_read: Iterable[tuple[str, dict]], problems: Problems) -> Iterator[Relation]:
    """Yields the examples of records, each with where it stands."""
    for number, (where, record) in enumerate(records_read, 1):
        if isinstance(record.get("id"), str):
            where += f" (id {record['id']})"
        fields = Fields(record, where, problems)
        words = fields.get("token", list)
        if not all(isinstance(word, str) and word for word in words):
            fields.problem("field 'token' is not a list of words", 'as in ["He", "left"]')
        spans = []
        for name in ("subj", "obj"):
            first, last = fields.get(f"{name}_start", int), fields.get(f"{name}_end", int)
            if not fields.wrong and not 0 <= first <= last < len(words):
                what = f"{name}_start {first} and {name}_end {last} are no first and last of {len(words)} words"
                fields.problem(what, "count from 0, with the last inclusive")
            spans.append((first, last))
        id, label = fields.get("id", str, str(number)), fields.get("relation", str, "")
        types = fields.get("subj_type", str, ""), fields.get("obj_type", str, "")
        if not fields.wrong:
            yield Relation(id, tuple(words), spans[0], spans[1], types[0], types[1], label)


def _semeval(file: str, problems: Problems) -> Iterator[Relation]:
    example: Relation | None = None
    skipping = False  # what follows a line that is wrong
    for number, line in text_lines(file, problems):
        line, where = line.strip(), f"{file}, line {number}"
        if match := FIRST_LINE.fullmatch(line):
            if example:
                yield example
            example = _marked_sentence(match[1], match[2], where, problems)
            skipping = example is None
        elif not line or line.startswith(COMMENT) or skipping:
            continue
        elif example is None:
            problems.add(where, "no sentence stands before it", "begin with a number, a tab and a sentence")
        elif example.label:
            what = f"a second label of example {example.id}"
            problems.add(where, what, f"give one label, and begin what is more with '{COMMENT}'")
        else:
            example = dataclasses.replace(example, label=line)
    if example:
        yield example


def _marked_sentence(id: str, text: str, where: str, problems: Problems) -> Relation | None:
    """Returns the example without label; None if there is a problem."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    text = text.strip()
    found = {match.lastgroup: match for match in MARKS.finditer(text)}
    contents = [match[match.lastgroup].strip() for match in found.values() if match.lastgroup]
    if len(found) != 2 or not all(contents) or len(MARK.findall(text)) != 4 or any(map(MARK.search, contents)):
        problems.add(where, "it has not one <e1>...</e1> and one <e2>...</e2>", "mark the two spans of the sentence")
        return None
    words: list[str] = []
    blanks: list[str] = []
    spans = {}
    for part in re.split(r"(<e[12]>.*?</e[12]>)", text):
        name = part[1:3] if MARK.match(part) else ""
        part, first = MARK.sub("", part), len(words)
        ranges = word_ranges(part)
        if blanks:  # what stands before the first word of this part
            blanks[-1] += part[: ranges[0][0] if ranges else len(part)]
        for (begin, end), (following, _) in zip(ranges, [*ranges[1:], (len(part), 0)]):
            words.append(part[begin:end])
            blanks.append(part[end:following])
        spans[name] = first, len(words) - 1
    return Relation(id, tuple(words), spans["e1"], spans["e2"], "", "", "", tuple(blanks))


def write_semeval(path: str | Path, labels: Mapping[str, str]) -> None:
    """Writes "id TAB label" lines, as SemEval's scorer reads them. Raises InputError if it cannot be written."""
    with atomic_file(Path(path)) as file:
        file.writelines(f"{id}\t{label}\n" for id, label in labels.items())


def write_tacred(path: str | Path, labels: Iterable[str]) -> None:
    """Writes one label a line, as TACRED's scorer reads them. Raises InputError if it cannot be written."""
    with atomic_file(Path(path)) as file:
        file.writelines(f"{label}\n" for label in labels)

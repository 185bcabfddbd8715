"""Questions on a text, whose answers are spans of it: SQuAD 1.1 and 2.0, MRQA, and flat records (JSON Lines, Parquet).

The formats are known by their content. Sources: Rajpurkar et al., EMNLP 2016 and ACL 2018; Fisch et al., MRQA 2019.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spanbert_jax.data.sources.compression import split_suffix
from spanbert_jax.errors import InputError
from spanbert_jax.labelled.files import (
    Fields,
    Paths,
    Problems,
    find_files,
    first_line,
    read_json,
    records,
    reported_together,
)

NOWHERE = -1  # start of an answer that does not stand in its text


@dataclasses.dataclass(frozen=True)
class Question:
    """A question on a text.

    Attributes:
      id: no other question of the files has it.
      title: of the document from which the text is; "" if unknown.
      context: the text.
      question: the question.
      answers: (text, its first character in the context) of each answer; NOWHERE for one that does not stand in the
        context: predictions are compared with it, but nothing is trained on it. Empty when there is no answer, or when
        the file has none (test data).
      impossible: whether the context is known to have no answer.
    """

    id: str
    title: str
    context: str
    question: str
    answers: tuple[tuple[str, int], ...]
    impossible: bool = False


def read_questions(path: Paths) -> tuple[list[Question], list[str]]:
    """Returns the questions of files, in order, and notes for people on the answers that were moved or are nowhere.

    An answer that does not stand where the file says is looked for: the nearest occurrence is taken.

    Raises:
      InputError: files are missing or malformed, or two questions have the same id.
    """
    found: dict[str, Question] = {}
    notes = []
    with reported_together() as problems:
        for file in find_files(path):
            offsets = Offsets(file)
            before = len(found)
            for where, question in _questions(file, problems, offsets):
                if question.id in found:
                    problems.add(
                        where, f"id '{question.id}' is that of an earlier question", "give it an id of its own"
                    )
                found[question.id] = question
            if len(found) == before and not problems.lines:
                problems.add(file, "it has no questions", "remove it, or give a file of SQuAD, MRQA or flat records")
            notes += offsets.notes()
    return list(found.values()), notes


class Offsets:
    """Finds answers in their text, and counts those that do not stand where the file says."""

    def __init__(self, file: str):
        self.file = file
        self.moved: list[str] = []  # ids of questions, one for each answer
        self.nowhere: list[str] = []

    def locate(self, context: str, text: str, start: int, id: str) -> tuple[str, int]:
        """Returns (text, first character) of an answer of which the file says that it begins at `start`."""
        if text and start >= 0 and context.startswith(text, start):
            return text, start
        nearest = nearest_occurrence(context, text, start)
        (self.nowhere if nearest == NOWHERE else self.moved).append(id)
        return text, nearest

    def notes(self) -> list[str]:
        """Returns a line for each kind of answer that was counted."""
        kinds = (
            (self.moved, "that do not stand at their offset, so that the nearest occurrence is taken"),
            (self.nowhere, "that occur nowhere in their text, so that they are for scoring, not for training"),
        )
        return [
            f"{self.file}: answers {what}: {len(ids):,} (the first is of question {ids[0]})"
            for ids, what in kinds
            if ids
        ]


def nearest_occurrence(context: str, text: str, start: int) -> int:
    """Returns where the occurrence of a text begins that is nearest to `start`, the earlier of two; NOWHERE if none."""
    if not text:
        return NOWHERE
    start = min(max(start, 0), len(context))
    before = context.rfind(text, 0, start + len(text))
    after = context.find(text, start)
    found = [position for position in (before, after) if position >= 0]
    return min(found, key=lambda position: abs(position - start), default=NOWHERE)


def _questions(file: str, problems: Problems, offsets: Offsets) -> Iterator[tuple[str, Question]]:
    """Yields (where it stands, question) of one file, of any of the formats."""
    if split_suffix(file)[0] == ".parquet":
        yield from _flat_questions(file, problems, offsets)
        return
    line = first_line(file)
    try:
        first = json.loads(line)
    except (ValueError, RecursionError):
        first = None  # the record has several lines
    if isinstance(first, dict) and "data" not in first:
        if "header" in first or "qas" in first:
            yield from _mrqa_questions(file, problems, offsets)
        else:
            yield from _flat_questions(file, problems, offsets)
    elif line.startswith("{"):
        value = read_json(file)
        if "data" not in value:
            known = ", ".join(f"'{key}'" for key in value)
            advice = "give SQuAD's JSON, MRQA's JSON Lines, or one record of context, question and answers on each line"
            raise InputError(f"{file}: no field 'data', as SQuAD has (it has {known}); {advice}")
        yield from _squad_questions(value, file, problems, offsets)
    elif line.startswith("["):
        yield from _flat_questions(file, problems, offsets)
    elif line:
        raise InputError(f"{file}, line 1: neither JSON nor Parquet; give a file of SQuAD, MRQA or flat records")


def _squad_questions(value: dict, file: str, problems: Problems, offsets: Offsets) -> Iterator[tuple[str, Question]]:
    for a, article in enumerate(Fields(value, file, problems).get("data", list), 1):
        fields = Fields(article, f"{file}, article {a}", problems)
        title = fields.get("title", str, "")
        for p, paragraph in enumerate(fields.get("paragraphs", list), 1):
            fields = Fields(paragraph, f"{file}, article {a} ({title}), paragraph {p}", problems)
            context = fields.get("context", str)
            for q, record in enumerate(fields.get("qas", list), 1):
                where = f"{fields.where}, question {q}"
                if isinstance(record, dict) and "id" in record:
                    where += f" (id {record['id']})"
                question = Fields(record, where, problems)
                id, text = question.get("id", str), question.get("question", str)
                impossible = question.get("is_impossible", bool, False)
                answers = []
                for answer in question.get("answers", list, []):
                    answer = Fields(answer, where, problems)
                    answers.append((answer.get("text", str), answer.get("answer_start", int)))
                    question.wrong |= answer.wrong
                if impossible and answers:
                    question.problem("it is marked as impossible and has answers", "remove the one or the other")
                if not question.wrong and not fields.wrong:
                    located = tuple(offsets.locate(context, *answer, id) for answer in answers)
                    yield where, Question(id, title, context, text, located, impossible)


def _mrqa_questions(file: str, problems: Problems, offsets: Offsets) -> Iterator[tuple[str, Question]]:
    for where, record in records(file, problems):
        if "header" in record:
            continue
        fields = Fields(record, where, problems)
        context = fields.get("context", str)
        for q, qa in enumerate(fields.get("qas", list), 1):
            question = Fields(qa, f"{where}, question {q}", problems)
            id = question.get("qid", str, question.record.get("id")) or ""
            text = question.get("question", str)
            answers: list[tuple[str, int]] = []
            for detected in question.get("detected_answers", list, []):
                answer = Fields(detected, question.where, problems)
                answers += _mrqa_spans(answer, context, id, offsets)
                question.wrong |= answer.wrong
            texts = {answer for answer, _ in answers}
            # Predictions are compared with all spellings of the answer, whether they stand in the text or not.
            others = question.get("answers", list, [])
            if not all(isinstance(other, str) for other in others):
                question.problem("'answers' is not a list of text", 'as in ["an answer"]')
            answers += [(other, NOWHERE) for other in others if isinstance(other, str) and other not in texts]
            if not question.wrong and not fields.wrong:
                yield question.where, Question(id, "", context, text, tuple(answers))


def _mrqa_spans(answer: Fields, context: str, id: str, offsets: Offsets) -> Iterator[tuple[str, int]]:
    """Yields (text, first character) of each occurrence of a detected answer: char_spans are inclusive."""
    text = answer.get("text", str)
    for span in answer.get("char_spans", list):
        if not (isinstance(span, list) and len(span) == 2 and all(isinstance(end, int) for end in span)):
            answer.problem(f"char_spans has {span!r}, not [first, last] character", "correct it")
            return
        there = context[max(span[0], 0) : span[1] + 1]
        if there.casefold() == text.casefold():  # detected without regard to case
            yield there, span[0]
        else:
            yield offsets.locate(context, text, span[0], id)


def _flat_questions(file: str, problems: Problems, offsets: Offsets) -> Iterator[tuple[str, Question]]:
    for number, (where, record) in enumerate(records(file, problems), 1):
        question = question_of_record(record, where, f"{Path(file).name}:{number}", problems, offsets)
        if question:
            yield where, question


def question_of_record(
    record: dict[str, Any], where: str, id: str, problems: Problems, offsets: Offsets
) -> Question | None:
    """Returns the question of a flat record, whose answers are {"text": [...], "answer_start": [...]}.

    Where these lists are empty, the question is impossible, as in Hugging Face's squad_v2; where there are no
    `answers`, they are unknown. `id` stands for one that the record lacks. Returns None after a problem.
    """
    if isinstance(record.get("id"), int):
        record = record | {"id": str(record["id"])}
    fields = Fields(record, where, problems)
    id, title = fields.get("id", str, id), fields.get("title", str, "")
    context, question = fields.get("context", str), fields.get("question", str)
    answers = Fields(fields.get("answers", dict, {}), where, problems)
    texts, starts = answers.get("text", list, []), answers.get("answer_start", list, [])
    if len(texts) != len(starts):
        answers.problem(f"{len(texts)} texts of answers and {len(starts)} values of answer_start", "give one for each")
    elif not all(isinstance(text, str) and isinstance(start, int) for text, start in zip(texts, starts)):
        answers.problem("answers are not lists of text and of numbers", 'as in {"text": ["x"], "answer_start": [0]}')
    impossible = fields.get("is_impossible", bool, record.get("answers") is not None and not texts)
    if impossible and texts:
        fields.problem("it is marked as impossible and has answers", "remove the one or the other")
    if fields.wrong or answers.wrong:
        return None
    located = tuple(offsets.locate(context, text, start, id) for text, start in zip(texts, starts))
    return Question(id, title, context, question, located, impossible)

"""Questions: the same ones from each format, answers found again, and what is malformed."""

import gzip
import json

import pytest

from spanbert_jax.errors import InputError
from spanbert_jax.labelled.questions import NOWHERE, Question, nearest_occurrence, read_questions

CONTEXT = "The red hen saw the red fox."
WHO = Question("q1", "", CONTEXT, "Who saw it?", (("The red hen", 0), ("hen", 8)))
WHAT = Question("q2", "", CONTEXT, "What else?", (), True)


def squad(answers, **more):
    qa = {"id": "q1", "question": "Who saw it?", "answers": answers} | more
    paragraphs = [{"context": CONTEXT, "qas": [qa]}]
    return {"version": "x", "data": [{"title": "Hens", "paragraphs": paragraphs}]}


def answer(text, start):
    return {"text": text, "answer_start": start}


def written(path, value, indent=None):
    path.write_text(json.dumps(value, indent=indent) if isinstance(value, dict) else "\n".join(map(json.dumps, value)))
    return path


@pytest.mark.parametrize("indent", [None, 1])
def test_squad(tmp_path, indent):
    one = squad([answer("The red hen", 0), answer("hen", 8)])
    found, notes = read_questions(written(tmp_path / "x.json", one, indent))
    assert (found, notes) == ([Question("q1", "Hens", *vars_of(WHO))], [])
    two = squad([], is_impossible=True, plausible_answers=[answer("fox", 24)])
    (found,), notes = read_questions(written(tmp_path / "x.json", two, indent))
    assert found.impossible and not found.answers and notes == []
    (found,), _ = read_questions(written(tmp_path / "x.json", squad([]), indent))
    assert not found.impossible  # test data of SQuAD 1.1


def vars_of(question):
    return question.context, question.question, question.answers, question.impossible


def flat(question):
    texts, starts = zip(*question.answers) if question.answers else ((), ())
    answers = {"text": list(texts), "answer_start": list(starts)}
    return {"id": question.id, "context": CONTEXT, "question": question.question, "answers": answers}


def test_flat_records(tmp_path):
    rows = [flat(WHO), flat(WHAT)]
    assert read_questions(written(tmp_path / "x.jsonl", rows)) == ([WHO, WHAT], [])
    (tmp_path / "x.json").write_text(json.dumps(rows, indent=2))
    assert read_questions(tmp_path / "x.json") == ([WHO, WHAT], [])
    (asked,), _ = read_questions(written(tmp_path / "x.jsonl", [{"context": "a", "question": "b"}]))
    assert asked == Question("x.jsonl:1", "", "a", "b", (), False)  # unknown, not impossible


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="reads Parquet")
    parquet = pytest.importorskip("pyarrow.parquet", reason="reads Parquet")
    parquet.write_table(pyarrow.Table.from_pylist([flat(WHO), flat(WHAT)]), tmp_path / "x.parquet")
    assert read_questions(tmp_path / "x.parquet") == ([WHO, WHAT], [])


@pytest.mark.parametrize("header", [True, False])
def test_mrqa(tmp_path, header):
    detected = [{"text": "the red", "char_spans": [[0, 6], [16, 22]]}, {"text": "fox", "char_spans": [[20, 22]]}]
    qa = {"qid": "q1", "question": "Who?", "detected_answers": detected, "answers": ["fox", "a vixen"]}
    lines = [{"header": {"dataset": "Hens"}}] * header + [{"id": "", "context": CONTEXT, "qas": [qa]}]
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, lines)).encode()))
    (found,), (note,) = read_questions(tmp_path / "x.jsonl.gz")
    # Spans are inclusive, detected without regard to case; other spellings are for scoring alone.
    assert found.answers == (("The red", 0), ("the red", 16), ("fox", 24), ("a vixen", NOWHERE))
    assert "nearest occurrence is taken: 1 (the first is of question q1)" in note


def test_answers_are_looked_for_and_counted(tmp_path):
    rows = [answer("red", 14), answer("red", 0), answer("hen", 8), answer("cow", 3), answer("", 0)]
    (found,), notes = read_questions(written(tmp_path / "x.json", squad(rows)))
    assert found.answers == (("red", 20), ("red", 4), ("hen", 8), ("cow", NOWHERE), ("", NOWHERE))
    assert ["nearest occurrence is taken: 2 (" in notes[0], "not for training: 2 (" in notes[1]] == [True, True]


@pytest.mark.parametrize("start", range(-3, 12))
def test_the_nearest_occurrence(start):
    text = "ab.ab..ab"
    nearest = min((0, 3, 7), key=lambda position: abs(position - max(start, 0)))
    assert nearest_occurrence(text, "ab", start) == nearest
    assert nearest_occurrence(text, "c", start) == NOWHERE


def test_what_is_malformed(tmp_path):
    bad = squad([{"text": "hen"}, answer(3, "x")], is_impossible=True)
    bad["data"].append({"title": "Cows"})
    with pytest.raises(InputError) as error:
        read_questions(written(tmp_path / "x.json", bad))
    lines = str(error.value).splitlines()
    place = f"{tmp_path}/x.json, article 1 (Hens), paragraph 1, question 1 (id q1): "
    assert [line.startswith(place) for line in lines] == [True, True, True, True, False]
    assert "no field 'answer_start'" in lines[0] and "'text' is int, not str" in lines[1]
    assert "impossible and has answers" in lines[3] and "article 2: no field 'paragraphs'" in lines[4]
    for rows, said in (
        ([flat(WHO), flat(WHO)], "line 2: id 'q1' is that of an earlier question"),
        ([flat(WHO) | {"answers": {"text": ["a"], "answer_start": []}}], "1 texts of answers and 0 values"),
        ([flat(WHO) | {"answers": {"text": [1], "answer_start": [1]}}], "not lists of text and of numbers"),
        ([{"context": CONTEXT}], "line 1: no field 'question'"),
        ([], "has no questions"),
        ({"a": 1}, "no field 'context'"),
        ({"data": []}, "has no questions"),
        (
            [{"qas": [{"qid": "1", "question": "", "detected_answers": [{"text": "", "char_spans": [1]}]}]}],
            "char_spans",
        ),
    ):
        with pytest.raises(InputError, match=said):
            read_questions(written(tmp_path / "x", rows))
    (tmp_path / "x").write_text("id\tcontext\n")
    with pytest.raises(InputError, match="line 1: neither JSON nor Parquet"):
        read_questions(tmp_path / "x")
    with pytest.raises(InputError, match="no field 'data', as SQuAD has"):
        read_questions(written(tmp_path / "x", {"a": 1, "b": 2}, indent=1))

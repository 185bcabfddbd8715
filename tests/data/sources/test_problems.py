"""Problems are refused or skipped, counted by kind, and named by file and line."""

import json

import pytest

from spanbert_jax.data.sources.problems import KINDS, PLACES, Problem, Skipped, refuse, skipped_lines, summed
from spanbert_jax.errors import InputError


def problem(kind, number=0, where="a.txt", offset=None):
    return Problem(kind, where, offset, f"problem {number}", "do this", "field")


def test_a_problem_is_refused_unless_it_is_harmless():
    for kind in KINDS.keys() - {"blank"}:
        for report in (refuse, Skipped(strict=True)):
            with pytest.raises(InputError, match=r"^corpus: a.txt: problem 0; do this$") as error:
                report(problem(kind))
            assert error.value.setting == "field"
    refuse(problem("blank"))
    skipped = Skipped(strict=True)
    skipped(problem("blank"))
    assert skipped.counts == {"blank": 1}


def test_the_line_is_counted_for_the_message(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\n")
    where = str(tmp_path / "a.txt")
    assert [problem("long", 0, where, offset).message() for offset in (0, 3, 4, 8)] == [
        f"{where}, line {number}: problem 0" for number in (1, 1, 2, 3)
    ]


def test_parts_are_summed_and_the_first_of_each_kind_named():
    parts = []
    for begin in (0, 1, 2):
        skipped = Skipped()
        for number in range(10 * begin, 10 * begin + 2):
            skipped(problem("record", number))
        parts.append(json.loads(json.dumps(skipped.to_json())))
    parts.append({})
    one = Skipped()
    one(problem("empty", where="b.txt"))
    total = summed([*parts, one.to_json()])
    assert total == {
        "empty": {"count": 1, "first": ["b.txt: problem 0"]},
        "record": {"count": 6, "first": ["a.txt: problem 0", "a.txt: problem 1", "a.txt: problem 10"]},
    }
    assert PLACES == 3
    assert skipped_lines(total) == [
        "skipped 1 file without text: b.txt: problem 0",
        "skipped 6 broken records: a.txt: problem 0; a.txt: problem 1; a.txt: problem 10; and 3 more",
    ]
    assert summed([]) == {} and skipped_lines({}) == []

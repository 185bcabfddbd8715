"""Whatever a file has in it, its reader returns examples or raises InputError."""

import contextlib
import json
import random

import pytest

from spanbert_jax.errors import InputError
from spanbert_jax.labelled import conll, coreference, gap, questions, relations, table

QA = {"id": "1", "question": "b?", "answers": [{"text": "a", "answer_start": 0}], "is_impossible": False}
SPANS = [{"text": "a", "char_spans": [[0, 0]]}]
MARKS = {"subj_start": 0, "subj_end": 0, "obj_start": 1, "obj_end": 1}
FILES = {
    "squad.json": (questions.read_questions, {"data": [{"paragraphs": [{"context": "a b", "qas": [QA]}]}]}),
    "flat.jsonl": (questions.read_questions, {"context": "a", "question": "b", "answers": {"text": ["a"]}}),
    "mrqa.jsonl": (
        questions.read_questions,
        {"context": "a", "qas": [{"qid": "1", "question": "b", "detected_answers": SPANS, "answers": ["c"]}]},
    ),
    "tags.conll": (conll.read_conll, "a O\nb B-A\n\n# id 3\nc O\n"),
    "semeval.txt": (relations.read_relations, '1\t"<e1>a</e1> <e2>b</e2>"\nOther\n'),
    "tacred.json": (relations.read_relations, [{"token": ["a", "b"], "relation": "c"} | MARKS]),
    "table.csv": (table.read_table, 'text,label\n"a",1\n'),
    "table.jsonl": (lambda path: table.read_table(path, labels_are_numbers=True), {"text": "a", "label": 1}),
    "x.conll": (coreference.read_documents, "#begin document (a); part 0\n0\ta\t(1)(2\n1\tb\t2)\n#end document\n"),
    "x.jsonl": (
        coreference.read_documents,
        {"doc_key": "a", "sentences": [["a", "b"]], "speakers": [["x", ""]], "clusters": [[[0, 0], [1, 1]]]},
    ),
    "gap.tsv": (gap.read_gap, "1\ta he b\the\t2\ta\t0\tTRUE\tb\t5\tFALSE\n"),
}
VALUES = (None, 0, -1, 1.5, 10**400, "", "\ud83d", [], {}, True, [1], [[1]], [None], {"a": 1})
BYTES = (b"\t", b"\n", b'"', b"(", b"[", b"}", b"\0", b"\xff", b"\\ud83d", b"1", b"")


def changed_value(value, generator):
    if generator.random() < 0.15:
        return generator.choice(VALUES)
    if isinstance(value, dict):
        return {key: changed_value(item, generator) for key, item in value.items() if generator.random() > 0.05}
    if isinstance(value, list):
        return [changed_value(item, generator) for item in value]
    return value


def changed_bytes(data, generator):
    for _ in range(3):
        begin = generator.randrange(len(data) + 1)
        data = data[:begin] + generator.choice(BYTES) + data[begin + generator.randrange(3) :]
    return data


@pytest.mark.parametrize("name", FILES)
def test_damage_is_an_input_error(tmp_path, name):
    reader, content = FILES[name]
    path = tmp_path / name
    generator = random.Random(0)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    if name != "flat.jsonl":  # its answers lack their starts
        assert reader(path)
    for _ in range(60):
        value = content if isinstance(content, str) else changed_value(content, generator)
        data = value if isinstance(value, str) else json.dumps(value)
        data = data.encode("utf-8", "surrogatepass")
        path.write_bytes(changed_bytes(data, generator) if value == content or generator.random() < 0.3 else data)
        with contextlib.suppress(InputError):
            reader(path)

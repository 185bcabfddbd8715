"""Relations: SemEval's text and TACRED's JSON, known by their content."""

import json

import pytest

from spanbert_jax.errors import InputError
from spanbert_jax.labelled.relations import read_relations, read_semeval, read_tacred, write_semeval, write_tacred

SEMEVAL = (
    '1\t"The <e1>old hen</e1>\'s <e2>egg</e2>s, "here"."\r\nProduct-Producer(e2,e1)\r\nComment: yes\r\n\r\n'
    '2\t"A<e2>fox</e2> ate  <e1>it</e1>"\n\n'
)
RECORD = {
    "id": "x1",
    "token": ["Ann", "Lee", "left", "Bonn"],
    "subj_start": 0,
    "subj_end": 1,
    "obj_start": 3,
    "obj_end": 3,
    "subj_type": "PERSON",
    "obj_type": "CITY",
    "relation": "no_relation",
}


def written(tmp_path, text):
    (tmp_path / "x").write_text(text if isinstance(text, str) else json.dumps(text), newline="")
    return tmp_path / "x"


def test_semeval(tmp_path):
    first, second = read_relations(written(tmp_path, SEMEVAL))
    assert first.words == ("The", "old", "hen", "'", "s", "egg", "s", ",", '"', "here", '"', ".")
    assert (first.id, first.subject, first.object, first.label) == ("1", (1, 2), (5, 5), "Product-Producer(e2,e1)")
    assert first.text == 'The old hen\'s eggs, "here".'
    assert (second.id, second.subject, second.object, second.label) == ("2", (3, 3), (1, 1), "")
    assert second.text == "Afox ate  it" and second.words == ("A", "fox", "ate", "it")


def test_tacred(tmp_path):
    unlabelled = {key: value for key, value in RECORD.items() if key not in ("relation", "id", "subj_type")}
    first, second = read_relations(written(tmp_path, [RECORD, unlabelled]))
    assert (first.id, first.words, first.subject, first.object) == ("x1", tuple(RECORD["token"]), (0, 1), (3, 3))
    assert (first.subject_type, first.object_type, first.label) == ("PERSON", "CITY", "no_relation")
    assert (second.id, second.label, second.subject_type, second.text) == ("2", "", "", "Ann Lee left Bonn")


def test_what_is_malformed(tmp_path):
    marked = "1\tno marks\nOther\n2\t<e1>a</e1> <e1>b</e1>\n3\t<e1>a <e2>b</e2></e1>\n4\t<e1> </e1> <e2>b</e2>\n"
    text = f"Other\n{marked}5\t<e1>a</e1> <e2>b</e2>\nOther\nSo\n"
    with pytest.raises(InputError) as error:
        read_semeval(written(tmp_path, text))
    lines = str(error.value).splitlines()
    assert [line.split(": ")[0].split(", line ")[1] for line in lines] == ["1", "2", "4", "5", "6", "9"]
    assert "no sentence stands before" in lines[0] and "not one <e1>" in lines[1] and "second label" in lines[5]
    bad = [RECORD | {"subj_end": 4}, RECORD | {"obj_start": None}, RECORD | {"token": [1]}]
    with pytest.raises(InputError) as error:
        read_tacred(written(tmp_path, bad))
    lines = str(error.value).splitlines()
    assert "record 1 (id x1): subj_start 0 and subj_end 4 are no first and last of 4 words" in lines[0]
    assert "no field 'obj_start'" in lines[1] and "'token' is not a list of words" in lines[2]
    for text, said in (("a\tb\n", "line 1: neither TACRED nor SemEval"), ("[]", "no examples")):
        with pytest.raises(InputError, match=said):
            read_relations(written(tmp_path, text))


def test_outputs(tmp_path):
    write_semeval(tmp_path / "a", {"8001": "Other", "8002": "Message-Topic(e1,e2)"})
    write_tacred(tmp_path / "b", ["no_relation", "per:title"])
    assert (tmp_path / "a").read_text() == "8001\tOther\n8002\tMessage-Topic(e1,e2)\n"
    assert (tmp_path / "b").read_text() == "no_relation\nper:title\n"

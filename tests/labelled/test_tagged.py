"""Tagged sentences: records, columns, schemes, running text, and what is wrong in them."""

import json

import pytest

from spanbert_jax.errors import InputError
from spanbert_jax.labelled.tagged import Tagged, inner_spans, read_tagged, tagged_text

WORDS = ("the", "King", "of", "Spain", "spoke")
SPANS = (("PER", 1, 3), ("LOC", 3, 3))


def written(folder, *records) -> str:
    path = folder / "examples.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def test_records_have_tags_of_any_scheme_or_spans_or_running_text(tmp_path):
    bioes = ["O", "B-PER", "I-PER", "E-PER", "O"]
    source = written(
        tmp_path,
        {"tokens": WORDS, "ner_tags": bioes},
        {"words": WORDS, "spans": SPANS, "document": "a"},
        {"words": WORDS, "tags": ["O"] * 5, "document": "a"},
        {"words": WORDS, "spans": []},
        {"words": WORDS},
        {"text": "The king's"},
    )
    found = read_tagged(source)
    assert [sentence.spans for sentence in found] == [SPANS[:1], SPANS, (), (), None, None]
    assert [sentence.document for sentence in found] == [0, 1, 1, 2, 3, 4]
    assert all(sentence.words == WORDS for sentence in found[:5])
    assert found[5] == Tagged(("The", "king", "'s"), None, 4, False, "The king's", ((0, 3), (4, 8), (8, 10)))
    assert found[5] == tagged_text("The king's", 4)


def test_labels_of_words_are_spans_of_one_word(tmp_path):
    for source in (written(tmp_path, {"w": ["a", "b"], "p": ["DET", "X"]}), None):
        if source is None:
            source = str(tmp_path / "examples.conllu")
            (tmp_path / "examples.conllu").write_text("a\tx\tDET\nb\ty\tX\n\n")
            found = read_tagged(source, "0", "2")
        else:
            found = read_tagged(source, "w", "p")
        assert found == [Tagged(("a", "b"), (("DET", 0, 0), ("X", 1, 1)), 0, True)]


@pytest.mark.parametrize(
    "record, said",
    [
        ({"words": WORDS, "tags": ["O"]}, r"line 2: 1 tags of 5 words"),
        ({"words": WORDS, "tags": [0, 1, 2, 0, 0]}, r"line 2: 0 is a number, not the name of a tag"),
        ({"words": WORDS, "spans": [["PER", 1, 5]]}, r"line 2: \['PER', 1, 5\] is no span of its words"),
        ({"words": WORDS, "spans": [["PER", 2, 1]]}, r"is no span of its words"),
        ({"words": ["a", 7], "tags": ["O", "O"]}, r"line 2: field 'words' is no list of words"),
        ({"sentence": "a b"}, r"line 2: no field 'words' \(it has 'sentence'\)"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, record, said):
    with pytest.raises(InputError, match=said):
        read_tagged(written(tmp_path, {"words": WORDS, "spans": SPANS}, record))


def test_columns_are_numbers_where_they_have_no_names(tmp_path):
    (tmp_path / "a.conll").write_text("a O\n\n")
    with pytest.raises(InputError, match="column 'word' of the words"):
        read_tagged(str(tmp_path / "a.conll"), "word")
    with pytest.raises(InputError, match="some have records and others columns"):
        read_tagged(f"{written(tmp_path, {'words': WORDS})},{tmp_path}/a.conll")


def test_inner_spans_are_those_that_tags_cannot_say():
    assert inner_spans(SPANS) == {("LOC", 3, 3)}
    assert inner_spans([("A", 0, 1), ("B", 1, 2), ("C", 3, 4), ("D", 3, 3)]) == {("B", 1, 2), ("D", 3, 3)}
    assert not inner_spans([("A", 0, 1), ("A", 2, 2)])

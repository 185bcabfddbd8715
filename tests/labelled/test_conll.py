"""Tagged sentences: columns, comments and documents; schemes and spans."""

import itertools
import random

import pytest

from spanbert_jax.errors import InputError
from spanbert_jax.labelled import conll
from spanbert_jax.labelled.conll import Sentence, from_spans, read_conll, scheme_of, to_spans, write_conll


def written(tmp_path, text, name="x.conll"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


@pytest.mark.parametrize("separator", [" ", "\t", "  "])
def test_columns_sentences_and_documents(tmp_path, separator):
    lines = "-DOCSTART- -X- O\n\nAnn N B-PER\nran V O\n\n-DOCSTART- -X- O\n\n\nYes U O".replace(" ", separator)
    path = written(tmp_path, lines)
    assert read_conll(path) == [Sentence(("Ann", "ran"), ("B-PER", "O"), 0), Sentence(("Yes",), ("O",), 1)]
    assert [sentence.tags for sentence in read_conll(path, tag_column=1)] == [("N", "V"), ("U",)]
    other = written(tmp_path, "No U O\n", "y.conll")
    assert [sentence.document for sentence in read_conll(f"{path},{other}")] == [0, 1, 2]


def test_untagged_text(tmp_path):
    assert read_conll(written(tmp_path, "Ann\nran\n\nYes\n")) == [Sentence(("Ann", "ran"), ()), Sentence(("Yes",), ())]


@pytest.mark.parametrize("separator", [" ", "\t"])
def test_a_hash_is_a_word_and_may_begin_a_comment(tmp_path, separator):
    lines = "# sent_id = 3\n# id 12-a\tdomain=en\n# O\nsale O\n# O\n\n# text = # sale\n#now O\n"
    lines = lines.replace(" O\n", f"{separator}O\n")
    assert [sentence.words for sentence in read_conll(written(tmp_path, lines))] == [("#", "sale", "#"), ("#now",)]
    lines = "a\tO\n\n# any comment\nb\tO\n"
    assert [sentence.words for sentence in read_conll(written(tmp_path, lines))] == [("a",), ("b",)]


def test_conll_u(tmp_path):
    row = "{}\t{}\t_\t{}\t_\t_\t_\t_\t_\t_\n"
    text = "# newdoc\n" + row.format("1-2", "du", "_") + row.format(1, "de", "ADP") + row.format(2, "le", "DET")
    text += row.format("2.1", "x", "_")
    assert read_conll(written(tmp_path, text), 1, 3) == [Sentence(("de", "le"), ("ADP", "DET"))]


def test_what_is_malformed(tmp_path):
    path = written(tmp_path, "a O\nb\n\nc d e\nd O\n")
    with pytest.raises(InputError) as error:
        read_conll(path)
    lines = str(error.value).splitlines()
    assert lines[0].startswith(f"{path}, line 2: 1 columns, but 2 in the lines before; ")
    assert lines[1].startswith(f"{path}, line 4: 3 columns")
    for text, said in (("a\tO\n\tO\n", "line 2: the word is empty"), ("\n", "has no sentences")):
        with pytest.raises(InputError, match=said):
            read_conll(written(tmp_path, text))
    with pytest.raises(InputError, match="line 1: no column 2, as it has 2"):
        read_conll(written(tmp_path, "a O\n"), tag_column=2)


@pytest.mark.parametrize(
    "tags, scheme",
    [
        ("O I-A I-A O I-B", "IOB1"),
        ("O I-A B-A I-B", "IOB1"),
        ("O B-A I-A B-A", "IOB2"),
        ("O B-A O I-A", "IOB2"),  # with a mistake
        ("O O", "IOB2"),
        ("B I O", "IOB2"),
        ("B-A E-A S-B", "BIOES"),
        ("B-A L-A U-B O", "BILOU"),
        ("NN VB I O", "plain"),
        ("S-A U-A", "plain"),
    ],
)
def test_schemes(tags, scheme):
    tags = tuple(tags.split())
    assert scheme_of([Sentence(tags, tags), Sentence(("a",), ())]) == scheme


def test_no_tags_have_no_scheme():
    with pytest.raises(InputError, match="no tags"):
        scheme_of([Sentence(("a",), ())])


@pytest.mark.parametrize("scheme", conll.SCHEMES)
def test_spans_and_tags_are_inverse(scheme):
    generator = random.Random(0)
    for _ in range(100):
        ends = sorted(generator.sample(range(20), 8)) + [20]
        spans = [
            (generator.choice(["A", "B-C"]), first, generator.randrange(first, after))
            for first, after in itertools.pairwise(ends)
        ]
        if scheme == "plain":
            spans = [(generator.choice("AB"), position, position) for position in range(20)]
        tags = from_spans(spans, 20, scheme)
        assert len(tags) == 20 and to_spans(tags, scheme) == spans
    assert from_spans([("", 0, 1)], 3) == ("B", "I", "O")


@pytest.mark.parametrize(
    "tags, spans",
    [  # as conlleval reads what is against the scheme
        ("I-A I-A I-B", [("A", 0, 1), ("B", 2, 2)]),
        ("B-A I-B O", [("A", 0, 0), ("B", 1, 1)]),
        ("E-A I-A E-A", [("A", 0, 0), ("A", 1, 2)]),
        ("B-A S-A I-A O", [("A", 0, 0), ("A", 1, 1), ("A", 2, 2)]),
        ("B-A O E-A", [("A", 0, 0), ("A", 2, 2)]),
    ],
)
def test_spans_of_any_tags(tags, spans):
    assert to_spans(tags.split(), "BIOES") == spans


def test_iob1_parts_neighbours_of_one_type_alone():
    assert from_spans([("A", 0, 1), ("A", 2, 3), ("B", 4, 4)], 5, "IOB1") == ("I-A", "I-A", "B-A", "I-A", "I-B")


@pytest.mark.parametrize("spans", [[("A", 0, 2), ("A", 2, 3)], [("A", 3, 4)], [("A", 2, 1)], [("A", -1, 1)]])
def test_impossible_spans_are_refused(spans):
    with pytest.raises(ValueError):
        from_spans(spans, 4)


def test_output_for_conlleval(tmp_path):
    sentences = [Sentence(("a b", "c"), ("B-A", "O")), Sentence(("d",), ())]
    write_conll(tmp_path / "y", sentences, [["O", "O"], ["B-A"]])
    assert (tmp_path / "y").read_text() == "a_b B-A O\nc O O\n\nd B-A\n\n"
    with pytest.raises(ValueError):
        write_conll(tmp_path / "z", sentences, [["O"], ["O"]])
    assert not (tmp_path / "z").exists()

"""Raw text: documents, sentences and words, each at its characters."""

import pytest

from spanbert_jax.errors import InputError
from spanbert_jax.labelled.raw_text import document_of_text, read_raw_text

TEXT = "  Ann Lee said that\nshe'd go.  Then she left. Then she left. \n\n Bob slept\n"


def test_sentences_and_offsets():
    pytest.importorskip("sentencex", reason="splits sentences")
    document = document_of_text(TEXT, "en")
    assert [" ".join(words) for words in document.words] == [
        "Ann Lee said that she 'd go .",
        "Then she left .",
        "Then she left .",
        "Bob slept",
    ]
    words = [word for sentence in document.words for word in sentence]
    assert [TEXT[begin:end] for begin, end in document.offsets] == words
    assert document.mention_text((3, 4)) == "that\nshe" and list(map(len, document.speakers)) == [8, 4, 4, 2]


def test_a_sentence_a_line():
    document = document_of_text("a. b\nc\n\n d", "none")
    assert document.words == (("a", ".", "b"), ("c",), ("d",)) and document.offsets[-1] == (9, 10)


def test_files_and_blocks(tmp_path):
    (tmp_path / "x.txt").write_text("a b\r\nc\n\n\nd\n")
    (whole,) = read_raw_text(tmp_path / "x.txt", "none")
    assert (whole.id, whole.words) == ("x.txt", (("a", "b"), ("c",), ("d",)))
    first, second = read_raw_text(tmp_path / "x.txt", "none", "blank")
    assert (first.id, first.words, second.id, second.words) == ("x.txt:1", (("a", "b"), ("c",)), "x.txt:2", (("d",),))
    (tmp_path / "y.txt").write_text(" \n")
    with pytest.raises(InputError, match=r"y\.txt: it has no text"):
        read_raw_text(f"{tmp_path}/*.txt", "none")
    with pytest.raises(InputError, match="text: the text is blank"):
        document_of_text(" ", "none")
    with pytest.raises(InputError, match="language 'english' is unknown"):
        document_of_text("a", "english")

"""Sentence splitting by language."""

import pickle

import pytest

from spanbert_jax.data.sentences import Splitter
from spanbert_jax.errors import InputError

PARAGRAPHS = {
    "en": ["Dr. Smith met Mr. Jones at 5 p.m. yesterday.", '"Is it true?" he asked.', "It cost $3.50, i.e. nothing!"],
    "de": [
        "Herr Dr. Müller kam am 3. Mai z. B. nach Bonn.",
        "Er sagte: „Es regnet.“",
        "Am 1. Januar 1990 war alles vorbei.",
    ],
    "zh": ["今天天气很好。", "我们去公园吧！", "他说：“我不去。”", "然后他走了。"],
}


def test_none_leaves_lines_unchanged():
    lines = ["One. Two.", "three"]
    assert Splitter("none")(lines) == lines


@pytest.mark.parametrize("language", PARAGRAPHS)
def test_paragraphs_become_sentences(language):
    pytest.importorskip("sentencex", reason="needs sentencex, of the extra 'prepare'")
    sentences = PARAGRAPHS[language]
    paragraph = ("" if language == "zh" else " ").join(sentences)
    assert Splitter(language)([paragraph, sentences[0]]) == [*sentences, sentences[0]]


def test_every_line_is_split_separately_and_no_character_is_lost():
    pytest.importorskip("sentencex", reason="needs sentencex, of the extra 'prepare'")
    lines = ["no stop at the end", "Then this. And 1. that 2. Other (a) thing.  More spaces!"]
    lines += ["...", "- a list: b. - c."]
    sentences = Splitter("en")(lines)
    assert sentences[0] == lines[0]
    assert "".join(sentences).replace(" ", "") == "".join(lines).replace(" ", "")
    assert all(sentence and sentence == sentence.strip() for sentence in sentences)


def test_splitters_are_picklable():
    pytest.importorskip("sentencex", reason="needs sentencex, of the extra 'prepare'")
    assert pickle.loads(pickle.dumps(Splitter("pt-br")))(["Um. Dois."]) == ["Um.", "Dois."]


@pytest.mark.parametrize("language", ["english", "", "xx", "EN", "ger"])
def test_unknown_languages_are_refused(language):
    with pytest.raises(InputError, match="two letters"):
        Splitter(language)

"""Cleaning changes what it is asked to and nothing else."""

import dataclasses
import unicodedata

import pytest

from spanbert_jax.data.preparation.cleaning import cleaned_documents, has_words, is_held_out, make_cleaner
from spanbert_jax.data.preparation.settings import Settings
from tests.data.preparation.settings_for_tests import PLAIN

SETTINGS = Settings(input="embedded", **PLAIN)
DOCUMENT = [
    "cafe\N{COMBINING ACUTE ACCENT} \N{LATIN SMALL LIGATURE FI}t",
    "\N{NO-BREAK SPACE}\N{COMBINING ACUTE ACCENT}?",
    "a  b",
]


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
def test_unicode_normalisation(form):
    cleaned = make_cleaner(dataclasses.replace(SETTINGS, unicode=form))(DOCUMENT)
    assert cleaned == [unicodedata.normalize(form, line).strip() for line in DOCUMENT]
    assert cleaned != DOCUMENT and cleaned[2] == "a  b"
    assert (
        make_cleaner(dataclasses.replace(SETTINGS, unicode="NFKC"))(["\N{IDEOGRAPHIC SPACE}\N{HANGUL FILLER}", "x"])[-1]
        == "x"
    )


def test_nothing_is_the_default():
    assert make_cleaner(SETTINGS)(DOCUMENT) is DOCUMENT


def test_sentences():
    pytest.importorskip("sentencex", reason="needs the extra prepare")
    clean = make_cleaner(dataclasses.replace(SETTINGS, sentences="en", unicode="NFKC"))
    assert clean(["Mr. Smith sat. The cat\N{NO-BREAK SPACE}sat.", "It is late"]) == [
        "Mr. Smith sat.",
        "The cat sat.",
        "It is late",
    ]


@pytest.mark.parametrize(
    "document, words",
    [
        (["the cat sat", "on it."], 5),
        (["don't"], 1),
        (["我爱北京"], 4),
        (["私はcatです"], 5),
        (["ภาษา"], 4),
        (["сон"], 1),
        ([" "], 0),
    ],
)
def test_words_are_counted_in_every_script(document, words):
    assert has_words(document, words) and not has_words(document, words + 1)


def test_short_documents_are_left_out():
    class Unit:
        def documents(self):
            yield from (["a b c"], ["a b"], ["", "a"])

    assert list(cleaned_documents(Unit(), lambda document: document, 3)) == [["a b c"], None, None]


def test_held_out_share_and_growth():
    documents = [[f"document {number}"] for number in range(4000)]
    small, large = (
        {number for number, document in enumerate(documents) if is_held_out(document, share)} for share in (0.1, 0.2)
    )
    assert small < large
    assert abs(len(small) - 400) < 4 * 19 and abs(len(large) - 800) < 4 * 25.3  # four standard deviations
    assert not any(is_held_out(document, 0.0) for document in documents)

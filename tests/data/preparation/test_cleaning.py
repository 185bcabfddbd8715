"""Cleaning changes what the settings say and nothing else."""

import dataclasses
import unicodedata

import pytest

from spanbert_jax.data.preparation.cleaning import cleaned_documents, has_words, is_held_out, make_cleaner
from spanbert_jax.data.preparation.settings import Settings
from spanbert_jax.data.sources.problems import refuse
from tests.data.preparation.settings_for_tests import PLAIN

SETTINGS = Settings(input="embedded", **PLAIN)
DOCUMENT = [
    "cafe\N{COMBINING ACUTE ACCENT} \N{LATIN SMALL LIGATURE FI}t",
    "\N{NO-BREAK SPACE}\N{COMBINING ACUTE ACCENT}?",
    "a  b",
]


def cleaner(**changes):
    return make_cleaner(dataclasses.replace(SETTINGS, **changes))


@pytest.mark.parametrize("form", ["NFC", "NFKC"])
def test_unicode_normalisation(form):
    cleaned = cleaner(unicode=form)(DOCUMENT)
    assert cleaned == [unicodedata.normalize(form, line).strip() for line in DOCUMENT]
    assert cleaned != DOCUMENT and cleaned[2] == "a  b"
    assert cleaner(unicode="NFKC")(["\N{IDEOGRAPHIC SPACE}\N{HANGUL FILLER}", "x"])[-1] == "x"


def test_nothing_is_changed_without_settings():
    assert make_cleaner(SETTINGS)(DOCUMENT) is DOCUMENT


def test_sentences():
    pytest.importorskip("sentencex", reason="needs the extra prepare")
    lines = ["Mr. Smith sat. The cat\N{NO-BREAK SPACE}sat.", "It is late"]
    assert cleaner(sentences="en", unicode="NFKC")(lines) == ["Mr. Smith sat.", "The cat sat.", "It is late"]


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


def test_short_documents_are_dropped():
    class Unit:
        def documents(self, report):
            yield from (["a b c"], ["a b"], ["", "a"])

    assert list(cleaned_documents(Unit(), lambda document: document, 3, refuse)) == [["a b c"], None, None]


def test_share_of_held_out_documents_and_its_growth():
    documents = [[f"document {number}"] for number in range(4000)]

    def held_out(share):
        return {number for number, document in enumerate(documents) if is_held_out(document, share)}

    small, large = held_out(0.1), held_out(0.2)
    assert small < large
    assert abs(len(small) - 400) < 4 * 19 and abs(len(large) - 800) < 4 * 25.3  # four standard deviations
    assert not held_out(0.0)

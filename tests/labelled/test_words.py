"""Words of running text."""

import random

import pytest

from spanbert_jax.labelled.words import word_ranges


def words(text):
    return [text[begin:end] for begin, end in word_ranges(text)]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("John's cat, again.", ["John", "'s", "cat", ",", "again", "."]),
        ("It cost 1,000.50 €.", ["It", "cost", "1,000.50", "€", "."]),
        ("'so' well-known", ["'", "so", "'", "well", "-", "known"]),
        ("हिन्दी caf\u0065\u0301", ["हिन्दी", "cafe\u0301"]),
        ("我们x", ["我", "们", "x"]),
        (" \n", []),
        ("", []),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


def test_between_words_are_only_blanks():
    generator = random.Random(0)
    for _ in range(300):
        text = "".join(generator.choices("ab1,.'-’ \n我", k=12))
        ends = [0, *(end for range_ in word_ranges(text) for end in range_), len(text)]
        assert ends == sorted(ends)
        assert not "".join(text[a:b] for a, b in zip(ends[::2], ends[1::2])).strip()
        assert not any(" " in word or "\n" in word or not word for word in words(text))

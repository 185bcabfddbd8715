"""JSON lines and tables contain the guesses."""

import json

import numpy as np
import pytest

from spanbert_jax.errors import InputError
from spanbert_jax.render import render
from spanbert_jax.tasks.filled_output import sentence, show_all, show_filled, write_json_lines
from tests.small import TOKENIZER
from tests.tasks.test_fill_spans import fill


def test_json_lines_contain_the_guesses(filler, tmp_path):
    path = tmp_path / "out.jsonl"
    texts = ["Four score and [[seven years]] ago", "our [MASK:2] brought “forth”"]
    filled = fill(filler, *texts)
    assert write_json_lines(path, iter(filled), TOKENIZER) == 2
    first, second = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert [first["text"], second["text"]] == texts
    [span], [expected] = first["spans"], filled[0].spans
    start = len(TOKENIZER.encode(["Four score and"])[0])
    assert (span["true_text"], span["true_tokens"]) == ("seven years", ["seven", "years"])
    assert (span["start"], span["length"]) == (start, 2)
    assert span["without_sbo"] is None
    assert second["spans"][0]["true_text"] is None and second["spans"][0]["mlm"]["true_probabilities"] is None
    for head in ("mlm", "sbo", "both"):
        guess = getattr(expected, head)
        np.testing.assert_allclose(span[head]["true_probabilities"], guess.true_probabilities)
        assert [top["token"] for top in span[head]["top"][1]] == [TOKENIZER.tokens[i] for i in guess.ids[1]]
    assert first["filled"] == f"Four score and {span['both']['text']} ago"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.jsonl"]
    with pytest.raises(InputError, match="cannot write"):
        write_json_lines(tmp_path / "no" / "out.jsonl", iter(filled), TOKENIZER)


def test_tables_read_the_same_without_colour(filler):
    texts = "Four score and [[seven years]] ago our [MASK:2] [brought] forth", "[[We]] the people"
    filled = fill(filler, *texts, top_k=2)
    text = render(show_all(filled, TOKENIZER, excerpts=False), width=140)
    assert "\x1b" not in text
    both = filled[0].spans[0].both
    assert f"Four score and {{1 {TOKENIZER.decode(both.ids[:, 0])}}} ago our {{2 " in text and "[brought] forth" in text
    assert f"{TOKENIZER.tokens[both.ids[1, 1]]} {both.probabilities[1, 1]:.2f}" in text
    assert "no SBO guess for span 1: the span touches an end of the text" in text
    assert "of 3 correct" in text  # known tokens: seven, years and We
    known = fill(filler, "all the [[people]] of this land", top_k=TOKENIZER.vocab_size)
    # Among all tokens, each of the three columns has the true one.
    assert render(show_all(known, TOKENIZER, excerpts=False), width=140).count("✓") == 3


def test_an_excerpt_is_the_sentence_of_a_span_with_an_sbo_guess(filler):
    text = "[[Never]] mind. One thing [[is]] certain! We [[will]] win (or [[lose]]?) in the end. Good [[night]]"
    [filled] = fill(filler, text)
    assert sentence(filled) == (1, 1, "One thing ", " certain!")
    shown = render(show_filled(filled, TOKENIZER, excerpt=True), width=140)
    assert "One thing {1 " in shown and "mind" not in shown and "{2" not in shown
    [one_sentence] = fill(filler, "He [[came]], he [[saw]], he [[conquered]]. That is [[all]]")
    assert sentence(one_sentence)[:2] == (0, 2)

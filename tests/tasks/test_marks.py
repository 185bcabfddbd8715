"""Marks are parsed as they are written, and wrong ones are reported with their position."""

import pytest

from spanbert_jax.errors import InputError
from spanbert_jax.tasks.marks import hide_tokens, parse_marks, read_lines
from tests.small import TOKENIZER


@pytest.mark.parametrize(
    "text",
    [
        "Four score and [[seven years]] ago, our [MASK:2] brought forth [[liberty]]!",
        "[[Liberty]]",
        "[MASK] me",
        "the “[[only thing]]” we have to fear",
        "brackets [like these] and [[ spaces  inside ]] stay",
    ],
)
def test_marks_are_parsed_as_written(text):
    parsed = parse_marks(text, TOKENIZER, "here")
    assert parsed.marked == text.replace("[MASK]", "[MASK:1]")
    tokens = list(parsed.tokens)
    for span in parsed.spans:
        assert tokens[span.start : span.end] == [TOKENIZER.mask_id] * span.length
        assert (span.true is None) == (span.text is None)
    if "[MASK" not in text:
        unmarked = text.replace("[[", "").replace("]]", "")
        for span in parsed.spans:
            tokens[span.start : span.end] = span.true
        assert tokens == TOKENIZER.encode([unmarked])[0]
        assert parsed.filled(span.text for span in parsed.spans) == unmarked


def test_a_filling_that_continues_a_word_is_joined_to_it():
    assert parse_marks("he walk [MASK] home", TOKENIZER, "here").filled(["##ed"]) == "he walked home"


@pytest.mark.parametrize(
    "text, message",
    [
        ("nothing here", "nothing is marked"),
        ("an [[open one", r"'\[\['"),
        ("a closed]] one", r"'\]\]'"),
        ("[[one [[in]] another]]", r"'\]\]'"),
        ("an empty [[]] one", "hides nothing"),
        ("a blank [[  ]] one", "hides nothing"),
        ("none [MASK:0] at all", "hides nothing"),
        ("how many [MASK:two]", r"'\[MASK'"),
        ("how many [MASK:-2]", r"'\[MASK'"),
        ("how many [MASK:123456789]", r"'\[MASK'"),
        ("[MASK][MASK] touch", "nothing between"),
        ("[[New]] [[York]] touch", "nothing between"),
        ("un[[believ]]able", "splits a word"),
        ("[[walk]]ing", "splits a word"),
    ],
)
def test_wrong_marks_are_reported_with_their_line(text, message):
    with pytest.raises(InputError, match=f"^line 7: .*{message}"):
        parse_marks(text, TOKENIZER, "line 7")


def test_all_wrong_lines_of_a_file_are_reported_together(filler, tmp_path):
    path = tmp_path / "in.txt"
    path.write_text("a good [MASK] line\n\nno mark\n" + "too long " * 60 + "[MASK]\n[[open\n")
    with pytest.raises(InputError) as error:
        filler.parse(read_lines(path))
    first, second, third = str(error.value).splitlines()
    assert first.startswith(f"{path}, line 3: nothing is marked")
    assert second.startswith(f"{path}, line 4: ") and f"at most {filler.config.seq_len - 2}" in second
    assert third.startswith(f"{path}, line 5: ")
    path.write_text("\n\n")
    with pytest.raises(InputError, match="no text"):
        read_lines(path)


def test_hidden_tokens_give_the_text_that_would_be_parsed():
    [ids] = TOKENIZER.encode(["The people of the United States were at peace."])
    is_hidden = [False] * len(ids)
    is_hidden[1] = is_hidden[4] = is_hidden[5] = True
    text = hide_tokens(ids, is_hidden, TOKENIZER)
    assert text.marked == "The [[people]] of the [[United States]] were at peace."
    parsed = parse_marks(text.marked, TOKENIZER, "here")
    assert (text.tokens, text.spans, text.context) == (parsed.tokens, parsed.spans, parsed.context)
    all_hidden = hide_tokens(ids, [True] * len(ids), TOKENIZER)
    assert len(all_hidden.spans) == 1 and all_hidden.context == ("", "") and all_hidden.spans[0].true == tuple(ids)

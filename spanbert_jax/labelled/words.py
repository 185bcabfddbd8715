"""Words of running text, for examples whose files have no division into words."""

import re
import unicodedata

# Scripts that write no blanks between words: each character is a word, as in BERT's tokenizer.
WITHOUT_BLANKS = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f]")
APOSTROPHES = "'\u2019"


def word_ranges(text: str) -> list[tuple[int, int]]:
    """Returns (first character, the one after the last) of each word of a text; between words are only blanks.

    A mark of punctuation is a word, but for those within numbers ("1,000", "2.5"). An apostrophe between letters begins
    a word, so that "John's" is "John" and "'s".
    """
    ranges: list[tuple[int, int]] = []
    begin = None  # of the word that goes on
    for position, character in enumerate(text):
        kind = _kind(character)
        after = text[position + 1 : position + 2]
        if begin is not None and kind == "mark":
            before = text[position - 1]
            if character in ".," and before.isdigit() and after.isdigit():
                continue
        if begin is not None and kind != "word":
            ranges.append((begin, position))
            begin = None
        if kind == "word" and begin is None:
            begin = position
        elif kind == "mark":
            letters_around = ranges and ranges[-1][1] == position and text[position - 1].isalpha() and after.isalpha()
            if character in APOSTROPHES and letters_around:
                begin = position
            else:
                ranges.append((position, position + 1))
    if begin is not None:
        ranges.append((begin, len(text)))
    return ranges


def _kind(character: str) -> str:
    """Returns "blank", "word" (it continues a word) or "mark" (it is a word of its own)."""
    if character.isspace():
        return "blank"
    if unicodedata.category(character)[0] in "PS" or WITHOUT_BLANKS.match(character):
        return "mark"
    return "word"

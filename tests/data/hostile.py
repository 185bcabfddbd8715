"""Text that is hard to tokenise: seeded random characters of all of Unicode, and real text cut and joined anywhere."""

import itertools
import random

from spanbert_jax.data.sources.embedded import embedded_documents

RANGES = {
    "latin": [(0x21, 0x7F), (0xA1, 0x250)],
    "greek and cyrillic": [(0x370, 0x530)],
    "combining": [(0x300, 0x370), (0x1DC0, 0x1E00), (0x20D0, 0x20F1)],
    "hebrew and arabic": [(0x591, 0x5F5), (0x600, 0x700), (0xFB1D, 0xFE00)],
    "indic": [(0x900, 0xE00)],
    "thai to khmer": [(0xE00, 0x1100), (0x1780, 0x17FA)],
    "jamo and hangul": [(0x1100, 0x1200), (0xAC00, 0xD7A4)],
    "cjk": [(0x3000, 0x3100), (0x3400, 0xA000), (0xF900, 0xFB00)],
    "cjk extensions": [(0x20000, 0x2A6E0), (0x2A700, 0x2EBF0), (0x2F800, 0x2FA20), (0x30000, 0x323B0)],
    "forms": [(0xFE00, 0xFE70), (0xFF00, 0xFFF0), (0xFB00, 0xFB18), (0x1E00, 0x2000)],
    "symbols": [(0x2000, 0x2C00)],
    "emoji": [(0x1F300, 0x1FB00), (0x1F1E6, 0x1F200), (0xFE0F, 0xFE10), (0x200D, 0x200E)],
    "control": [(0x0, 0x21), (0x7F, 0xA1), (0x200B, 0x2010), (0x2028, 0x2070), (0xFFF9, 0xFFFE)],
    "spaces": [(first, first + 1) for first in (0x20, 0xA0, 0x1680)]
    + [(0x2000, 0x200B)]
    + [(first, first + 1) for first in (0x202F, 0x205F, 0x3000)],
    "private": [(0xE000, 0xF900), (0xF0000, 0xF0100)],
    "other planes": [(0x10000, 0x1F000), (0xE0001, 0xE0080), (0xE0100, 0xE01F0)],
    "anywhere": [(0x0, 0xD800), (0xE000, 0x110000)],
}
ASCII_WORDS = "The don't don\u2019t U.S.A. 3.14 [ ] [UNKN] ##s --"
ACCENTS = "naïve cafe\u0301 İstanbul I\u0307 ΟΔΟΣ ǅ straße ﬁne ſ … №5 ½ Å Ω"
SCRIPTS = "\u1112\u1161\u11ab 한국어 中文 हिन्दी שָׁלוֹם العَرَبِيَّة ﷺ"
EMOJI = "👩\u200d👩\u200d👧 👍🏽 🇩🇪"
INVISIBLE = "\u0301 \x00 \ufeff \ufffd \u00ad a\u00adb"
WORDS = [*ASCII_WORDS.split(" "), "a-" * 60, *f"{ACCENTS} {SCRIPTS} {EMOJI} {INVISIBLE}".split(" "), "\xa0"]
WORDS += ["x" * 99, "y" * 100, "z" * 101, "w" * 600, "e\u0301" * 60, "é" * 100]
# Hugging Face recognises these in text, our tokenizer does not.
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def hostile_lines(count: int, seed: int = 0) -> list[str]:
    """Returns `count` lines of mixed words and characters of RANGES, without special tokens and lone surrogates."""
    draw = random.Random(seed)
    lines = (hostile_line(draw) for _ in itertools.count())
    return list(itertools.islice((line for line in lines if not any(token in line for token in SPECIAL)), count))


def hostile_line(draw: random.Random) -> str:
    """Returns a few words of one or several kinds, with or without blanks between them."""
    kinds = draw.sample(list(RANGES), draw.randint(1, 3))
    words = [
        draw.choice(WORDS) if draw.random() < 0.3 else random_word(draw, draw.choice(kinds))
        for _ in range(draw.randint(1, 10))
    ]
    return "".join(word + draw.choice(("", " ", " ", "\xa0", "\t")) for word in words)


def random_word(draw: random.Random, kind: str) -> str:
    """Returns 1 to 12 characters of a kind, sometimes with a combining mark, a letter or a comma between them."""
    word = ""
    for _ in range(draw.randint(1, 12)):
        word += chr(draw.randrange(*draw.choice(RANGES[kind])))
        word += draw.choice(("", "", "", "", "\u0301", "\u0323", "a", "Z", ",", "\u200d"))
    return word


def real_lines(count: int, seed: int = 0) -> list[str]:
    """Returns `count` lines of the embedded corpus; every other one is cut at a random character and joined to
    another's end.
    """
    draw = random.Random(seed)
    corpus = [
        line[start : start + 300]
        for document in embedded_documents("train")
        for line in document
        for start in range(0, len(line), 300)
    ]
    lines = draw.sample(corpus, count)
    for number in range(0, count, 2):
        beginning, end = lines[number], draw.choice(corpus)[-200:]
        lines[number] = beginning[: draw.randint(0, len(beginning))] + end[draw.randint(0, len(end)) :]
    return lines

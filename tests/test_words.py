"""The glossary of CONTRIBUTING.md: words of the last column are not used in code, messages and documents."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [
    path
    for folder, pattern in (
        ("spanbert_jax", "*.py"),
        ("configs", "*.py"),
        ("scripts", "*"),
        ("docs", "*.md"),
        (".", "README.md"),
    )
    for path in (ROOT.glob(pattern) if folder == "." else (ROOT / folder).rglob(pattern))
    if path.is_file() and path.suffix in (".py", ".md", ".sh")
]
# Word that is not used -> the field's word. Matched as whole words, in identifiers too (parts between underscores).
INSTEAD = {
    "pieces?": "token",
    "fates?": "replacement",
    "laws?": "masking algorithm",
    "rooms?": "module, package",
    "afresh|anew": "from scratch, again, new",
    "tells?|told": "report, print, log, say in other words",
    "mend(s|ed|ing)?": "fix, correct",
    "odds": "probability, weight",
}
ALLOWED = re.compile(
    r"word_?pieces?"  # of WordPiece, and of names of other libraries
    r"|--held_out"
    r"|null_odds"  # a file that evaluate-v2.0.py reads
    r"|make room|file\.tell\(\)|optuna\.tell\("
    r'|"piece"\): "token"',  # a value of release 0.1
    re.IGNORECASE,
)


def words_found(text: str) -> list[str]:
    """Returns "line N: word -> instead" for each word of the glossary's last column."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        line = ALLOWED.sub("", line)
        for pattern, instead in INSTEAD.items():
            found += [
                f"line {number}: {match[0]!r}, use {instead}"
                for match in re.finditer(rf"(?<![^\W_])(?:{pattern})(?![^\W_])", line, re.IGNORECASE)
            ]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_glossary_is_kept(path):
    assert words_found(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "a piece of it",
        "drawn_piece = 1",
        "Pieces",
        "it is told",
        "fate, or",
        "computed anew",
        "made afresh",
        "odds by size",
    ],
)
def test_an_old_word_is_found(line):
    assert len(words_found(line)) == 1


@pytest.mark.parametrize(
    "line", ["WordPiece tokens", "word_piece", "a metropolis", "lawyer", "the mended".replace("mended", "amended")]
)
def test_other_words_are_not(line):
    assert words_found(line) == []

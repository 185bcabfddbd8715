"""GAP: pronouns and names at their characters."""

import pytest

from spanbert_jax.errors import InputError
from spanbert_jax.labelled.gap import COLUMNS, Gap, read_gap

HEADER = "\t".join((*COLUMNS, "URL")) + "\n"
TEXT = 'Ann saw "Eve" when she left.'


def line(text, *, offset=19, b="FALSE"):
    return "\t".join(["d-1", text, "she", str(offset), "Ann", "0", "TRUE", "Eve", "9", b, "http://x"]) + "\n"


@pytest.mark.parametrize("text", [TEXT, '"Ann saw ""Eve"" when she left."'])
def test_examples(tmp_path, text):
    (tmp_path / "x.tsv").write_text(HEADER + line(text))
    expected = Gap("d-1", TEXT, ("she", 19), ("Ann", 0), ("Eve", 9), True, False)
    assert read_gap(tmp_path / "x.tsv") == [expected]


def test_what_is_malformed(tmp_path):
    lines = [line(TEXT, offset=18), line(TEXT, offset="x"), line(TEXT, b="no"), "a\tb\n"]
    (tmp_path / "x.tsv").write_text(HEADER + "".join(lines))
    with pytest.raises(InputError) as error:
        read_gap(tmp_path / "x.tsv")
    found = str(error.value).splitlines()
    assert all(message.startswith(f"{tmp_path}/x.tsv, line {n}: ") for n, message in enumerate(found, 2))
    for message, said in zip(
        found,
        ("'she' does not stand at 18", "Pronoun-offset 'x' is no number", "B-coref 'no' is not TRUE", "2 columns"),
        strict=True,
    ):
        assert said in message
    (tmp_path / "x.tsv").write_text(HEADER)
    with pytest.raises(InputError, match="no examples"):
        read_gap(tmp_path / "x.tsv")

"""Rich renderables as plain text."""

from rich.table import Table
from rich.text import Text

from spanbert_jax.render import render


def test_rendered_text_is_wrapped_without_colour_or_space_at_the_end():
    assert render(Text("one two three", "bold red"), width=8) == "one two \nthree"
    assert render(Text("[MASK] 3\n\n"), width=80) == "[MASK] 3"


def test_a_table_is_as_wide_as_its_content():
    table = Table("a", "b")
    table.add_row("1", "long text")
    assert {len(line) for line in render(table, width=80).splitlines()} == {len("┃ a ┃ b         ┃")}

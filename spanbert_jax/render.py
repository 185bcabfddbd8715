"""Rich renderables as plain text."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType


def render(renderable: "RenderableType", width: int) -> str:
    """Returns what a console of `width` columns prints, without white space at the end."""
    from rich.console import Console  # here, so that modules that rarely render do not import it

    output = io.StringIO()
    Console(file=output, width=width, highlight=False).print(renderable)
    return output.getvalue().rstrip()

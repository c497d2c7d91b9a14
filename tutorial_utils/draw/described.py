"""What a figure shows, in words: for readers who do not see it."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterable
from typing import cast

from matplotlib.figure import Figure


class NotebookFigure(Figure):
    """A Figure that a notebook shows once, with or without pyplot, and with its description.

    It is shown as an HTML image whose `alt` is the description: JupyterLab, GitHub, the site,
    slides and HTML exports keep that, while most of them drop the `alt` of a PNG's metadata.
    """

    description = ""

    def _ipython_display_(self) -> None:
        from IPython.display import publish_display_data

        png = io.BytesIO()
        # As IPython draws any figure once pyplot is imported, so that all look the same.
        self.savefig(png, format="png", bbox_inches="tight")
        source = f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
        image = f'<img alt="{html.escape(self.description)}" src="{source}">'
        publish_display_data({"text/html": image, "text/plain": self.description})


def describe_figure(figure: Figure, text: str) -> Figure:
    """Gives any matplotlib figure its description, one or two sentences with what it shows.

    Make the text from the values that are drawn. A notebook keeps it as the `alt` of the image.
    """
    figure.__class__ = NotebookFigure
    described = cast(NotebookFigure, figure)
    described.description = " ".join(text.split())
    return described


def sentence(title: str) -> str:
    """A figure's title as a sentence of its description."""
    return title if title.endswith((".", "?", "!")) else f"{title}."


def quoted(token: object) -> str:
    r"""A token or name in quotation marks, what cannot be seen in it as an escape such as `\n`."""
    return json.dumps(str(token), ensure_ascii=False)


def listed(parts: Iterable[str], most: int = 6) -> str:
    """Parts after each other; of more than `most`, how many are left out."""
    given = list(parts)
    left = len(given) - most
    return ", ".join(given[:most]) + (f" and {left} more" if left > 0 else "")


def in_words(value: float) -> str:
    """A number to be read out: three digits, and no exponent."""
    if 0 < abs(value) < 0.001:
        return f"less than 0.001 (1 in {1 / abs(value):,.0f})" if value > 0 else "just below 0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"

"""What a figure shows, in words: for readers who do not see it."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterable, Sequence
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
    """Gives any matplotlib figure its description: one or two sentences that say what it shows.

    Make the text from the values that are drawn. A title counts as a sentence. A notebook keeps the
    text as the `alt` of the image.
    """
    figure.__class__ = NotebookFigure
    described = cast(NotebookFigure, figure)
    described.description = " ".join(text.split())
    return described


def sentence(title: str) -> str:
    """A figure's title as a sentence of its description."""
    ends = title.rstrip("\"'").endswith((".", "?", "!"))
    return title if ends else f"{title}."


def opening(title: str) -> str:
    """A figure's title as the beginning of its description's first sentence."""
    return f"{title.rstrip('.?!')}:"


def counted(count: int, noun: str) -> str:
    """A count with its noun, such as "1 token" and "2 tokens"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def from_to(low: float, high: float) -> str:
    """Two numbers as a range, or one number if both are the same in words."""
    ends = in_words(low), in_words(high)
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def layers_in_words(layers: Sequence[int]) -> str:
    """Numbers of layers, such as "layer 3", "layers 0 to 8" and "layers 0, 4, 8"."""
    if len(layers) == 1:
        return f"layer {layers[0]}"
    if len(layers) > 2 and [*layers] == [*range(layers[0], layers[-1] + 1)]:
        return f"layers {layers[0]} to {layers[-1]}"
    return f"layers {listed(map(str, layers))}"


def quoted(token: object) -> str:
    r"""A token or name in quotation marks, with escapes such as `\n` for what cannot be seen."""
    return json.dumps(str(token), ensure_ascii=False)


def listed(parts: Iterable[str], most: int = 6) -> str:
    """Parts with commas between them. Beyond `most` of them, only their count."""
    given = list(parts)
    left = len(given) - most
    return ", ".join(given[:most]) + (f" and {left} more" if left > 0 else "")


def probability_in_words(prob: float) -> str:
    """A probability to be read out: three digits, or "1 in N" if it is very small."""
    return f"{in_words(prob)} (1 in {1 / prob:,.0f})" if 0 < prob < 0.001 else in_words(prob)


def in_words(value: float) -> str:
    """A number to be read out: three digits, or all before the point, and no exponent."""
    if 0 < abs(value) < 0.001:
        return "less than 0.001" if value > 0 else "just below 0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"

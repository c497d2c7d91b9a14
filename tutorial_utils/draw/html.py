"""Small HTML drawings for the explorers: they follow a move at once, and say all in words too.

A matplotlib figure takes 150 ms of a processor to draw, one of these about 1 ms. All take plain
values and give a string. Each value is written out, so that no colour has to be told apart.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple

import torch
from matplotlib import colormaps
from matplotlib.colors import to_hex, to_rgb

# Okabe and Ito's colours, which colour-blind readers can tell apart, without black and yellow.
OKABE_ITO = ["#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#0072B2", "#D55E00"]
MONO = "font-family:var(--jp-code-font-family,monospace);font-size:13px"
NUMBER = "text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap"
# Pale enough for black text, as in the figures.
PALE = [to_hex([0.6 + 0.4 * part for part in to_rgb(color)]) for color in OKABE_ITO]


def visible(text: str, limit: int = 24) -> str:
    """A token to read: each space as ␣, escapes for what has no picture, cut after `limit`."""
    shown = "".join(
        "␣" if char == " " else char if char.isprintable() else repr(char)[1:-1] for char in text
    )
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def number(value: float) -> str:
    """Three digits that count, and no exponent from 0.001 to 1,000,000."""
    if abs(value) >= 1e6 or 0 < abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def probability(value: float) -> str:
    return f"{value:.3f}" if value >= 0.0005 else "&lt; 0.001"


class BarRow(NamedTuple):
    """A row of `bar_table`: bars are shares from 0 to 1 with their CSS, words are HTML."""

    name: str
    bars: Sequence[tuple[float, str]]
    words: Sequence[str]
    bold: bool = False


def bar_table(
    heads: Sequence[str],
    rows: Sequence[BarRow],
    *,
    caption: str = "",
    widths: Sequence[str] = (),
) -> str:
    """Rows of a name, a bar or two and what they say in words, under `heads`.

    `widths` in CSS, one for each column, keep the columns where they are whatever is written.
    """
    sides = ["left", "left", *["right"] * (len(heads) - 2)]
    head = "".join(
        f'<th scope="col" style="text-align:{side};padding-right:12px;white-space:nowrap">'
        f"{text}</th>"
        for text, side in zip(heads, sides)
    )
    columns = "".join(f'<col style="width:{width}"/>' for width in widths)
    look = f"width:100%;max-width:760px;border-collapse:collapse;{MONO};line-height:1.3"
    look += ";table-layout:fixed" if widths else ""
    above = "text-align:left;font-weight:bold;padding:0 0 4px"
    caption = f'<caption style="{above}">{html.escape(caption)}</caption>' if caption else ""
    return (
        f'<table style="{look}">{caption}<colgroup>{columns}</colgroup><thead><tr>{head}</tr>'
        f"</thead><tbody>{''.join(map(_bar_row, rows))}</tbody></table>"
    )


def _bar_row(row: BarRow) -> str:
    bars = "".join(
        f'<div style="height:7px;box-sizing:border-box;width:{100 * share:.2f}%;{look}"></div>'
        for share, look in row.bars
    )
    weight = "bold" if row.bold else "normal"
    style = f"{NUMBER};padding-right:12px;font-weight:{weight}"
    words = "".join(f'<td style="{style}">{text}</td>' for text in row.words)
    return (
        f'<tr><th scope="row" style="text-align:left;font-weight:{weight};white-space:nowrap;'
        f'padding-right:8px">{html.escape(row.name)}</th>'
        f'<td style="width:50%;border-left:1px solid #999">{bars}</td>{words}</tr>'
    )


def heatmap_html(
    values: torch.Tensor,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str,
    log: bool = False,
    marked: int | None = None,
    text: Sequence[Sequence[str]] | None = None,
) -> str:
    """A table of `values` `(rows, columns)`, each cell with its number on viridis colours.

    The first row is at the bottom, as layer 0 is in the figures. `text` is written in place of the
    numbers. `log` spreads the colours over powers of ten. `marked` is a column to point out.
    """
    if values.shape != (len(rows), len(columns)) or not values.numel():
        raise ValueError(f"values must be {(len(rows), len(columns))}, not {tuple(values.shape)}")
    values = values.detach().float().cpu()
    shades = _shades(values, log)
    lines = []
    for place in reversed(range(len(rows))):
        cells = [
            _cell(text[place][i] if text else number(value), shade, i == marked)
            for i, (value, shade) in enumerate(zip(values[place].tolist(), shades[place].tolist()))
        ]
        head = f'<th scope="row" style="{NUMBER};padding-right:6px">{rows[place]}</th>'
        lines.append(f"<tr>{head}{''.join(cells)}</tr>")
    heads = "".join(
        f'<th scope="col" style="font-weight:{"bold" if i == marked else "normal"};padding:2px 0">'
        f'<span style="writing-mode:vertical-rl;transform:rotate(180deg)">'
        f"{html.escape(name)}{' ◂' if i == marked else ''}</span></th>"
        for i, name in enumerate(columns)
    )
    look = "text-align:left;font-weight:bold;white-space:nowrap"
    caption = f'<caption style="{look}">{html.escape(title)}</caption>'
    return (
        f'<div style="overflow-x:auto" tabindex="0"><table style="border-collapse:collapse;{MONO};'
        f'line-height:1.5">{caption}<tbody>{"".join(lines)}</tbody>'
        f"<tfoot><tr><td></td>{heads}</tr></tfoot></table></div>"
    )


def _shades(values: torch.Tensor, log: bool) -> torch.Tensor:
    """Places on the colour scale, 0 to 1, of the values, the least and the greatest at its ends."""
    if log:
        least = values[values > 0].min() if (values > 0).any() else torch.tensor(1.0)
        values = values.clamp(min=least).log()
    low, high = values.min(), values.max()
    return (values - low) / (high - low).clamp(min=1e-9)


def _cell(text: str, shade: float, marked: bool) -> str:
    color = to_hex(colormaps["viridis"](shade))
    ink = "black" if shade > 0.55 else "white"
    edge = ";border-left:2px solid;border-right:2px solid" if marked else ""
    return (
        f'<td style="background:{color};{NUMBER};padding:0 5px{edge}"><span style="color:{ink}">'
        f"{html.escape(text)}</span></td>"
    )

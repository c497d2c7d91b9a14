"""HTML drawings for explorers: plain values in, a string out.

An explorer must follow a move at once: one of these takes about 1 ms, a matplotlib figure 150 ms.
Each value is also written out, so that nothing depends on telling colours apart.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from matplotlib import colormaps
from matplotlib.colors import to_hex, to_rgb

# Okabe and Ito's colours, which colour-blind readers can tell apart, without black and yellow.
OKABE_ITO = ["#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#0072B2", "#D55E00"]
MONO = "font-family:var(--jp-code-font-family,monospace);font-size:13px"
NUMBER = "text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap"
CELL = f"{NUMBER};padding:0 5px"
EDGES = ";border-left:2px solid;border-right:2px solid"
# OKABE_ITO mixed with white, 2 parts to 3, so that black text on it is easy to read.
PALE = ["#BBE1F6", "#F5D999", "#99D8C7", "#EBC9DC", "#99C7E0", "#EEBF99"]
GREY = "#D3D3D3"  # a cell whose number is not finite


def ink_on(color: Any) -> str:
    """Black or white, whichever has the higher contrast on a colour that matplotlib knows.

    The contrast is that of WCAG 2.1, from relative luminances. It is at least 4.5, even at a
    luminance of 0.179, where black and white have the same contrast.
    """
    rgb = to_rgb(color)
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    luminance = sum(w * part for w, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return "black" if luminance > 0.179 else "white"


def visible(text: str, limit: int = 24) -> str:
    """A readable token: ␣ for a space, escapes for unprintable characters, cut after `limit`."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text).replace(" ", "␣")
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def number(value: float) -> str:
    """Three significant digits, or all before the point; no exponent from 0.001 to 1,000,000."""
    if abs(value) >= 1e6 or 0 < abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def probability(value: float) -> str:
    """Three decimals as HTML; "< 0.001" where they would all be 0."""
    return "&lt; 0.001" if value < 0.0005 else f"{value:.3f}"


class BarRow(NamedTuple):
    """A row of `bar_table`.

    Each bar is a share from 0 to 1 with its CSS; `words` are HTML. A share that is not finite has
    no bar, so the words must say what it is.
    """

    name: str
    bars: Sequence[tuple[float, str]]
    words: Sequence[str]
    bold: bool = False


def bar_table(
    heads: Sequence[str], rows: Sequence[BarRow], *, caption: str = "", widths: Sequence[str] = ()
) -> str:
    """A table with the headings `heads`: each row has a name, its bars, and the values in words.

    `widths`, one CSS width for each column, keep the columns in place when the content changes.
    """
    sides = ["left", "left", *["right"] * (len(heads) - 2)]
    head = "".join(
        f'<th scope="col" style="text-align:{side};padding-right:12px;white-space:nowrap">'
        f"{text}</th>"
        for text, side in zip(heads, sides)
    )
    columns = "".join(f'<col style="width:{width}"/>' for width in widths)
    style = f"width:100%;max-width:760px;border-collapse:collapse;{MONO};line-height:1.3"
    style += ";table-layout:fixed" if widths else ""
    above = "text-align:left;font-weight:bold;padding:0 0 4px"
    caption = f'<caption style="{above}">{html.escape(caption)}</caption>' if caption else ""
    return (
        f'<table style="{style}">{caption}<colgroup>{columns}</colgroup><thead><tr>{head}</tr>'
        f"</thead><tbody>{''.join(map(_bar_row, rows))}</tbody></table>"
    )


def _bar_row(row: BarRow) -> str:
    bars = "".join(
        f'<div style="height:7px;box-sizing:border-box;width:'
        f'{100 * share if math.isfinite(share) else 0:.2f}%;{css}"></div>'
        for share, css in row.bars
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
    numbers. `log` spreads the colours over powers of ten. `marked` is a column to point out. A cell
    whose value is not finite is grey.
    """
    if values.shape != (len(rows), len(columns)) or not values.numel():
        raise ValueError(f"values must be {(len(rows), len(columns))}, not {tuple(values.shape)}")
    values = values.detach().float().cpu()
    shades = _shades(values, log).tolist()
    lines = []
    for place in reversed(range(len(rows))):
        words = text[place] if text else map(number, values[place].tolist())
        cells = "".join(
            heat_cell(word, shade, style=CELL + (EDGES if i == marked else ""))
            for i, (word, shade) in enumerate(zip(words, shades[place], strict=True))
        )
        head = f'<th scope="row" style="{NUMBER};padding-right:6px">{html.escape(rows[place])}</th>'
        lines.append(f"<tr>{head}{cells}</tr>")
    heads = "".join(
        f'<th scope="col" style="font-weight:{"bold" if i == marked else "normal"};padding:2px 0">'
        f'<span style="writing-mode:vertical-rl;transform:rotate(180deg)">'
        f"{html.escape(name)}{' ◂' if i == marked else ''}</span></th>"
        for i, name in enumerate(columns)
    )
    above = "text-align:left;font-weight:bold;white-space:nowrap"
    caption = f'<caption style="{above}">{html.escape(title)}</caption>'
    foot = f"<tfoot><tr><td></td>{heads}</tr></tfoot>"
    return scrolling_table(f"{caption}<tbody>{''.join(lines)}</tbody>{foot}")


def scrolling_table(content: str, name: str = "") -> str:
    """A table of the HTML `content`, of class `name`; one that is too wide can be scrolled."""
    return (
        f'<div style="overflow-x:auto" tabindex="0"><table class="{name}" style="border-collapse:'
        f'collapse;{MONO};line-height:1.5">{content}</table></div>'
    )


def heat_cell(text: str, shade: float, *, style: str = "", tooltip: str = "") -> str:
    """A cell with `text` on viridis at `shade`, 0 to 1; on grey where that is not finite."""
    color = to_hex(colormaps["viridis"](shade)) if math.isfinite(shade) else GREY
    title = f' title="{html.escape(tooltip)}"' if tooltip else ""
    return (
        f'<td style="background:{color};{style}"{title}><span style="color:{ink_on(color)}">'
        f"{html.escape(text)}</span></td>"
    )


def _shades(values: torch.Tensor, log: bool) -> torch.Tensor:
    """Places on the colour scale: 0 for the lowest finite value and 1 for the highest one."""
    values = torch.where(values.isfinite(), values, torch.nan)
    if log:
        positive = values[values > 0]
        values = values.clamp(min=positive.min() if len(positive) else 1.0).log()
    finite = values[~values.isnan()]
    if not len(finite):
        return values
    return (values - finite.min()) / (finite.max() - finite.min()).clamp(min=1e-9)

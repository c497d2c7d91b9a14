"""Small HTML drawings for the explorers: they follow a move at once, and say all in words too.

A matplotlib figure takes 150 ms of a processor to draw, one of these about 1 ms. All take plain
values and give a string. Each value is written out, so that no colour has to be told apart.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from matplotlib import colormaps
from matplotlib.colors import to_hex, to_rgb

from .plots import OKABE_ITO
from .steering import Samples
from .token_views import FilteredChoice, TokenRow

MONO = "font-family:var(--jp-code-font-family,monospace);font-size:13px"
NUMBER = "text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap"
# Pale enough for black text, as in the figures.
PALE = [to_hex([0.6 + 0.4 * part for part in to_rgb(color)]) for color in OKABE_ITO]
MOST_TOKENS = 400  # more boxes than that are slow to lay out, and nobody reads them


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


def tokens_html(rows: Sequence[TokenRow]) -> str:
    """A coloured box for each token: its text, its id, its bytes in hexadecimal."""
    boxes = []
    for place, row in enumerate(rows[:MOST_TOKENS]):
        color = PALE[place % len(PALE)]
        edge = "2px dashed" if row.special else "1px solid"
        raw = "special" if row.special else row.raw.hex(" ").upper()
        boxes.append(
            f'<div data-token="{row.token_id}" style="border:{edge} {color};border-radius:3px;'
            f'text-align:center;overflow:hidden;max-width:100%">'
            f'<div style="background:{color};color:black;padding:0 4px">'
            f"{html.escape(visible(row.text, 40))}</div>"
            f'<div style="padding:0 4px">{row.token_id}</div>'
            f'<div style="padding:0 4px;font-size:10px">{raw}</div></div>'
        )
    left = len(rows) - MOST_TOKENS
    more = f"<div>… and {left:,} tokens more</div>" if left > 0 else ""
    place = "display:flex;flex-wrap:wrap;gap:4px;line-height:1.5;align-items:flex-start"
    return f'<div style="{place};{MONO}">{"".join(boxes)}{more}</div>'


def choice_html(
    before: torch.Tensor, choice: FilteredChoice, names: Sequence[str], ids: torch.Tensor
) -> str:
    """Two bars for each of the tokens `ids`, called `names`, and two for all others together.

    The one above, grey, is `before`, the model's own probabilities `(vocab,)`; the one below, blue,
    is what is drawn from.
    """
    shown = torch.zeros_like(choice.kept)
    shown[ids] = True
    rows = [
        _choice_row(visible(name), before[i].item(), choice.probs[i].item(), bool(choice.kept[i]))
        for name, i in zip(names, ids.tolist(), strict=True)
    ]
    sums = before[~shown].sum().item(), choice.probs[~shown].sum().item()
    kept = bool(choice.kept[~shown].any())
    rows.append(_choice_row(f"the other {int((~shown).sum()):,}", *sums, kept))
    heads = ["token (␣ is a space)", "probability from 0 to 1"]
    return bar_table([*heads, "above: the model's own", "below: drawn from"], rows)


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


def _choice_row(name: str, old: float, new: float, kept: bool) -> BarRow:
    bars = [(old, "background:#999999"), (new, f"background:{OKABE_ITO[4]}")]
    return BarRow(name, bars, [probability(old), probability(new) if kept else "dropped"])


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


def steering_table(
    without: Samples,
    steered: Samples,
    describe: Callable[[str], str] | None = None,
    *,
    title: str = "steered",
) -> str:
    """HTML: each text without steering beside the one with it, and each one's loss under it.

    `describe` gives a word or two about a text, such as its mood, to stand beside the loss. `title`
    stands above the steered texts. Rows are equally high, for up to three lines of text.
    """

    look = "text-align: left; vertical-align: top; line-height: 1.4; padding: 2px 16px 2px 4px"

    def cell(text: str, loss: float) -> str:
        about = f"{html.escape(describe(text))}, " if describe else ""
        return (
            f'<td style="{look}; height: 5.8em">'
            f"{html.escape(text.strip()) or '(nothing)'}<br>"
            f"<small>{about}loss {loss:.2f} nats per token</small></td>"
        )

    rows = zip(
        zip(without.texts, without.losses.tolist(), strict=True),
        zip(steered.texts, steered.losses.tolist(), strict=True),
        strict=True,
    )
    body = "".join(f"<tr>{cell(*left)}{cell(*right)}</tr>" for left, right in rows)
    names = ("without", html.escape(title))
    head = "".join(f'<th style="{look}">{name}</th>' for name in names)
    return f'<table style="width: 100%; table-layout: fixed"><tr>{head}</tr>{body}</table>'

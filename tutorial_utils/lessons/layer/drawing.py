"""HTML of attention patterns: weights in, a string out.

A pattern is drawn as an image of one pixel for each weight: a table of as many cells would take too
long. Its largest weights are also written out.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import torch
from matplotlib import colormaps
from matplotlib.image import imsave
from torch import Tensor

from tutorial_utils.draw.html import MONO, BarRow, bar_table, probability, visible
from tutorial_utils.lessons.grid import shade

THUMBNAIL = 32  # pixels
PIXELS = 18  # a weight in the picked pattern
LARGEST = 6  # weights in each of the two lists
LOOKS, LOOKED_AT = "Blues", "Oranges"  # where a token looks, and who looks at it


def pattern_html(pattern: Tensor, tokens: Sequence[str], picked: int, title: str) -> str:
    """A pattern `(query, key)` with its tokens on both axes; a long one can be scrolled.

    The row of the picked token, where it looks, is framed in blue, its column in orange. Pointing
    at a row shows its largest weights.
    """
    side, name = len(tokens) * PIXELS, [visible(token, 14) for token in tokens]
    line = f"height:{PIXELS}px;line-height:{PIXELS}px;white-space:pre"
    stick = "position:sticky;z-index:1;background:var(--jp-layout-color0,white)"

    def label(place: int, css: str) -> str:
        bold = ";font-weight:bold" if place == picked else ""
        return f'<div style="{css}{bold}">{html.escape(name[place])}</div>'

    turned = f"width:{PIXELS}px;line-height:{PIXELS}px;white-space:pre;writing-mode:vertical-rl"
    columns = "".join(label(place, turned) for place in range(len(tokens)))
    rows = "".join(label(place, line) for place in range(len(tokens)))
    tips = "".join(
        f'<div class="looks" style="height:{PIXELS}px" title="{html.escape(tip)}"></div>'
        for tip in where_rows_look(pattern, name)
    )
    frames = "".join(
        f'<div style="position:absolute;pointer-events:none;outline:2px solid {color};'
        f'outline-offset:-2px;{css}"></div>'
        for color, css in (
            ("#0072B2", f"left:0;width:{side}px;top:{picked * PIXELS}px;height:{PIXELS}px"),
            ("#D55E00", f"top:0;height:{side}px;left:{picked * PIXELS}px;width:{PIXELS}px"),
        )
    )
    image, alt = png(pattern), html.escape(title)
    return (
        f'<style>.looks:hover {{outline:1px solid #0072B2}}</style><div role="region" tabindex="0"'
        f' aria-label="{alt}" style="width:0;min-width:100%;{MONO}">'
        f'<div style="display:grid;grid-template-columns:max-content {side}px;gap:4px">'
        f'<div style="{stick};top:0;left:0;z-index:2;align-self:end">query ↓ key →</div>'
        f'<div style="{stick};top:0;display:flex;align-items:end">{columns}</div>'
        f'<div style="{stick};left:0;text-align:right">{rows}</div>'
        f'<div style="position:relative;height:{side}px"><img src="{image}" alt="{alt}" style="'
        f"position:absolute;width:{side}px;height:{side}px;max-width:none;"
        f'image-rendering:pixelated;outline:1px solid #999"/>{frames}'
        f'<div style="position:relative">{tips}</div></div></div></div>'
    )


def where_rows_look(pattern: Tensor, names: Sequence[str], k: int = 4) -> list[str]:
    """For each query of a pattern `(query, key)` its `k` largest weights, in words."""
    best = pattern.topk(min(k, pattern.shape[-1]), dim=-1)
    return [
        f"{query + 1} {names[query]} looks at: "
        + ", ".join(f"{key + 1} {names[key]} {w:.3f}" for w, key in zip(*row) if w > 0)
        for query, row in enumerate(zip(best.values.tolist(), best.indices.tolist()))
    ]


def look_lists(pattern: Tensor, tokens: Sequence[str], place: int) -> str:
    """Two tables of bars: the largest weights of a token, and the largest weights given to it."""
    names = [f"{i + 1} {visible(token, 14)}" for i, token in enumerate(tokens)]
    tables = []
    for weights, caption, colors in (
        (pattern[place], f"Where {names[place]} looks", LOOKS),
        (pattern[:, place], f"Who looks at {names[place]}", LOOKED_AT),
    ):
        best = weights.topk(min(LARGEST, len(weights)))
        rows = [
            BarRow(names[i], [(w, f"background:{shade(0.8, colors)}")], [probability(w)])
            for w, i in zip(best.values.tolist(), best.indices.tolist())
        ]
        table = bar_table(
            ["token", "0 to 1", "weight"], rows, caption=caption, widths=["160px", "auto", "80px"]
        )
        tables.append(f'<div style="flex:1 1 320px;min-width:0">{table}</div>')
    return f'<div style="display:flex;flex-wrap:wrap;gap:24px">{"".join(tables)}</div>'


def thumbnails(patterns: Tensor) -> tuple[str, list[list[str]]]:
    """Small pictures of patterns `(layer, head, query, key)`: CSS of all cells, and of each one.

    All are one image, of which a cell shows a part. A pattern of more tokens than pixels shows the
    largest weight of each patch, since thin lines would be lost in means.
    """
    size = min(patterns.shape[-1], THUMBNAIL)
    small = torch.nn.functional.adaptive_max_pool2d(patterns, size)
    layers, heads = small.shape[:2]
    sheet = small.transpose(1, 2).reshape(layers * size, heads * size)
    image = png(sheet)
    css = (
        f"width:{THUMBNAIL}px;height:{THUMBNAIL}px;margin:2px auto;image-rendering:pixelated;"
        f"background-image:url({image});"
        f"background-size:{heads * THUMBNAIL}px {layers * THUMBNAIL}px"
    )
    return css, [
        [f"background-position:{-head * THUMBNAIL}px {-row * THUMBNAIL}px" for head in range(heads)]
        for row in range(layers)
    ]


def png(weights: Tensor) -> str:
    """An image of weights `(height, width)`, as an address for HTML and CSS."""
    file = io.BytesIO()
    imsave(file, colormaps[LOOKS](weights.clamp(0, 1).numpy()), format="png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"

"""The way from a prompt to the next token in one figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure

from tutorial_utils.draw.described import describe_figure, opening
from tutorial_utils.draw.figures import (
    as_array,
    box_rows,
    draw_bars,
    draw_boxes,
    longest_label,
    new_figure,
    tokens_in_words,
    tokens_with_probs,
)
from tutorial_utils.draw.heatmaps import draw_heatmap, heatmap_in_words
from tutorial_utils.draw.html import OKABE_ITO


def plot_pipeline(
    tokens: Sequence[str],
    ids: Sequence[int] | torch.Tensor,
    norms: torch.Tensor,
    after: Sequence[tuple[str, float]],
    *,
    title: str = "From a prompt to the next token",
) -> Figure:
    """All steps in one picture: tokens, ids, the residual stream's norms, the next token.

    The shapes are `(seq,)` for `tokens` and `ids`, and `(layers, seq)` for `norms`. `after` has the
    most probable next tokens with their probabilities, as `top_tokens` gives them.
    """
    values, rows = as_array(norms), box_rows(tokens, ids)
    steps = [
        "each token has a number, its id",
        "each id picks a row of the embedding (layer 0); then the decoder layers add to it",
        "final norm, unembedding and softmax, at the last token",
    ]
    boxes, cells = 0.36 * len(rows), max(1, min(0.16 * len(values), 4))
    heights = [boxes, 0.36, boxes, 0.36, cells + 0.8 + longest_label(tokens), 0.36, 2.2]
    figure = new_figure(sum(heights), title)
    parts = np.array(figure.subfigures(len(heights), 1, height_ratios=heights))
    draw_boxes(parts[0], [[box._replace(name="") for box in row] for row in rows])
    draw_boxes(parts[2], [[box._replace(name="", text=box.name) for box in row] for row in rows])
    draw_heatmap(parts[4], values, tokens, label="norm (log scale)", log=True)
    draw_bars(parts[6], [(token, prob) for token, prob in after])
    for part, step in zip(parts[1::2], steps, strict=True):
        axes = part.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        arrow = {"arrowstyle": "-|>", "color": OKABE_ITO[4], "lw": 2}
        axes.annotate("", (0.05, 0.05), (0.05, 0.95), arrowprops=arrow)
        axes.text(0.08, 0.5, step, va="center", fontsize=10)
    heatmap = heatmap_in_words(values, tokens, label="norms")
    below = f"Below them, {heatmap}; at the bottom, the {tokens_with_probs(after)}."
    return describe_figure(figure, f"{opening(title)} {tokens_in_words(tokens, ids)}. {below}")

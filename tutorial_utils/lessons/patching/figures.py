"""Figures of patching and steering: tensors in, a matplotlib Figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tutorial_utils.draw.described import counted, describe_figure, in_words, sentence
from tutorial_utils.draw.figures import (
    CHARACTER,
    MARKERS,
    WIDTH,
    add_legend,
    as_array,
    checked_finite,
    drawable,
    longest_label,
    name_columns,
    new_figure,
    token_label,
)
from tutorial_utils.draw.heatmaps import heatmap_in_words
from tutorial_utils.draw.html import GREY, OKABE_ITO

SHARE = "share that comes back"


def plot_shares(
    share: torch.Tensor,
    tokens: Sequence[str],
    layers: Sequence[int] | None = None,
    *,
    title: str = "Where a patch brings the clean answer back",
) -> Figure:
    """A heatmap of shares `(layers, seq)`: 1, blue, is the clean answer, and below 0 is red.

    `layers` are the numbers of the rows, 0 and up by default. A share that is not finite is grey.
    """
    values = as_array(share)
    layers = [*(range(len(values)) if layers is None else layers)]
    if values.shape != (len(layers), len(tokens)):
        shape = (len(layers), len(tokens))
        raise ValueError(f"share must be (layers, seq), here {shape}, not {values.shape}")
    if not values.size:
        raise ValueError("share is empty: give at least one layer and one token")
    height = 0.25 * len(layers) + 0.7 + longest_label(tokens)
    figure = new_figure(height, title)
    axes = figure.add_subplot()
    axes.set_facecolor(GREY)
    image = axes.imshow(values, cmap="RdBu", vmin=-1, vmax=1, aspect="auto", origin="lower")
    name_columns(axes, [token_label(token) for token in tokens], WIDTH - 1.6)
    step = -(-len(layers) // 17)
    axes.set_yticks(range(0, len(layers), step), map(str, layers[::step]), fontsize=9)
    axes.set_ylabel("layer")
    figure.colorbar(image, ax=axes, label=SHARE, pad=0.01)
    said = heatmap_in_words(values, tokens, layers=layers, label=SHARE.capitalize())
    return describe_figure(figure, f"{sentence(title)} {said}.")


def plot_share_lines(
    lines: Mapping[str, torch.Tensor],
    layers: Sequence[int],
    *,
    level: float | None = None,
    title: str = "What comes back, by layer",
) -> Figure:
    """Mean shares by layer, of `{name: (pairs, layers)}`, with a standard error where pairs > 1.

    `level` is drawn as a dotted line: the share at a logit difference of 0. A mean
    over shares that are not all finite is not drawn, and the figure says so.
    """
    if not 1 <= len(lines) <= len(OKABE_ITO):
        raise ValueError(f"give 1 to {len(OKABE_ITO)} lines, not {len(lines)}")
    figure = new_figure(3.1, title)
    axes = figure.add_subplot()
    said = []
    for number, (name, values) in enumerate(lines.items()):
        rows = np.atleast_2d(as_array(values))
        if rows.shape[1] != len(layers):
            raise ValueError(
                f"{name}: one share for each of {counted(len(layers), 'layer')}, "
                f"not {rows.shape[1]}"
            )
        spread = rows.std(axis=0, ddof=1) / len(rows) ** 0.5 if len(rows) > 1 else None
        if not np.isfinite(rows).all():
            middle: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "fontsize": 9}
            axes.text(
                0.5, 0.5 - 0.1 * number, f"{drawable(name)}: not all shares are finite", **middle
            )
        look: dict[str, Any] = {
            "color": OKABE_ITO[number],
            "marker": MARKERS[number],
            "markersize": 5,
        }
        means = rows.mean(axis=0)
        axes.errorbar(layers, means, spread, capsize=3, **look)
        top = int(np.nan_to_num(means, nan=-np.inf).argmax())
        highest = f"highest at layer {layers[top]} ({in_words(means[top])})"
        ends = f"from {in_words(means[0])} to {in_words(means[-1])}"
        said.append(f"{name} goes {ends}, and is {highest}")
    if level is not None and np.isfinite(level):
        axes.axhline(level, color="black", linestyle=":", linewidth=1)
        axes.annotate("logit difference 0", (layers[0], level), xytext=(0, 3), fontsize=9,
                      textcoords="offset points")  # fmt: skip
    axes.axhline(0, color=GREY, linewidth=1, zorder=0)
    axes.set(xlabel="layer", ylabel="share")
    axes.set_xticks(layers[:: -(-len(layers) // 17)])
    axes.spines[["top", "right"]].set_visible(False)
    columns = max(1, int(WIDTH / (11 * CHARACTER * max(map(len, lines)) + 0.6)))
    add_legend(figure, axes.containers, [*lines], loc="outside lower center", ncols=columns)
    span = f"Shares from layer {layers[0]} to layer {layers[-1]}"
    return describe_figure(figure, f"{sentence(title)} {span}: {'; '.join(said)}.")


def plot_steering(
    moods: Mapping[str, Sequence[float]],
    losses: Mapping[str, Sequence[float]],
    *,
    title: str = "What each direction does to the mood, and what it costs",
) -> Figure:
    """A column of points for each kind of direction: the change of mood, and of the loss.

    `moods` are changes in logits, `losses` are the loss divided by that without a direction, both
    `{kind: one number for each repetition or direction}`, with the same kinds.
    """
    if not moods or [*moods] != [*losses]:
        raise ValueError(f"moods and losses must have the same kinds: {[*moods]}, {[*losses]}")
    figure = new_figure(3.2, title)
    left, right = figure.subplots(1, 2)
    _strip(left, moods, 0, "change of the judged mood (logits)")
    _strip(right, losses, 1, "loss, relative to the loss without steering")
    right.set_ylim(bottom=0)
    means = [
        (kind, as_array(mood).mean(), as_array(loss).mean())
        for (kind, mood), loss in zip(moods.items(), losses.values(), strict=True)
    ]
    said = [f"{k} {in_words(mood)} at {in_words(loss)} times the loss" for k, mood, loss in means]
    about = "Mean change of the mood in logits, and mean loss relative to that without steering"
    return describe_figure(figure, f"{sentence(title)} {about}: {'; '.join(said)}.")


def _strip(axes: Axes, columns: Mapping[str, Sequence[float]], none: float, label: str) -> None:
    """The points of each column, a bar at their mean, and a line at what no direction gives."""
    axes.axhline(none, color="black", linestyle=":", linewidth=1)
    for number, (kind, given) in enumerate(columns.items()):
        values = checked_finite(given, kind)
        places = number + np.linspace(-0.2, 0.2, len(values)) if len(values) > 1 else [number]
        look: dict[str, Any] = {
            "color": OKABE_ITO[number % len(OKABE_ITO)],
            "marker": MARKERS[number % 6],
        }
        axes.plot(places, values, linestyle="", alpha=0.7, **look)
        axes.plot([number - 0.3, number + 0.3], [values.mean()] * 2, color="black")
    axes.set_xticks(range(len(columns)), [kind.replace(" ", "\n") for kind in columns], fontsize=9)
    axes.set_ylabel(label)
    axes.spines[["top", "right"]].set_visible(False)

"""Figures of sparse features: tensors in, a matplotlib Figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from tutorial_utils.draw.described import describe_figure, in_words, listed
from tutorial_utils.draw.figures import (
    CHARACTER,
    MARKERS,
    WIDTH,
    add_legend,
    as_array,
    checked_finite,
    drawable,
    new_figure,
)
from tutorial_utils.draw.html import GREY, OKABE_ITO


def plot_fired(rates: torch.Tensor, *, title: str = "How often each feature fires") -> Figure:
    """A histogram of rates (features,), the share of tokens that each fires on; never is apart."""
    values = checked_finite(rates, "rates")
    fired = values[values > 0]
    figure = new_figure(2.6, title)
    axes = figure.add_subplot()
    if len(fired):
        low = 10 ** np.floor(np.log10(fired.min()))
        axes.hist(fired, np.geomspace(low, 1, 33).tolist(), color=OKABE_ITO[4])
    axes.set_xscale("log")
    axes.set(xlabel="share of tokens that a feature fires on", ylabel="features")
    axes.text(0.99, 0.95, f"{len(values) - len(fired)} of {len(values)} never fire", ha="right",
              va="top", transform=axes.transAxes)  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
    never = len(values) - len(fired)
    said = f"the median one on {in_words(float(np.median(values)))} of the tokens"
    told = f"{title}: {len(values)} features, {said}, {never} on none."
    return describe_figure(figure, told)


def plot_judged(
    f1: Mapping[str, torch.Tensor | Sequence],
    attributes: Sequence[str],
    *,
    title: str = "How well each way tells what is true of a token",
) -> Figure:
    """A row for each attribute with a mark for each way, at its F1: {way: (attributes,)}.

    With {way: (seeds, attributes)} the mark is at the mean, and a line goes from the least seed to
    the greatest.
    """
    if not 1 <= len(f1) <= len(OKABE_ITO):
        raise ValueError(f"{len(f1)} ways cannot be told apart: give 1 to {len(OKABE_ITO)}")
    figure = new_figure(0.34 * len(attributes) + 1.1, title)
    axes = figure.add_subplot()
    drawn = []
    for number, (way, given) in enumerate(f1.items()):
        values = np.atleast_2d(checked_finite(given, way))
        if values.shape[1] != len(attributes):
            raise ValueError(
                f"{way}: one F1 for each of {len(attributes)} attributes, not {values.shape[1]}"
            )
        rows = len(attributes) - 1 - np.arange(len(attributes)) + 0.13 * (len(f1) / 2 - number)
        look: dict[str, Any] = {"color": OKABE_ITO[number], "marker": MARKERS[number]}
        axes.hlines(rows, values.min(axis=0), values.max(axis=0), color=OKABE_ITO[number])
        drawn += axes.plot(values.mean(axis=0), rows, linestyle="", markersize=6, **look)
    for row in range(len(attributes) - 1):
        axes.axhline(row + 0.5, color=GREY, linewidth=0.6, zorder=0)
    names = [drawable(name) for name in reversed(attributes)]
    axes.set_yticks(range(len(attributes)), names, fontsize=9)
    axes.set(xlim=(-0.02, 1.02), xlabel="F1 on held-out documents")
    axes.spines[["top", "right"]].set_visible(False)
    columns = max(1, int(WIDTH / (11 * CHARACTER * max(map(len, f1)) + 0.6)))
    add_legend(figure, drawn, [*f1], loc="outside lower center", ncols=columns)
    means = {
        way: checked_finite(given, way).reshape(-1, len(attributes)) for way, given in f1.items()
    }
    said = []
    for i, name in enumerate(attributes):
        each = {way: float(values[:, i].mean()) for way, values in means.items()}
        said.append(f"{name}: {', '.join(f'{way} {in_words(f)}' for way, f in each.items())}")
    return describe_figure(figure, f"{title}. F1 of {'; '.join(said)}.")


def plot_switched(
    moods: Mapping[str, Sequence[float]], *, title: str = "What switching a feature does"
) -> Figure:
    """A column for each switch: a point for each text's change of mood, and a bar at their mean."""
    figure = new_figure(2.9, title)
    axes = figure.add_subplot()
    axes.axhline(0, color="black", linestyle=":", linewidth=1)
    for number, (name, given) in enumerate(moods.items()):
        values = checked_finite(as_array(given), name)
        places = number + np.linspace(-0.2, 0.2, len(values)) if len(values) > 1 else [number]
        colour = OKABE_ITO[number % len(OKABE_ITO)]
        axes.plot(places, values, MARKERS[number % 6], color=colour, markersize=4, alpha=0.6)
        axes.plot([number - 0.3, number + 0.3], [values.mean()] * 2, color="black")
    axes.set_xticks(range(len(moods)), [drawable(name).replace(", ", "\n") for name in moods])
    axes.set_ylabel("change of mood (logits)")
    axes.spines[["top", "right"]].set_visible(False)
    said = [f"{name} {in_words(float(np.mean(given)))}" for name, given in moods.items()]
    return describe_figure(figure, f"{title}. Mean changes of mood, in logits: {listed(said)}.")

"""Figures of sparse features: tensors in, a matplotlib Figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from tutorial_utils.draw.described import counted, describe_figure, in_words, listed, sentence
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
    """A histogram of rates (features,), the share of tokens that each feature fires on.

    Features that never fire are counted in a line of text.
    """
    values = checked_finite(rates, "rates")
    fired = values[values > 0]
    figure = new_figure(2.6, title)
    axes = figure.add_subplot()
    if len(fired):
        low = 10 ** np.floor(np.log10(fired.min()))
        axes.hist(fired, np.geomspace(low, 1, 33).tolist(), color=OKABE_ITO[4])
    axes.set_xscale("log")
    axes.set(xlabel="share of tokens that a feature fires on", ylabel="number of features")
    axes.text(0.99, 0.95, f"{len(values) - len(fired)} of {len(values)} never fire", ha="right",
              va="top", transform=axes.transAxes)  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
    never = len(values) - len(fired)
    said = f"the median feature fires on {np.median(values):.2%} of the tokens"
    told = f"Of {len(values)} features, {said}, and {never} never fire."
    return describe_figure(figure, f"{sentence(title)} {told}")


def plot_judged(
    f1: Mapping[str, torch.Tensor | Sequence],
    attributes: Sequence[str],
    *,
    title: str = "How well each way finds the attributes",
) -> Figure:
    """A row for each attribute with a mark for each way, at its F1: {way: (attributes,)}.

    With {way: (seeds, attributes)} the mark is at the mean over the seeds, and a line goes from the
    lowest F1 to the highest.
    """
    if not 1 <= len(f1) <= len(OKABE_ITO):
        raise ValueError(f"give 1 to {len(OKABE_ITO)} ways, not {len(f1)}")
    figure = new_figure(0.34 * len(attributes) + 1.1, title)
    axes = figure.add_subplot()
    drawn, seeds = [], 1
    for number, (way, given) in enumerate(f1.items()):
        values = np.atleast_2d(checked_finite(given, way))
        if values.shape[1] != len(attributes):
            raise ValueError(
                f"{way}: one F1 for each of {counted(len(attributes), 'attribute')}, "
                f"not {values.shape[1]}"
            )
        seeds = max(seeds, len(values))
        rows = len(attributes) - 1 - np.arange(len(attributes)) + 0.13 * (len(f1) / 2 - number)
        look: dict[str, Any] = {"color": OKABE_ITO[number], "marker": MARKERS[number]}
        axes.hlines(rows, values.min(axis=0), values.max(axis=0), color=OKABE_ITO[number])
        drawn += axes.plot(values.mean(axis=0), rows, linestyle="", markersize=6, **look)
    for row in range(len(attributes) - 1):
        axes.axhline(row + 0.5, color=GREY, linewidth=0.6, zorder=0)
    measure = f"mean F1 of {seeds} seeds" if seeds > 1 else "F1"
    names = [drawable(name) for name in reversed(attributes)]
    axes.set_yticks(range(len(attributes)), names, fontsize=9)
    axes.set(xlim=(-0.02, 1.02), xlabel=f"{measure} on held-out texts")
    axes.spines[["top", "right"]].set_visible(False)
    columns = max(1, int(WIDTH / (11 * CHARACTER * max(map(len, f1)) + 0.6)))
    add_legend(figure, drawn, [*f1], loc="outside lower center", ncols=columns)
    means = {way: np.atleast_2d(as_array(given)).mean(axis=0) for way, given in f1.items()}
    told = _judged_in_words(means, attributes)
    of = f" (mean of {seeds} seeds)" if seeds > 1 else ""
    return describe_figure(figure, f"{sentence(title)} F1 of {next(iter(f1))}{of} {told}.")


def _judged_in_words(means: Mapping[str, np.ndarray], attributes: Sequence[str]) -> str:
    """The first way's F1 for each attribute, with the ways that are better, best first."""
    (_, first), *others = means.items()
    said = []
    for i, (name, own) in enumerate(zip(attributes, first.tolist(), strict=True)):
        better = sorted(((v[i], way) for way, v in others if v[i] > own), reverse=True)
        beaten = ", ".join(f"{way} {in_words(float(value))}" for value, way in better) or "none"
        said.append(f"{name} {in_words(own)}" + (f" ({beaten})" if others else ""))
    brackets = ", and in brackets that of each better way" if others else ""
    return f"for each attribute{brackets}: {'; '.join(said)}"


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
    said = [
        f"{name.replace(', ', ' ')} {in_words(float(np.mean(given)))}"
        for name, given in moods.items()
    ]
    told = f"Mean change of mood, in logits: {listed(said)}."
    return describe_figure(figure, f"{sentence(title)} {told}")

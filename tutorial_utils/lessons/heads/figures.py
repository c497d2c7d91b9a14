"""Figures of attention heads: tensors in, a matplotlib Figure out.

Decoder layers are numbered from 1, heads from 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tutorial_utils.draw.described import (
    counted,
    describe_figure,
    in_words,
    listed,
    quoted,
    sentence,
)
from tutorial_utils.draw.figures import (
    MARKERS,
    WIDTH,
    add_legend,
    checked_finite,
    longest_label,
    name_columns,
    new_figure,
    token_label,
    write,
)
from tutorial_utils.draw.html import OKABE_ITO, ink_on

FEW_LAYERS = 12  # up to here each cell of a map has its number written in


def plot_repeats(
    losses: torch.Tensor, length: int, *, title: str = "Random words, repeated"
) -> Figure:
    """Median loss by token of `(rows, seq - 1)`, and a band with the middle half of the rows.

    The last `length` losses are those of the repeated words.
    """
    rows = np.atleast_2d(checked_finite(losses, "losses"))
    places = np.arange(1, rows.shape[1] + 1)
    low, middle, high = np.quantile(rows, [0.25, 0.5, 0.75], axis=0)
    figure = new_figure(2.6, title)
    axes = figure.add_subplot()
    axes.fill_between(places, low, high, color=OKABE_ITO[0], alpha=0.3)
    axes.plot(places, middle, color=OKABE_ITO[4], marker="o", markersize=4)
    begins = rows.shape[1] - length + 1
    axes.axvline(begins - 0.5, color="black", linestyle=":", linewidth=1)
    axes.annotate("repeated", (begins - 0.3, 1), xycoords=("data", "axes fraction"), va="top",
                  fontsize=9)  # fmt: skip
    axes.set(xlabel="token", ylabel="loss (nats)", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    before, after = rows[:, :-length].mean(), rows[:, -length + 1 :].mean()
    said = f"{in_words(before)} nats before the words are repeated, and {in_words(after)} nats"
    return describe_figure(
        figure, f"{sentence(title)} The mean loss is {said} from the second repeated word on."
    )


def plot_patterns(
    patterns: Mapping[str, torch.Tensor],
    tokens: Sequence[str],
    *,
    title: str = "Where each head looks",
) -> Figure:
    """Patterns `{name: (query, key)}` side by side; the tokens that look are on the left axis."""
    figure = new_figure(2.6 + longest_label(tokens), title)
    panels = figure.subplots(1, len(patterns), squeeze=False, sharey=True)[0]
    labels = [token_label(token) for token in tokens]
    step = -(-len(tokens) // 17)
    for axes, (name, given) in zip(panels, patterns.items(), strict=True):
        values = checked_finite(given, name)
        image = axes.imshow(values, cmap="viridis", vmin=0, vmax=1, aspect="auto")
        axes.set_title(name, fontsize=10)
        name_columns(axes, labels, (WIDTH - 1.8) / len(patterns))
        axes.set_xlabel("")
    panels[0].set_yticks(
        range(0, len(tokens), step), labels[::step], fontsize=9, family="monospace"
    )
    panels[0].set_ylabel("token that looks")
    figure.supxlabel("token looked at (␣ is a space)", fontsize=10)
    figure.colorbar(image, ax=[*panels], label="attention", pad=0.01)
    most = {name: checked_finite(p)[-1] for name, p in patterns.items()}
    said = [
        f"{name} gives {in_words(row.max())} of its attention to {quoted(labels[row.argmax()])}"
        for name, row in most.items()
    ]
    return describe_figure(figure, f"{sentence(title)} At the last token, {listed(said)}.")


def plot_head_maps(
    maps: Mapping[str, torch.Tensor | Sequence],
    *,
    title: str = "A score for each head",
    label: str = "score",
    signed: bool = False,
) -> Figure:
    """A map `(layers, heads)` for each name, layer 1 at the bottom, all in the same colours.

    `signed` colours go from red, below 0, to blue; else they go from 0 up.
    """
    values = {name: np.atleast_2d(checked_finite(each, name)) for name, each in maps.items()}
    layers = len(next(iter(values.values())))
    figure = new_figure(max(2.2, min(0.24 * layers, 5)) + 0.6, title)
    panels = figure.subplots(1, len(values), squeeze=False, sharey=True)[0]
    end = max(float(np.abs(each).max()) for each in values.values()) or 1.0
    for axes, (name, each) in zip(panels, values.items(), strict=True):
        image = _draw_map(axes, each, end, signed, len(values))
        axes.set_title(name, fontsize=10)
    panels[0].set_ylabel("decoder layer")
    figure.colorbar(image, ax=[*panels], label=label, pad=0.01)
    said = "; ".join(f"in {quoted(name)}, {_largest(v, signed)}" for name, v in values.items())
    most = f"the {label} farthest from 0" if signed else f"the highest {label}"
    about = f"The heads of {counted(layers, 'layer')} with {most}"
    return describe_figure(figure, f"{sentence(title)} {about}: {said}.")


def _draw_map(axes: Axes, values: np.ndarray, end: float, signed: bool, panels: int) -> Any:
    layers, heads = values.shape
    colours: dict[str, Any] = {"cmap": "RdBu" if signed else "viridis", "vmax": end}
    image = axes.imshow(
        values, origin="lower", aspect="auto", vmin=-end if signed else 0, **colours
    )
    step = -(-layers // 17)
    axes.set_yticks(
        range(0, layers, step), [str(i + 1) for i in range(0, layers, step)], fontsize=9
    )
    step = -(-heads // int(24 / panels))
    axes.set_xticks(range(0, heads, step), [str(i) for i in range(0, heads, step)], fontsize=9)
    axes.set_xlabel("head")
    if layers <= FEW_LAYERS and heads * panels <= 12:
        for (layer, head), value in np.ndenumerate(values):
            ink = ink_on(image.to_rgba(value))
            write(axes, head, layer, f"{value:.2f}", fontsize=9, color=ink)
    return image


def _largest(values: np.ndarray, signed: bool, most: int = 4) -> str:
    order = np.argsort(-(np.abs(values) if signed else values), axis=None)[:most]
    places = [np.unravel_index(i, values.shape) for i in order]
    return listed(f"L{r + 1}H{c} {in_words(float(values[r, c]))}" for r, c in places)


def plot_attribution(
    attention: torch.Tensor,
    mlp: torch.Tensor,
    heads: torch.Tensor,
    *,
    title: str = "What each part writes",
) -> Figure:
    """What each layer's two parts `(layers,)` and its heads `(layers, heads)` add, in logits."""
    bars = {"attention": checked_finite(attention), "MLP": checked_finite(mlp)}
    each = checked_finite(heads)
    layers = len(each)
    figure = new_figure(max(2.6, min(0.26 * layers, 5)) + 0.6, title)
    left, right = figure.subplots(1, 2, sharey=True)
    for number, (name, values) in enumerate(bars.items()):
        places = np.arange(layers) + (0.2 if number else -0.2)
        colour = OKABE_ITO[(4, 1)[number]]
        left.barh(places, values, 0.4, color=colour, hatch="//" if number else "", label=name)
    left.axvline(0, color="black", linewidth=1)
    left.set(xlabel="logits", ylabel="decoder layer")
    left.spines[["top", "right"]].set_visible(False)
    left.legend(loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=2, frameon=False, fontsize=9)
    image = _draw_map(right, each, float(np.abs(each).max()) or 1.0, True, 2)
    right.set_title("heads", fontsize=10)
    figure.colorbar(image, ax=right, label="logits", pad=0.02)
    said = " and ".join(
        f"the highest {name} part is {in_words(v.max())} (layer {v.argmax() + 1})"
        for name, v in bars.items()
    )
    most = f"the heads farthest from 0 are {_largest(each, True)}"
    return describe_figure(figure, f"{sentence(title)} In logits, {said}; {most}.")


def plot_effects(
    effects: Mapping[str, torch.Tensor | Sequence],
    names: Sequence[str],
    *,
    title: str = "What each edit does",
    label: str = "increase in loss (nats)",
) -> Figure:
    """Means of `{way: (names, rows)}` with standard errors over rows; ways side by side."""
    if not 1 <= len(effects) <= len(MARKERS):
        raise ValueError(f"give 1 to {len(MARKERS)} ways, not {len(effects)}")
    figure = new_figure(3.0, title)
    axes = figure.add_subplot()
    said = []
    for number, (way, given) in enumerate(effects.items()):
        values = checked_finite(given, way)
        if len(values) != len(names) or values.ndim != 2:
            raise ValueError(f"{way} must be ({len(names)}, rows), not {values.shape}")
        middle = values.mean(axis=1)
        places = np.arange(len(names)) + 0.22 * (number - (len(effects) - 1) / 2)
        look: dict[str, Any] = {
            "color": OKABE_ITO[(4, 5, 2, 1, 3, 0)[number]],
            "marker": MARKERS[number],
        }
        rows = values.shape[1]
        errors = values.std(axis=1, ddof=1) / rows**0.5 if rows > 1 else np.zeros(len(values))
        axes.errorbar(places, middle, errors, capsize=3, linestyle="", **look)
        best = int(np.abs(middle).argmax())
        said.append(f"for {quoted(way)}, {names[best]} ({in_words(float(middle[best]))})")
    axes.axhline(0, color="black", linestyle=":", linewidth=1)
    axes.set_xticks(range(len(names)), names, fontsize=9, rotation=90 if len(names) > 12 else 0)
    axes.set_ylabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    add_legend(figure, axes.containers, [*effects], loc="outside lower center", ncols=len(effects))
    about = f"The mean {label}, where it is farthest from 0"
    return describe_figure(figure, f"{sentence(title)} {about}: {'; '.join(said)}.")

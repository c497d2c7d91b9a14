"""Heatmaps of layers: tensors in, a matplotlib Figure out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import LogLocator

from tutorial_utils.draw.described import (
    counted,
    describe_figure,
    from_to,
    in_words,
    layers_in_words,
    listed,
    quoted,
    sentence,
)
from tutorial_utils.draw.figures import (
    CHARACTER,
    WIDTH,
    as_array,
    longest_label,
    name_columns,
    new_figure,
    token_label,
    write,
)
from tutorial_utils.draw.html import GREY, ink_on


def plot_layer_token_heatmap(
    values: torch.Tensor,
    tokens: Sequence[str],
    *,
    layers: Sequence[int] | None = None,
    title: str = "One value for each layer and token",
    label: str = "value",
    text: Sequence[Sequence[str | float]] | None = None,
    log: bool = False,
) -> Figure:
    """A heatmap of `values` `(layers, seq)`, layer 0 at the bottom, one column for each token.

    `layers` are the numbers of the rows, 0 and up by default. `label` says what the colours mean.
    `text` `(layers, seq)`, strings or numbers, is written into the cells. `log` spreads the colours
    over powers of ten, which helps when a few values are far above the others; then values of 0 and
    below are grey. A cell whose value is not finite is grey and shows it instead of its `text`.
    """
    rows = as_array(values)
    # A cell with text has room for 5 characters. If many columns need more width, the figure grows.
    width = WIDTH if text is None else max(WIDTH, 1.6 + 0.42 * len(tokens))
    height = max(1, min((0.2 if text is None else 0.26) * len(rows), 9))
    figure = new_figure(height + 0.8 + longest_label(tokens), title, width)
    draw_heatmap(figure, rows, tokens, layers=layers, label=label, text=text, log=log)
    said = heatmap_in_words(rows, tokens, layers=layers, label=label)
    if text is not None:
        cells = [cell if isinstance(cell, str) else in_words(float(cell)) for cell in text[-1]]
        said += f"; the top row, token by token: {listed(map(quoted, cells), 12)}"
    return describe_figure(figure, f"{sentence(title)} {said[0].upper()}{said[1:]}.")


def plot_similarity(
    similarity: torch.Tensor,
    layers: Sequence[int] | None = None,
    *,
    title: str = "Cosine similarity of layers at the last token",
) -> Figure:
    """A square heatmap of `(layers, layers)` similarities from -1 to 1, layer 0 at the bottom left.

    `layers` are the numbers of rows and columns, 0 and up by default.
    """
    values = as_array(similarity)
    layers = [*(range(len(values)) if layers is None else layers)]
    square = (len(layers), len(layers))
    if values.shape != square or not layers:
        raise ValueError(f"similarity must be (layers, layers), here {square}, not {values.shape}")
    figure = new_figure(4.2, title, 5.5)
    axes = figure.add_subplot()
    lowest = min(0, values[np.isfinite(values)].min(initial=0))
    image = axes.imshow(values, origin="lower", cmap="cividis", vmin=lowest, vmax=1)
    places = range(0, len(layers), -(-len(layers) // 17))
    axes.set_xticks(places, [str(layers[i]) for i in places], fontsize=9)
    axes.set_yticks(places, [str(layers[i]) for i in places], fontsize=9)
    axes.set(xlabel="layer", ylabel="layer")
    _mark_not_finite(axes, values, int(3.8 / len(layers) / (9 * CHARACTER)))
    figure.colorbar(image, ax=axes, label="cosine similarity", pad=0.02)
    return describe_figure(figure, f"{sentence(title)} {_similarity_in_words(values, layers)}")


def heatmap_in_words(
    values: np.ndarray,
    tokens: Sequence[str],
    *,
    layers: Sequence[int] | None = None,
    label: str = "value",
) -> str:
    """What a heatmap shows, and where its lowest and highest value are: no full stop yet."""
    layers = [*(range(len(values)) if layers is None else layers)]
    about = f"{label} for {counted(len(tokens), 'token')} at {layers_in_words(layers)}"
    finite = np.isfinite(values)
    if not finite.any():
        return f"{about}; no value is finite"
    ends = []
    for pick, rest in ((np.argmin, np.inf), (np.argmax, -np.inf)):
        place = pick(np.where(finite, values, rest))
        row, column = map(int, np.unravel_index(place, values.shape))
        where = f"(layer {layers[row]}, {quoted(tokens[column])})"
        ends.append(f"{in_words(float(values[row, column]))} {where}")
    broken = int((~finite).sum())
    verb = "is" if broken == 1 else "are"
    others = f"; {counted(broken, 'value')} {verb} not finite" if broken else ""
    return f"{about}, from {ends[0]} to {ends[1]}{others}"


def _similarity_in_words(values: np.ndarray, layers: list[int]) -> str:
    row, column = np.unravel_index(
        np.argmin(np.where(np.isfinite(values), values, 2)), values.shape
    )
    beside = np.diagonal(values, 1)
    if not len(beside):
        return f"There is only layer {layers[0]}."
    near = from_to(float(beside.min()), float(beside.max()))
    pair = sorted((layers[row], layers[column]))
    lowest = f"{in_words(float(values[row, column]))}, between layers {pair[0]} and {pair[1]}"
    return f"For neighbouring layers the similarity is {near}; the lowest of all is {lowest}."


def draw_heatmap(
    figure: Figure | SubFigure,
    values: np.ndarray,
    tokens: Sequence[str],
    *,
    layers: Sequence[int] | None = None,
    label: str,
    text: Sequence[Sequence[str | float]] | None = None,
    log: bool = False,
) -> None:
    """The heatmap of `plot_layer_token_heatmap`, which says what each argument is."""
    text = [] if text is None else text
    layers = [*(range(len(values)) if layers is None else layers)]
    shape = (len(layers), len(tokens))
    wrong = {values.shape, *((len(text), len(row)) for row in text)} - {shape}
    if wrong:
        raise ValueError(f"values and text must be (layers, seq), here {shape}, not {wrong}")
    if not values.size:
        raise ValueError("values are empty: give at least one layer and one token")
    axes = figure.add_subplot()
    # The approximate size of all cells together, in inches.
    width = figure.bbox.width / 100 - 1.6
    height = figure.bbox.height / 100 - 0.8 - longest_label(tokens)
    shown = np.where(np.isfinite(values) & ((values > 0) | (not log)), values, np.nan)
    norm = LogNorm() if log and np.isfinite(shown).any() else None
    image = axes.imshow(shown, origin="lower", aspect="auto", cmap="viridis", norm=norm)
    name_columns(axes, [token_label(token) for token in tokens], width)
    step = -(-len(layers) // int(height / 0.15))
    axes.set_yticks(range(0, len(layers), step), map(str, layers[::step]), fontsize=9)
    axes.set_ylabel("layer")
    ticks: dict[str, Any] = {"ticks": LogLocator(subs=(1, 2, 5)), "format": "{x:g}"} if norm else {}
    figure.colorbar(image, ax=axes, label=label, pad=0.01, **ticks).minorticks_off()
    fits = int(width / len(tokens) / (9 * CHARACTER))
    _mark_not_finite(axes, values, fits)
    for layer, row in enumerate(text):
        for column, cell in enumerate(row):
            if not np.isfinite(values[layer, column]):
                continue
            if not isinstance(cell, str):
                cell = f"{float(cell):.0f}" if abs(cell) >= 100 else f"{float(cell):.3g}"
            color = GREY if np.isnan(shown[layer, column]) else image.to_rgba(shown[layer, column])
            write(axes, column, layer, token_label(cell, fits), fontsize=9, color=ink_on(color))


def _mark_not_finite(axes: Axes, values: np.ndarray, fits: int) -> None:
    """Make cells without a finite number grey, and write the value in them if it fits."""
    axes.set_facecolor(GREY)
    for layer, column in np.argwhere(~np.isfinite(values)):
        word = f"{values[layer, column]:g}"
        if len(word) <= fits:
            write(axes, column, layer, word, fontsize=9)

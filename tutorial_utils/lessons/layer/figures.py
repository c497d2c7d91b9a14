"""Figures of the inside of a decoder layer: tensors in, a matplotlib Figure out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tutorial_utils.draw.described import counted, describe_figure, in_words, sentence
from tutorial_utils.draw.figures import (
    CHARACTER,
    MARKERS,
    WIDTH,
    add_legend,
    as_array,
    checked_finite,
    longest_label,
    name_columns,
    new_figure,
    token_label,
    write,
)
from tutorial_utils.draw.html import OKABE_ITO, ink_on

MOST_HEADS = 8  # patterns in one figure
Points = tuple[Sequence[int], torch.Tensor]


def plot_rotary(
    angles: torch.Tensor,
    scores: Mapping[str, Points],
    *,
    title: str = "Rotary positions",
) -> Figure:
    """Left: the angle by which each pair turns per token, `angles` `(pairs,)`, in radians.

    Right: a score by distance, `{label: (distances, (distances,))}`, each drawn over the one
    before.
    """
    turns, best = checked_finite(angles, "angles"), OKABE_ITO[4]
    figure = new_figure(3.1, title)
    left, right = figure.subplots(1, 2)
    left.plot(turns, marker="o", markersize=4, color=best)
    left.set(xlabel="pair of numbers in a head", ylabel="angle per token, radians (log)")
    left.set_yscale("log")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    for i, (distances, values) in enumerate(scores.values()):
        look = {"linewidth": 2} if not i else {"linestyle": "", "markersize": 10 - 3 * i}
        marker, fill = MARKERS[i] if i else "", "none" if i == 1 else OKABE_ITO[i]
        right.plot(distances, checked_finite(values), marker=marker, mfc=fill, **look)
        right.lines[-1].set_color(OKABE_ITO[i])
    right.set(xlabel="tokens from the query back to the key", ylabel="score")
    add_legend(right, right.lines, list(scores), fontsize=9)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    (label, (distances, values)), *others = scores.items()
    at = dict(zip(distances, as_array(values).tolist(), strict=True))
    ends = [f"{in_words(at[place])} at distance {place}" for place in (min(at), max(at))]
    said = [f"goes from {' to '.join(ends)} ({label})"]
    for label, (distances, values) in others:
        off = max(abs(at[d] - v) for d, v in zip(distances, as_array(values).tolist()) if d in at)
        said.append(f"that of {label} differs by {'' if off < 0.001 else 'up to '}{in_words(off)}")
    first, last = (np.format_float_positional(turns[i], 2, fractional=False) for i in (0, -1))
    return describe_figure(
        figure,
        f"{sentence(title)} Left, the angle per token in radians falls from {first.rstrip('.')} "
        f"for the first pair to {last.rstrip('.')} for the last; right, the score "
        f"{', '.join(said)}.",
    )


def plot_patterns(
    pattern: torch.Tensor, tokens: Sequence[str], *, title: str = "Where each head looks"
) -> Figure:
    """A square for each of the first 8 heads of `pattern` `(head, query, key)`, queries down."""
    rows = checked_finite(pattern, "pattern")
    if rows.ndim != 3 or rows.shape[1:] != (len(tokens), len(tokens)):
        raise ValueError(
            f"pattern must be (head, query, key) of {counted(len(tokens), 'token')}, "
            f"not {rows.shape}"
        )
    rows = rows[:MOST_HEADS]
    across = min(2, len(rows))
    down = -(-len(rows) // across)
    names = [token_label(token, 10) for token in tokens]
    step = -(-len(names) // 16)
    figure = new_figure(2.9 * down + longest_label(names), title)
    panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True)
    for head, axes in enumerate(panels.flat):
        if head >= len(rows):
            axes.set_axis_off()
            continue
        image = axes.imshow(rows[head], cmap="viridis", vmin=0, vmax=1)
        axes.set_title(f"head {head}", fontsize=10)
        name_columns(axes, names, WIDTH / across - 1.6)
        axes.set_xlabel("")
        axes.set_yticks(range(0, len(names), step), names[::step], fontsize=9, family="monospace")
        for label in axes.get_yticklabels():
            label.set_parse_math(False)
    figure.supxlabel("key: the token that is looked at (␣ is a space)", fontsize=10)
    figure.supylabel("query: the token that looks", fontsize=10)
    figure.colorbar(image, ax=panels, label="attention weight", pad=0.02)
    last = [
        f"head {h} looks most at {tokens[int(row[-1].argmax())]!r} ({in_words(row[-1].max())})"
        for h, row in enumerate(rows)
    ]
    return describe_figure(figure, f"{sentence(title)} From the last token, {'; '.join(last)}.")


def plot_looks(
    weights: torch.Tensor, places: torch.Tensor, tokens: Sequence[str], *, title: str
) -> Figure:
    """The largest weight of each layer and head, `(layers, heads)`, layer 1 at the bottom.

    `places` `(layers, heads)` are the tokens that it is on. Their names are written into the cells
    where they fit, except for the first token, at which many heads look. A weight that is nan, of a
    layer without a pattern, is left empty.
    """
    values, indices = as_array(weights), torch.as_tensor(places).tolist()
    if values.ndim != 2 or values.shape != tuple(torch.as_tensor(places).shape):
        raise ValueError(f"weights and places must be (layers, heads), not {values.shape}")
    count, heads = values.shape
    figure = new_figure(max(1.6, min(0.24 * count, 9)) + 0.9, title)
    axes = figure.add_subplot()
    image = axes.imshow(values, origin="lower", aspect="auto", cmap="viridis", vmin=0, vmax=1)
    axes.set_xticks(range(0, heads, -(-heads // 16)))
    step = -(-count // 32)
    axes.set_yticks(range(0, count, step), map(str, range(1, count + 1, step)), fontsize=9)
    axes.set(xlabel="head (a cell without a word: the first token)", ylabel="decoder layer")
    if heads >= 2 * MOST_HEADS:
        axes.set_xlabel("head")
    figure.colorbar(image, ax=axes, label="largest attention weight", pad=0.01)
    fits = int((WIDTH - 1.9) / heads / (9 * CHARACTER)) - 1
    for layer, head in np.argwhere(np.isfinite(values)):
        if fits >= 4 and indices[layer][head]:
            name = token_label(tokens[indices[layer][head]], fits)
            color = ink_on(image.to_rgba(values[layer, head]))
            write(axes, head, layer, name, fontsize=9, color=color)
    shown = np.nan_to_num(values, nan=-1)
    first = int(((np.asarray(indices) == 0) & np.isfinite(values)).sum())
    layer, head = np.unravel_index(shown.argmax(), shown.shape)
    return describe_figure(
        figure,
        f"{sentence(title)} In {counted(count, 'layer')} with {counted(heads, 'head')} each, "
        f"{first} of {np.isfinite(values).sum()} heads look most at the first token, "
        f"{tokens[0]!r}; the largest weight is {in_words(shown.max())} (layer {layer + 1}, "
        f"head {head}, on {tokens[indices[layer][head]]!r}).",
    )


def plot_gate(
    given: torch.Tensor, function: Callable[[torch.Tensor], torch.Tensor], *, title: str
) -> Figure:
    """What an MLP's function makes of a number, over a histogram of the numbers it was given."""
    values = checked_finite(given, "given").flatten()
    figure = new_figure(2.8, title)
    below = figure.add_subplot()
    below.hist(values, bins=60, color=OKABE_ITO[0], alpha=0.6)
    below.set(xlabel="number given to the function", ylabel="how many numbers")
    axes = below.twinx()
    x = np.linspace(min(values.min(), -4), max(values.max(), 4), 200, dtype=np.float32)
    axes.plot(x, as_array(function(torch.from_numpy(x))), color=OKABE_ITO[4], linewidth=2)
    axes.set_ylabel("output of the function (line)")
    for each in (below, axes):
        each.spines[["top"]].set_visible(False)
    low, high = in_words(values.min()), in_words(values.max())
    share = f"{(values < 0).mean():.0%}"
    return describe_figure(
        figure,
        f"{sentence(title)} These numbers range from {low} to {high}, and {share} of them are "
        "below 0.",
    )

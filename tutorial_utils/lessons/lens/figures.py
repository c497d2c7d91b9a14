"""Figures of the logit lens, by layer: tensors in, a matplotlib Figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tutorial_utils.draw.described import counted, describe_figure, in_words, sentence
from tutorial_utils.draw.figures import MARKERS, add_legend, checked_finite, new_figure
from tutorial_utils.draw.html import OKABE_ITO

HATCHES = ["", "//", "..", "xx", "\\\\", "oo"]  # nothing is told apart by colour alone


def plot_answers_by_layer(
    probs: torch.Tensor,
    ranks: torch.Tensor,
    names: Sequence[str],
    *,
    title: str = "The right answer at each layer",
) -> Figure:
    """Probability and rank of an answer for each of up to six prompts, `(layers, prompts)` both.

    Rank 1, the first choice, is at the top. `names` are the prompts' labels.
    """
    if len(names) > len(OKABE_ITO):
        raise ValueError(f"{len(names)} prompts are too many to tell apart: give at most 6")
    shares, places = _checked(probs, len(names)), _checked(ranks, len(names))
    figure = new_figure(3.3, title)
    left, right = figure.subplots(1, 2)
    for i in range(len(names)):
        for axes, values in ((left, shares), (right, places)):
            axes.plot(values[:, i], color=OKABE_ITO[i], marker=MARKERS[i], markersize=5)
    left.set(ylabel="probability of the answer", ylim=(-0.03, 1.03))
    right.set(ylabel="rank of the answer (log scale)", yscale="log")
    right.set_ylim(max(10.0, float(places.max())) * 1.2, 0.85)
    right.yaxis.set_major_formatter("{x:g}")
    _name_layers(left, right)
    add_legend(figure, left.lines, names, loc="outside lower center", ncols=len(names))
    ones = [np.flatnonzero(row == 1) for row in places.T]
    firsts = [f"rank 1 first at layer {w[0]}" if len(w) else "never rank 1" for w in ones]
    said = "; ".join(
        f"{name} has probability {in_words(prob)} and rank {rank:g} ({first})"
        for name, prob, rank, first in zip(names, shares[-1], places[-1], firsts)
    )
    return describe_figure(
        figure, f"{sentence(title)} At layer {len(shares) - 1}, the last: {said}."
    )


def plot_answer_layers(
    layers: Mapping[str, torch.Tensor],
    last: int,
    *,
    title: str = "When the right answer appears",
) -> Figure:
    """A stacked histogram of layer numbers 0 to `last`, -1 for never, by `{kind: (prompts,)}`."""
    if not 1 <= len(layers) <= len(OKABE_ITO):
        raise ValueError(f"`layers` must have 1 to {len(OKABE_ITO)} kinds, not {len(layers)}")
    columns = [*range(last + 1), -1]
    places = [*range(last + 1), last + 1 + max(1, last // 12)]  # room for the word "never"
    figure = new_figure(2.8, title)
    axes = figure.add_subplot()
    bottom = torch.zeros(len(columns))
    for (kind, numbers), color, hatch in zip(layers.items(), OKABE_ITO, HATCHES, strict=False):
        numbers = torch.as_tensor(numbers).cpu()
        wrong = [i for i in numbers.tolist() if i not in columns]
        if wrong:
            raise ValueError(f"layer {wrong[0]} of {kind!r} is not one of 0 to {last}, or -1")
        height = torch.stack([(numbers == column).sum() for column in columns])
        counts, below = height.numpy(), bottom.numpy()
        axes.bar(places, counts, bottom=below, color=color, hatch=hatch, edgecolor="white")
        bottom = bottom + height
    step = -(-len(columns) // 20)
    axes.set_xticks([*places[:-1:step], places[-1]], [*range(0, last + 1, step), "never"])
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="first layer at which the answer is the first choice", ylabel="prompts")
    axes.spines[["top", "right"]].set_visible(False)
    add_legend(figure, axes.containers, list(layers), loc="outside right upper")
    said = "; ".join(f"{kind}, {_first_layers(numbers)}" for kind, numbers in layers.items())
    return describe_figure(
        figure, f"{sentence(title)} The first layer, of layers 0 to {last}: {said}."
    )


def _first_layers(numbers: torch.Tensor) -> str:
    """For how many prompts which layers are the first, -1 for never, in words."""
    count, found = len(numbers), sorted(i for i in torch.as_tensor(numbers).tolist() if i >= 0)
    prompts = counted(count, "prompt")
    if not found:
        return f"never ({prompts})"
    one = found[0] == found[-1]
    span = f"layer {found[0]}" if one else f"layers {found[0]} to {found[-1]}"
    share = prompts if len(found) == count else f"{len(found)} of {prompts}"
    return f"{span} for {share}"


def plot_spread_by_layer(
    values: Mapping[str, torch.Tensor], *, title: str = "Median and middle half of the prompts"
) -> Figure:
    """A panel for each `{label: (layers, prompts)}`: the median of the prompts, and quartiles."""
    if not values:
        raise ValueError("there is nothing to draw: give at least one {label: (layers, prompts)}")
    figure = new_figure(2.9, title)
    panels = figure.subplots(1, len(values), squeeze=False)[0]
    for axes, (label, each) in zip(panels, values.items(), strict=True):
        low, middle, high = np.quantile(_checked(each), [0.25, 0.5, 0.75], axis=1)
        axes.fill_between(range(len(low)), low, high, color=OKABE_ITO[0], alpha=0.5)
        axes.plot(middle, marker="o", color=OKABE_ITO[4])
        axes.set(ylabel=label, ylim=(min(0, low.min()), None))
    _name_layers(*panels)
    said = []
    for label, each in values.items():
        middle = np.median(_checked(each), axis=1)
        said.append(f"{label} from {in_words(middle[0])} to {in_words(middle[-1])}")
    span = f"Medians from the first to the last of {counted(len(middle), 'layer')}"
    return describe_figure(figure, f"{sentence(title)} {span}: {'; '.join(said)}.")


def _checked(values: torch.Tensor, prompts: int | None = None) -> np.ndarray:
    checked = checked_finite(values)
    if checked.ndim != 2 or not checked.size or prompts not in (None, checked.shape[1]):
        named = "" if prompts is None else f" with {counted(prompts, 'prompt')}, one for each name"
        raise ValueError(f"values must be (layers, prompts){named}, not {checked.shape}")
    return checked


def _name_layers(*panels: Axes) -> None:
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("layer")
        axes.spines[["top", "right"]].set_visible(False)

"""Figures of contrasted layers: how far each layer is from the last, and what that changes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from transformers import PreTrainedTokenizerBase

from tutorial_utils.decoding import token_strings
from tutorial_utils.draw.described import counted, describe_figure, in_words, quoted, sentence
from tutorial_utils.draw.figures import (
    FONT,
    MARKERS,
    add_legend,
    checked_finite,
    checked_probs,
    new_figure,
    token_label,
)
from tutorial_utils.draw.html import OKABE_ITO

BEFORE, AFTER = OKABE_ITO[0], OKABE_ITO[5]


def plot_contrast(
    divergence: Mapping[int, float],
    picked: int,
    before: torch.Tensor,
    after: torch.Tensor,
    tokenizer: PreTrainedTokenizerBase,
    *,
    candidates: Collection[int] | None = None,
    k: int = 6,
    title: str = "The layer that is picked, and what it changes",
) -> Figure:
    """How far each layer is from the last, and the next token before and after the contrast.

    Left, `divergence` `{layer: bits}` from the last layer, the candidates filled, one `picked`; a
    word stands in the place of a bar that is not finite. Right, the `k` highest probabilities of
    `(vocab,)`.
    """
    candidates = divergence if candidates is None else candidates
    if picked not in candidates or not set(candidates) <= set(divergence):
        raise ValueError(
            f"layer {picked} must be one of the candidates {list(candidates)}, and these among "
            f"the layers with a divergence, {list(divergence)}"
        )
    before, after = checked_probs(before), checked_probs(after)
    if before.ndim != 1 or before.shape != after.shape:
        shapes = tuple(before.shape), tuple(after.shape)
        raise ValueError(f"before and after must be probabilities (vocab,), not of shapes {shapes}")
    figure = new_figure(max(0.2 * len(divergence) + 0.7, 0.36 * k + 0.9), title)
    # Fixed edges: nothing jumps while a widget redraws, which takes half as long then.
    figure.set_layout_engine()
    width, height = figure.get_size_inches()
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.1], gridspec_kw={"wspace": 0.56})
    figure.subplots_adjust(
        top=1 - 0.4 / height, bottom=0.5 / height, left=0.55 / width, right=1 - 0.1 / width
    )
    _draw_divergence(left, divergence, picked, candidates)
    _draw_before_and_after(right, before, after, tokenizer, k)
    bits = f"Layer {picked} is picked, {in_words(divergence[picked])} bits from the last layer"
    said = []
    for i in dict.fromkeys([int(before.argmax()), int(after.argmax())]):
        name = quoted(token_strings(tokenizer, [i])[0])
        said.append(f"{name} goes from {in_words(float(before[i]))} to {in_words(float(after[i]))}")
    changes = f"with the contrast, the probability of {' and that of '.join(said)}"
    return describe_figure(figure, f"{sentence(title)} {bits}; {changes}.")


def _draw_divergence(
    axes: Axes, divergence: Mapping[int, float], picked: int, candidates: Collection[int]
) -> None:
    finite = {layer: value for layer, value in divergence.items() if math.isfinite(value)}
    for layer, value in finite.items():
        color, hatch = (BEFORE, None) if layer in candidates else ("white", "////")
        axes.barh(layer, value, edgecolor="grey", color=color, hatch=hatch)
    for layer, value in divergence.items():
        words = ("" if layer in finite else f" {value}") + (" picked" if layer == picked else "")
        if words:
            axes.text(finite.get(layer, 0), layer, words, va="center", fontsize=9)
    layers = list(divergence)
    axes.set_yticks(layers[:: -(-len(layers) // 17)])
    axes.set(xlabel="divergence in bits", ylabel="layer (hatched: not a candidate)")
    axes.set_xlim(0, 1.3 * max(*finite.values(), 1e-6, 0))
    axes.spines[["top", "right"]].set_visible(False)


def _draw_before_and_after(
    axes: Axes,
    before: torch.Tensor,
    after: torch.Tensor,
    tokenizer: PreTrainedTokenizerBase,
    k: int,
) -> None:
    best = torch.maximum(before, after).topk(min(k, len(before))).indices
    best = best[before[best].argsort(descending=True)]
    places = np.arange(len(best))
    for probs, shift, color, hatch in ((before, -0.2, BEFORE, None), (after, 0.2, AFTER, "...")):
        widths = probs[best].numpy()
        bars = axes.barh(places + shift, widths, 0.4, color=color, hatch=hatch, edgecolor="white")
        texts = [f"{p:.2f}" if p >= 0.005 else f"{p:.0e}" if p > 0 else "0" for p in probs[best]]
        axes.bar_label(bars, texts, padding=2, fontsize=8)
    names = [token_label(token, 14) for token in token_strings(tokenizer, best)]
    axes.set_yticks(places, names, **FONT)
    axes.set_ylim(len(best) - 0.4, -0.6)
    axes.set(xlabel="probability (␣ is a space)", xlim=(0, 1.18))
    axes.legend(["last layer", "contrasted"], loc="lower right", fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def plot_before_after(
    groups: Mapping[str, tuple[torch.Tensor, Mapping[str, torch.Tensor]]],
    *,
    title: str = "Probability of the answer, before and after",
    label: str = "probability of the answer",
) -> Figure:
    """A panel for each group `{name: (before, {label: after})}`, all of them `(prompts,)`.

    A point above the diagonal is a prompt for which the value has grown.
    """
    sizes = {len(one) for before, rows in groups.values() for one in (before, *rows.values())}
    if not groups or 0 in sizes:
        raise ValueError("there is nothing to draw: give at least one group with prompts")
    if max(len(rows) for _, rows in groups.values()) > len(MARKERS):
        raise ValueError(f"a group can have {len(MARKERS)} labels: more cannot be told apart")
    figure = new_figure(3.6, title)
    panels = np.atleast_1d(figure.subplots(1, len(groups), sharex=True, sharey=True))
    for axes, (name, (before, rows)) in zip(panels, groups.items(), strict=True):
        axes.axline((0, 0), slope=1, color="grey", lw=1)
        across = checked_finite(before, f"{name}, before,")
        for (what, after), color, marker in zip(rows.items(), OKABE_ITO, MARKERS, strict=False):
            up = checked_finite(after, f"{name}, {what},")
            dots = {"color": color, "marker": marker, "alpha": 0.6, "edgecolors": "black"}
            axes.scatter(across, up, lw=0.4, **dots)
        axes.set(title=f"{name}, {counted(len(before), 'prompt')}", xlabel=f"{label}, before")
        axes.title.set_fontsize(10)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set(ylabel="after", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    if rows:
        add_legend(
            panels[-1], panels[-1].collections, [*rows], frameon=True, loc="best", fontsize=8
        )
    said = [
        f"{name}, {what}, {_growth(before, after)}"
        for name, (before, rows) in groups.items()
        for what, after in rows.items()
    ]
    about = f"Prompts for which the {label} grows, and its mean"
    return describe_figure(figure, f"{sentence(title)} {about}: {'; '.join(said)}.")


def _growth(before: torch.Tensor, after: torch.Tensor) -> str:
    old, new = (in_words(float(values.mean())) for values in (before, after))
    mean = f"{old} before and after" if old == new else f"{old} before, {new} after"
    return f"{int((after > before).sum())} of {counted(len(before), 'prompt')}, mean {mean}"

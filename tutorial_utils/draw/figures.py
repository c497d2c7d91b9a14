"""Figures: tensors in, a matplotlib Figure out. Nothing is left open in pyplot."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from matplotlib import colormaps, font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from transformers import PreTrainedTokenizerBase

from tutorial_utils.decoding import token_strings, top_tokens
from tutorial_utils.draw.described import (
    NotebookFigure,
    counted,
    describe_figure,
    listed,
    probability_in_words,
    quoted,
    sentence,
)
from tutorial_utils.draw.html import OKABE_ITO, PALE, visible

WIDTH = 7.8  # inches, about a notebook's width
MONO = "DejaVu Sans Mono"  # comes with matplotlib
FONT: dict[str, Any] = {"family": MONO, "parse_math": False}
CHARACTER = 0.602 / 72  # its width in inches for each point of size, the same for all characters
NUMBERS = {2: "two", 3: "three"}
MARKERS = "osD^vP"  # used with OKABE_ITO, so that no line is known by its colour alone


class Box(NamedTuple):
    """A token's box, its place and size in characters of 11 points."""

    text: str
    name: str  # written below the box; may be empty
    left: float
    width: float
    color: str


def plot_tokens(
    tokens: Sequence[str],
    ids: Sequence[int] | torch.Tensor | None = None,
    *,
    title: str = "The tokens that the model reads",
) -> Figure:
    """A coloured box for each of the `(seq,)` tokens, with its id below if `ids` are given."""
    rows = box_rows(tokens, ids)
    figure = new_figure((0.36 if ids is None else 0.56) * len(rows), title)
    draw_boxes(figure, rows)
    return describe_figure(figure, f"{sentence(title)} {tokens_in_words(tokens, ids)}.")


def plot_next_token(
    probs: torch.Tensor,
    tokenizer: PreTrainedTokenizerBase,
    *,
    k: int = 10,
    title: str = "The most probable next tokens",
) -> Figure:
    """Bars of the `k` most probable tokens of `(vocab,)` probabilities, the best at the top."""
    best = top_tokens(checked_probs(probs), tokenizer, k)
    figure = new_figure(0.28 * max(k, 4) + 0.6, title)
    draw_bars(figure, best)
    return describe_figure(figure, f"{sentence(title)} The {tokens_with_probs(best)}.")


def plot_distributions(
    distributions: Mapping[str, torch.Tensor],
    tokenizer: PreTrainedTokenizerBase,
    *,
    k: int = 8,
    title: str = "Probability of the next token",
) -> Figure:
    """Grouped bars: several distributions `(vocab,)`, each with its label, over the same tokens.

    The tokens are the `k` most probable ones of the first distribution, in its order.
    """
    rows = [checked_probs(probs) for probs in distributions.values()]
    if not rows or any(row.shape != rows[0].shape for row in rows):
        raise ValueError(
            "distributions must be at least one {label: probabilities (vocab,)}, all of one "
            f"vocabulary, but their shapes are {[tuple(row.shape) for row in rows]}"
        )
    tokens = [token_label(token) for token, _ in top_tokens(rows[0], tokenizer, k)]
    best = rows[0].topk(k).indices
    figure = new_figure(3.4, title)
    axes = figure.add_subplot()
    width = 0.84 / len(rows)
    colors = colormaps["viridis"](np.linspace(0, 0.9, len(rows)))
    for number, (row, color) in enumerate(zip(rows, colors, strict=True)):
        left = np.arange(k) + number * width - 0.42
        axes.bar(left, row[best].numpy(), width, align="edge", color=color)
    name_columns(axes, tokens, WIDTH - 1)
    axes.set_ylabel("probability")
    axes.spines[["top", "right"]].set_visible(False)
    names = list(map(str, distributions))
    lines = -(-len(names) // max(1, 88 // (max(len(drawable(name)) for name in names) + 6)))
    columns = -(-len(names) // lines)
    above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1), "ncols": columns}
    add_legend(axes, axes.containers, names, **above)
    first = token_strings(tokenizer, best)
    said = []
    for name, row in zip(names, rows, strict=True):
        i = int(row[best].argmax())
        said.append(f"{quoted(first[i])} {probability_in_words(float(row[best[i]]))} ({name})")
    bars = f"Bars for {counted(k, 'token')}, beginning with {quoted(first[0])}"
    highest = "the highest bar" + (" of each distribution" if len(rows) > 1 else "")
    return describe_figure(figure, f"{sentence(title)} {bars}; {highest}: {', '.join(said)}.")


def tokens_in_words(tokens: Sequence[str], ids: Sequence[int] | torch.Tensor | None = None) -> str:
    """The first tokens of a description, with their ids if given."""
    names = [quoted(token) for token in tokens]
    if ids is not None:
        numbers = torch.as_tensor(ids).tolist()
        names = [f"{name} {number}" for name, number in zip(names, numbers, strict=True)]
    with_ids = "" if ids is None else f" with {'its id' if len(names) == 1 else 'their ids'}"
    return f"{counted(len(names), 'token')}{with_ids}: {listed(names, 12)}"


def tokens_with_probs(best: Sequence[tuple[str, float]], most: int = 3) -> str:
    """The most probable tokens of a description, with their probabilities; "the" is left out."""
    said = [f"{quoted(token)} {probability_in_words(prob)}" for token, prob in best[:most]]
    if len(said) == 1:
        return f"most probable token: {said[0]}"
    return f"{NUMBERS.get(len(said), len(said))} most probable tokens: {', '.join(said)}"


def new_figure(height: float, title: str, width: float = WIDTH) -> Figure:
    """An empty figure with `height` inches below its title, which wraps."""
    room = int(9.2 * min(width, WIDTH))  # characters
    lines = [part for line in title.splitlines() for part in textwrap.wrap(drawable(line), room)]
    size = (width, height + 0.2 + 0.2 * len(lines))
    figure = NotebookFigure(figsize=size, dpi=100, layout="constrained")
    figure.suptitle("\n".join(lines), fontsize=12, parse_math=False)
    return figure


@lru_cache(maxsize=1)
def _glyphs() -> frozenset[int]:
    """The characters that the font can draw."""
    return frozenset(font_manager.get_font(font_manager.findfont(MONO)).get_charmap())


def drawable(text: str) -> str:
    r"""Escapes such as `\n` for control characters, marks, and what the font cannot draw."""
    return "".join(
        char
        if char == " " or (ord(char) in _glyphs() and unicodedata.category(char)[0] not in "CMZ")
        else char.encode("unicode_escape").decode()
        for char in text
    )


def token_label(token: str, limit: int = 18) -> str:
    """A token as a label: each space as ␣, cut after `limit` characters."""
    return visible(drawable(token), limit)


def longest_label(tokens: Sequence[str]) -> float:
    """Inches that the longest label takes."""
    return 9 * CHARACTER * max((len(token_label(token)) for token in tokens), default=0)


def add_legend(owner: Axes | Figure, parts: Iterable, names: Sequence[str], **options: Any) -> None:
    """A legend that shows names unchanged, even `_x` and `$x$`, which matplotlib interprets."""
    legend = owner.legend(parts, [""] * len(names), **{"frameon": False, **options})
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set(text=drawable(name), parse_math=False)


def as_array(values: torch.Tensor | npt.ArrayLike) -> np.ndarray:
    """Float32 numbers of at least one dimension, from anything that a tensor can be made of."""
    return np.atleast_1d(torch.as_tensor(values).detach().float().cpu().numpy())


def checked_finite(values: torch.Tensor | npt.ArrayLike, what: str = "values") -> np.ndarray:
    """Float32 numbers; `ValueError` for nan and infinity, where a line would just have a gap."""
    array = as_array(values)
    if not np.isfinite(array).all():
        raise ValueError(
            f"{what} must be finite, but there is {array[~np.isfinite(array)].flat[0]}: in float16 "
            "a model's numbers can become too large; load it with load_model(name, "
            'dtype="float32")'
        )
    return array


def checked_probs(probs: torch.Tensor) -> torch.Tensor:
    """Float32 probabilities on the CPU; `ValueError` where one is not from 0 to 1."""
    checked = torch.from_numpy(checked_finite(probs, "probs"))
    if not ((checked >= 0) & (checked <= 1.001)).all():
        raise ValueError("probs must be between 0 and 1; if these are logits, use softmax first")
    return checked


def box_rows(tokens: Sequence[str], ids: Sequence[int] | torch.Tensor | None) -> list[list[Box]]:
    """A box for each token, in as many lines as they take."""
    if isinstance(tokens, str) or not len(tokens):
        raise ValueError("tokens must be a list of at least one string, see token_strings")
    names = [""] * len(tokens) if ids is None else [str(i) for i in torch.as_tensor(ids).tolist()]
    if len(names) != len(tokens):
        count = f"{counted(len(tokens), 'token')} and {counted(len(names), 'id')}"
        raise ValueError(f"each token needs one id, but there are {count}")
    rows: list[list[Box]] = [[]]
    left = 0.0
    for number, (token, name) in enumerate(zip(tokens, names, strict=True)):
        text, color = token_label(token, 40), PALE[number % len(PALE)]
        width = max(len(text), len(name)) + 1
        if left + width > (WIDTH - 0.15) / (11 * CHARACTER):
            rows, left = [*rows, []], 0.0
        rows[-1].append(Box(text, name, left, width, color))
        left += width + 0.4
    return rows


def draw_boxes(figure: Figure | SubFigure, rows: list[list[Box]]) -> None:
    """Draw the lines of boxes, the first at the top. Boxes without names below them are taller."""
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set(xlim=(0, (WIDTH - 0.1) / (11 * CHARACTER)), ylim=(len(rows) - 0.5, -0.5))
    for line, row in enumerate(rows):
        height = 0.5 if row[0].name else 0.8
        for text, name, left, width, color in row:
            axes.barh(line - 0.4, width, height, left, align="edge", color=color)
            middle = left + width / 2
            write(axes, middle, line - 0.4 + height / 2, text, fontsize=11, color="black")
            write(axes, middle, line + 0.25, name, fontsize=9.5)


def draw_bars(figure: Figure | SubFigure, best: list[tuple[str, float]]) -> None:
    """A bar for each token with its probability, the first at the top."""
    axes = figure.add_subplot()
    bars = axes.barh(range(len(best)), [prob for _, prob in best], color=OKABE_ITO[4])
    values = [f"{prob:.3f}" if prob >= 0.01 else f"{prob:.2g}" for _, prob in best]
    axes.bar_label(bars, values, padding=3, fontsize=9)
    axes.set_yticks(range(len(best)), [token_label(token, 24) for token, _ in best], **FONT)
    axes.set(xlabel="probability", ylabel="token\n(␣ is a space)", xlim=(0, 1.12 * best[0][1] or 1))
    axes.set_ylim(max(len(best), 4) - 0.4, -0.6)  # with few bars, they keep their usual width
    axes.spines[["top", "right"]].set_visible(False)


def name_columns(axes: Axes, labels: list[str], width: float) -> None:
    """Token names below the columns of axes about `width` inches wide; upright where too long."""
    step = -(-len(labels) // int(width / 0.15))
    flat = max(map(len, labels)) + 1 < width / len(labels) / (9 * CHARACTER)
    places = range(0, len(labels), step)
    axes.set_xticks(places, labels[::step], rotation=0 if flat else 90, fontsize=9, **FONT)
    axes.set_xlabel("token (␣ is a space)" + (f"; 1 token in {step} is named" if step > 1 else ""))


def write(axes: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Text in the font of tokens, its middle at `(x, y)`."""
    axes.text(x, y, text, ha="center", va="center", **FONT, **style)

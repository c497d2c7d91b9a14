"""Figures of the lessons: tensors in, a matplotlib Figure out. Nothing is left open in pyplot."""

from __future__ import annotations

import base64
import io
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from matplotlib import colormaps, font_manager
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, to_rgb
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import LogLocator
from transformers import PreTrainedTokenizerBase

from tutorial_utils.decoding import top_tokens
from tutorial_utils.draw.html import OKABE_ITO

WIDTH = 7.8  # inches, about a notebook's width
FONT = {"family": "DejaVu Sans Mono", "parse_math": False}  # the font comes with matplotlib
CHARACTER = 0.602 / 72  # its width in inches for each point of size, the same for all characters
TOKEN_AXIS = "token (␣ is a space)"


class NotebookFigure(Figure):
    """A Figure that a notebook shows once, with or without pyplot; its title is the alt text.

    The alt text goes into the output's metadata, where a static page can take it from.
    """

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> tuple:
        png = io.BytesIO()
        # As IPython draws any figure once pyplot is imported, so that both look the same.
        self.savefig(png, format="png", bbox_inches="tight")
        alt = {"alt": " ".join(self.get_suptitle().split())}
        return {"image/png": base64.b64encode(png.getvalue()).decode()}, {"image/png": alt}


def plot_tokens(
    tokens: Sequence[str],
    ids: Sequence[int] | torch.Tensor | None = None,
    *,
    title: str = "The tokens that the model reads",
) -> Figure:
    """A coloured box for each of the `(seq,)` tokens, its id beneath if `ids` are given."""
    rows = box_rows(tokens, ids)
    figure = new_figure((0.36 if ids is None else 0.56) * len(rows), title)
    draw_boxes(figure, rows)
    return figure


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
    return figure


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
            "distributions must be at least one {label: probabilities (vocab,)} of one vocabulary, "
            f"not of shapes {[tuple(row.shape) for row in rows]}"
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
    _name_columns(axes, tokens, WIDTH - 1)
    axes.set_ylabel("probability")
    axes.spines[["top", "right"]].set_visible(False)
    names = [drawable(str(label)) for label in distributions]
    lines = -(-len(names) // max(1, 88 // (max(map(len, names)) + 6)))
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1), "frameon": False}
    legend = axes.legend(axes.containers, [""] * len(names), ncols=-(-len(names) // lines), **place)
    for text, name in zip(legend.get_texts(), names, strict=True):  # a name may start with "_"
        text.set(text=name, parse_math=False)
    return figure


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
    over powers of ten, for when a few values are far above the rest; 0 and below is grey then.
    """
    values = as_array(values)
    # A cell with text has room for 5 characters: the figure grows where that takes more width.
    width = WIDTH if text is None else max(WIDTH, 1.6 + 0.42 * len(tokens))
    height = max(1, min((0.2 if text is None else 0.26) * len(values), 9))
    figure = new_figure(height + 0.8 + longest_label(tokens), title, width)
    draw_heatmap(figure, values, tokens, layers, label, text, log)
    return figure


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
    layers = list(range(len(values)) if layers is None else layers)
    if values.shape != (len(layers), len(layers)) or not layers:
        raise ValueError(
            f"similarity must be (layers, layers), here {(len(layers),) * 2}, not {values.shape}"
        )
    figure = new_figure(4.2, title, 5.5)
    axes = figure.add_subplot()
    image = axes.imshow(values, origin="lower", cmap="cividis", vmin=min(0, values.min()), vmax=1)
    places = range(0, len(layers), -(-len(layers) // 17))
    axes.set_xticks(places, [layers[i] for i in places], fontsize=9)
    axes.set_yticks(places, [layers[i] for i in places], fontsize=9)
    axes.set(xlabel="layer", ylabel="layer")
    figure.colorbar(image, ax=axes, label="cosine similarity", pad=0.02)
    return figure


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
    return frozenset(font_manager.get_font(font_manager.findfont(FONT["family"])).get_charmap())


def drawable(text: str) -> str:
    """Escapes such as `\\n` for control characters, marks, and what the font cannot draw."""
    return "".join(
        char
        if char == " " or (ord(char) in _glyphs() and unicodedata.category(char)[0] not in "CMZ")
        else char.encode("unicode_escape").decode()
        for char in text
    )


def token_label(token: str, limit: int = 18) -> str:
    """A token as a label: each space as ␣, cut after `limit` characters."""
    text = drawable(token).replace(" ", "␣")
    return text if len(text) <= limit else text[: limit - 1] + "…"


def longest_label(tokens: Sequence[str]) -> float:
    """Inches that the longest label takes."""
    return 9 * CHARACTER * max((len(token_label(token)) for token in tokens), default=0)


def as_array(values: torch.Tensor) -> np.ndarray:
    return np.atleast_1d(torch.as_tensor(values).detach().float().cpu().numpy())


def checked_probs(probs: torch.Tensor) -> torch.Tensor:
    probs = torch.from_numpy(as_array(probs))
    if not ((probs >= 0) & (probs <= 1.001)).all():
        raise ValueError("probs must lie between 0 and 1: are these logits? softmax them first")
    return probs


def box_rows(tokens: Sequence[str], ids: Sequence[int] | torch.Tensor | None) -> list[list[tuple]]:
    """Lines of boxes (token, id, left edge, width, colour), the unit being a character of 11 pt."""
    if isinstance(tokens, str) or not len(tokens):
        raise ValueError("tokens must be a list of at least one string, as token_strings gives it")
    names = [""] * len(tokens) if ids is None else [str(i) for i in torch.as_tensor(ids).tolist()]
    if len(names) != len(tokens):
        raise ValueError(f"there are {len(tokens)} tokens and {len(names)} ids: one id for each")
    rows, left = [[]], 0.0
    for number, (token, name) in enumerate(zip(tokens, names, strict=True)):
        text, color = token_label(token, 40), to_rgb(OKABE_ITO[number % len(OKABE_ITO)])
        width = max(len(text), len(name)) + 1
        if left + width > (WIDTH - 0.15) / (11 * CHARACTER):
            rows, left = [*rows, []], 0.0
        rows[-1].append((text, name, left, width, [1 - 0.4 * (1 - part) for part in color]))
        left += width + 0.4
    return rows


def draw_boxes(figure: FigureBase, rows: list[list[tuple]]) -> None:
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set(xlim=(0, (WIDTH - 0.1) / (11 * CHARACTER)), ylim=(len(rows) - 0.5, -0.5))
    for line, row in enumerate(rows):
        height = 0.5 if row[0][1] else 0.8
        for text, name, left, width, color in row:
            axes.barh(line - 0.4, width, height, left, align="edge", color=[color])
            at = {"x": left + width / 2, "ha": "center", "va": "center", **FONT}
            axes.text(y=line - 0.4 + height / 2, s=text, fontsize=11, color="black", **at)
            axes.text(y=line + 0.25, s=name, fontsize=9.5, **at)


def draw_bars(figure: FigureBase, best: list[tuple[str, float]]) -> None:
    axes = figure.add_subplot()
    bars = axes.barh(range(len(best)), [prob for _, prob in best], color=OKABE_ITO[4])
    values = [f"{prob:.3f}" if prob >= 0.01 else f"{prob:.2g}" for _, prob in best]
    axes.bar_label(bars, values, padding=3, fontsize=9)
    axes.set_yticks(range(len(best)), [token_label(token, 24) for token, _ in best], **FONT)
    axes.set(xlabel="probability", ylabel="token\n(␣ is a space)", xlim=(0, 1.12 * best[0][1] or 1))
    axes.set_ylim(max(len(best), 4) - 0.4, -0.6)  # few bars are not drawn any thicker
    axes.spines[["top", "right"]].set_visible(False)


def _name_columns(axes: Axes, labels: list[str], width: float) -> None:
    """Token names below the columns of axes about `width` inches wide: upright where too long."""
    step = -(-len(labels) // int(width / 0.15))
    flat = max(map(len, labels)) + 1 < width / len(labels) / (9 * CHARACTER)
    places = range(0, len(labels), step)
    axes.set_xticks(places, labels[::step], rotation=0 if flat else 90, fontsize=9, **FONT)
    axes.set_xlabel(TOKEN_AXIS + (f", one of {step} is named" if step > 1 else ""))


def draw_heatmap(
    figure: FigureBase,
    values: np.ndarray,
    tokens: Sequence[str],
    layers: Sequence[int] | None,
    label: str,
    text: Sequence[Sequence[str | float]] | None,
    log: bool,
) -> None:
    text = [] if text is None else text
    layers = list(range(len(values)) if layers is None else layers)
    shape = (len(layers), len(tokens))
    wrong = {values.shape, *((len(text), len(row)) for row in text)} - {shape}
    if wrong or not values.size:
        raise ValueError(f"values and text must be (layers, seq), here {shape}, not {wrong or ''}")
    axes = figure.add_subplot()
    # About the inches that the cells have together, in each direction.
    width, height = figure.bbox.size / 100 - (1.6, 0.8 + longest_label(tokens))
    norm = LogNorm() if log else None
    image = axes.imshow(values, origin="lower", aspect="auto", cmap="viridis", norm=norm)
    axes.set_facecolor("lightgrey")
    _name_columns(axes, [token_label(token) for token in tokens], width)
    step = -(-len(layers) // int(height / 0.15))
    axes.set_yticks(range(0, len(layers), step), layers[::step], fontsize=9)
    axes.set_ylabel("layer")
    ticks = {"ticks": LogLocator(subs=(1, 2, 5)), "format": "{x:g}"} if log else {}
    figure.colorbar(image, ax=axes, label=label, pad=0.01, **ticks).minorticks_off()
    fits = int(width / len(tokens) / (9 * CHARACTER))
    for layer, row in enumerate(text):
        for column, cell in enumerate(row):
            if not isinstance(cell, str):
                cell = f"{float(cell):.0f}" if abs(cell) >= 100 else f"{float(cell):.3g}"
            bright = np.dot(image.to_rgba(values[layer, column])[:3], [0.3, 0.6, 0.1]) > 0.4
            at = {"ha": "center", "va": "center", "color": "black" if bright else "white", **FONT}
            axes.text(column, layer, token_label(cell, fits), fontsize=9, **at)

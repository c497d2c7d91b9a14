"""Promises of tutorial_utils.plots: what the figures show, and that they leave nothing behind."""

from __future__ import annotations

import base64
import subprocess
import sys
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from IPython.core.pylabtools import select_figure_formats
from matplotlib import colormaps, rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from tiny_models import llama_tokenizer
from tutorial_utils.draw.figures import (
    plot_distributions,
    plot_layer_token_heatmap,
    plot_next_token,
    plot_similarity,
    plot_tokens,
)
from tutorial_utils.draw.html import OKABE_ITO
from tutorial_utils.lessons.start.figures import plot_pipeline

# A character without a glyph, a layout that does not fit, a scale with nothing on it.
pytestmark = pytest.mark.filterwarnings(
    "error::UserWarning", "error::RuntimeWarning", "ignore::DeprecationWarning"
)

TOKENS = ["<|begin_of_text|>", "Trump", " works", " at", " McDonald", "'s", "."]
IDS = [0, 322, 315, 303, 311, 280, 15]
# Mathematics, line ends, spaces, marks, and characters that the font does not have.
ODD = [
    "$x^2$",
    "$",
    "\n",
    "\t",
    "    ",
    "é",
    "<0xE2>",
    "😀",
    "你好",
    "\u200b",
    "\u0301",
    "\\frac",
    "_a",
]
SHOWN = [
    *("$x^2$", "$", "\\n", "\\t", "␣␣␣␣", "é", "<0xE2>", "\\U0001f600", "\\u4f60\\u597d"),
    *("\\u200b", "\\u0301", "\\frac", "_a"),
]
VOCAB = 398


@pytest.fixture(scope="module")
def tokenizer():
    return llama_tokenizer()


@pytest.fixture(autouse=True)
def nothing_left_behind():
    settings, figures = dict(rcParams), plt.get_fignums()
    yield
    assert dict(rcParams) == settings
    assert plt.get_fignums() == figures == []


def random_probs(seed=0):
    logits = torch.randn(VOCAB, generator=torch.Generator().manual_seed(seed)) * 2
    return logits.softmax(dim=-1)


def random_values(layers, seq):
    return torch.rand(layers, seq, generator=torch.Generator().manual_seed(0)) + 0.1


def png(figure):
    """The bytes of the picture, which also draws it, so that a warning would be an error."""
    assert isinstance(figure, Figure)
    data, _ = figure._repr_mimebundle_()
    picture = base64.b64decode(data["image/png"])
    assert len(picture) < 200_000
    assert int.from_bytes(picture[16:20], "big") <= 810  # the width in a PNG's header
    return picture


def words(figure):
    """All texts with their sizes checked: none below 9 points, none read as mathematics."""
    found = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert all(text.get_fontsize() >= 9 for text in found)
    assert not any(text.get_parse_math() for text in found if "$" in text.get_text())
    return [text.get_text() for text in found]


def labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def draw(figure):
    figure.draw_without_rendering()
    return FigureCanvasAgg(figure).get_renderer()


def inside(figure):
    """Nothing that is drawn sticks out of the figure, nor of its part of the figure."""
    renderer = draw(figure)
    boxes = [(figure.get_tightbbox(renderer).extents * figure.dpi, figure.bbox.extents)]
    boxes += [(part.get_tightbbox(renderer).extents, part.bbox.extents) for part in figure.subfigs]
    for box, edge in boxes:
        assert (box[:2] > edge[:2] - 2).all(), (box, edge)
        assert (box[2:] < edge[2:] + 2).all(), (box, edge)
    return True


# Tokens


def test_each_token_has_a_coloured_box_and_its_id():
    figure = plot_tokens(TOKENS, torch.tensor(IDS), title="The prompt")
    boxes = figure.axes[0].patches
    assert len(boxes) == len(TOKENS)
    lighter = [to_hex([1 - 0.4 * (1 - part) for part in to_rgb(c)]) for c in OKABE_ITO]
    assert [to_hex(box.get_facecolor()) for box in boxes[:6]] == lighter
    shown = words(figure)
    assert [shown.count(name) for name in ("␣works", "␣McDonald", "322", "0")] == [1, 1, 1, 1]
    assert figure.get_suptitle() == "The prompt"
    assert png(figure) and inside(figure)


def test_many_tokens_go_on_over_several_lines_and_stay_inside():
    figure = plot_tokens(TOKENS * 9, IDS * 9)
    lines = sorted({box.get_y() for box in figure.axes[0].patches})
    assert len(figure.axes[0].patches) == 63
    assert len(lines) > 4
    right = figure.axes[0].get_xlim()[1]
    assert all(box.get_x() + box.get_width() <= right for box in figure.axes[0].patches)
    assert png(figure) and inside(figure)


def test_odd_tokens_are_shown_as_they_are_or_as_escapes():
    figure = plot_tokens(ODD)
    assert [name for name in words(figure) if name != figure.get_suptitle()] == SHOWN
    assert png(figure) and inside(figure)
    assert png(plot_layer_token_heatmap(random_values(2, len(ODD)), ODD))


def test_a_long_token_is_cut():
    shown = words(plot_tokens(["=" * 80]))
    assert "=" * 39 + "…" in shown


# Bars


def test_next_token_bars_are_the_best_ones_in_order(tokenizer):
    probs = random_probs()
    figure = plot_next_token(probs, tokenizer, k=6)
    axes = figure.axes[0]
    best = probs.sort(descending=True)
    assert [bar.get_width() for bar in axes.patches] == best.values[:6].tolist()
    shown = [tokenizer.decode([token_id]) for token_id in best.indices[:6].tolist()]
    readable = [name for name in shown if "\ufffd" not in name]
    assert readable
    assert {name.replace(" ", "␣") for name in readable} <= set(labels(axes.yaxis))
    assert f"{best.values[0]:.3f}" in words(figure)
    assert axes.yaxis_inverted()
    assert axes.get_xlabel() == "probability"
    assert {to_hex(bar.get_facecolor()) for bar in axes.patches} == {OKABE_ITO[4].lower()}
    assert png(figure) and inside(figure)


@pytest.mark.parametrize("k", [1, 20])
def test_certain_and_flat_distributions_can_be_drawn(tokenizer, k):
    certain = torch.zeros(VOCAB)
    certain[300] = 1
    assert inside(plot_next_token(certain, tokenizer, k=k))
    assert inside(plot_next_token(torch.full((VOCAB,), 1 / VOCAB), tokenizer, k=k))


def test_distributions_are_grouped_over_the_first_ones_tokens(tokenizer):
    rows = {"$T$ 0.5": random_probs(0), 1.0: random_probs(1), "_2": random_probs(2)}
    figure = plot_distributions(rows, tokenizer, k=5)
    axes = figure.axes[0]
    best = random_probs(0).topk(5).indices
    assert len(axes.containers) == 3
    for group, probs in zip(axes.containers, rows.values(), strict=True):
        np.testing.assert_array_equal([bar.get_height() for bar in group], probs[best])
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["$T$ 0.5", "1.0", "_2"]
    colors = [to_hex(group[0].get_facecolor()) for group in axes.containers]
    assert colors == [to_hex(color) for color in colormaps["viridis"]([0, 0.45, 0.9])]
    for place, *bars in zip(axes.get_xticks(), *axes.containers, strict=True):
        middle = (bars[0].get_x() + bars[-1].get_x() + bars[-1].get_width()) / 2
        assert middle == pytest.approx(place, abs=1e-6)
    words(figure)
    assert png(figure) and inside(figure)


# Heatmaps


def test_a_heatmap_shows_its_values_with_layer_0_at_the_bottom():
    values = random_values(9, len(TOKENS))
    figure = plot_layer_token_heatmap(values, TOKENS, label="norm")
    axes, colorbar = figure.axes
    (image,) = axes.images
    np.testing.assert_array_equal(image.get_array(), values.numpy())
    assert image.get_cmap().name == "viridis"
    assert not axes.yaxis_inverted()
    assert labels(axes.yaxis) == [str(layer) for layer in range(9)]
    assert labels(axes.xaxis) == [token.replace(" ", "␣") for token in TOKENS]
    assert (axes.get_ylabel(), colorbar.get_ylabel()) == ("layer", "norm")
    assert axes.get_xlabel() == "token (␣ is a space)"
    assert png(figure) and inside(figure)


def test_rows_can_be_chosen_layers():
    figure = plot_layer_token_heatmap(random_values(3, 2), ["a", "b"], layers=range(0, 9, 4))
    assert labels(figure.axes[0].yaxis) == ["0", "4", "8"]


@pytest.mark.parametrize(("layers", "seq"), [(2, 1), (33, 40), (81, 120)])
def test_names_do_not_run_into_each_other(layers, seq):
    figure = plot_layer_token_heatmap(random_values(layers, seq), (TOKENS * 20)[:seq])
    assert png(figure) and inside(figure)
    renderer = draw(figure)
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        boxes = [label.get_window_extent(renderer) for label in axis.get_ticklabels()]
        assert not any(a.overlaps(b) for a, b in zip(boxes, boxes[1:], strict=False))
    named = len(figure.axes[0].get_xticks())
    assert named == seq or "is named" in figure.axes[0].get_xlabel()


def test_text_is_written_into_the_cells_and_can_be_read():
    values = torch.tensor([[0.0, 1.0], [0.5, 0.2]])
    figure = plot_layer_token_heatmap(values, ["a", "b"], text=[["$", " it"], [0.5, 12345.678]])
    texts = {text.get_text(): text for text in figure.axes[0].texts}
    assert list(texts) == ["$", "␣it", "0.5", "12346"]
    assert texts["$"].get_position() == (0, 0)
    assert texts["0.5"].get_position() == (0, 1)
    assert (texts["$"].get_color(), texts["␣it"].get_color()) == ("white", "black")
    assert png(figure) and inside(figure)
    wide = plot_layer_token_heatmap(random_values(2, 40), ["a"] * 40, text=[["abcdefgh"] * 40] * 2)
    assert {text.get_text() for text in wide.axes[0].texts} == {"abcd…"}


def test_a_log_scale_is_for_values_far_apart():
    values = random_values(3, 4)
    values[:, 0] *= 1000
    values[0, 1] = 0
    figure = plot_layer_token_heatmap(values, list("abcd"), log=True)
    assert isinstance(figure.axes[0].images[0].norm, LogNorm)
    assert png(figure) and inside(figure)
    assert not any("\\mathdefault" in word for word in words(figure))


def test_similarity_is_a_square_of_layers():
    values = torch.eye(3) * 0.5 + 0.5
    figure = plot_similarity(values, [0, 4, 8], title="How alike the layers are, in words " * 3)
    axes = figure.axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), values.numpy())
    assert labels(axes.xaxis) == labels(axes.yaxis) == ["0", "4", "8"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("layer", "layer")
    assert axes.images[0].get_clim() == (0, 1)
    assert axes.images[0].get_cmap().name == "cividis"
    words(figure)
    assert png(figure) and inside(figure)
    assert png(plot_similarity(torch.eye(33))) and inside(plot_similarity(torch.eye(33)))
    for wrong in (torch.ones(2, 3), torch.ones(3), torch.zeros(0, 0)):
        with pytest.raises(ValueError, match=r"similarity must be \(layers, layers\)"):
            plot_similarity(wrong)


# The whole pipeline


@pytest.mark.parametrize(("layers", "times"), [(2, 1), (33, 8)])
def test_the_pipeline_shows_all_its_parts(tokenizer, layers, times):
    tokens, ids, probs = TOKENS * times, IDS * times, random_probs()
    norms = random_values(layers, len(tokens))
    figure = plot_pipeline(tokens, torch.tensor(ids), norms, probs, tokenizer, title="All of it")
    parts = [part.axes[0] for part in figure.subfigs]
    assert len(parts[0].patches) == len(parts[2].patches) == len(tokens)
    places = [[(box.get_x(), box.get_y()) for box in part.patches] for part in (parts[0], parts[2])]
    assert places[0] == places[1]  # an id stands below its token
    assert {text.get_text() for text in parts[2].texts} >= {str(token_id) for token_id in ids}
    np.testing.assert_array_equal(parts[4].images[0].get_array(), norms.numpy())
    bars = [bar.get_width() for bar in parts[6].patches if isinstance(bar, Rectangle)]
    assert bars == probs.topk(6).values.tolist()
    assert [len(part.texts) for part in (parts[1], parts[3], parts[5])] == [2, 2, 2]  # arrows
    assert figure.get_suptitle() == "All of it"
    assert png(figure) and inside(figure)
    words(figure)


# In a notebook


def test_a_notebook_shows_one_picture_with_the_title_as_alt_text():
    figure = plot_tokens(["a"], title="A long title " * 12 + "about $5 and 你")
    formatter = DisplayFormatter()
    first, metadata = formatter.format(figure)
    # As IPython does when a reader imports pyplot: still one picture, the same one.
    select_figure_formats(SimpleNamespace(display_formatter=formatter), {"png"})
    second, metadata_then = formatter.format(figure)
    assert set(first) == set(second) == {"image/png", "text/plain"}
    assert base64.b64decode(first["image/png"])[:4] == b"\x89PNG"
    assert second["image/png"].replace("\n", "") == first["image/png"]
    assert metadata_then == metadata
    assert metadata["image/png"]["alt"].startswith("A long title A long title")
    assert metadata["image/png"]["alt"].endswith("about $5 and \\u4f60")
    assert figure.get_suptitle().count("\n") >= 2  # the title is broken into lines
    words(figure)
    assert inside(figure)


def test_pyplot_is_not_imported_and_matplotlib_only_when_a_figure_is_asked_for():
    code = """
import sys, tutorial_utils
assert "matplotlib" not in sys.modules
from tutorial_utils import plot_tokens
plot_tokens(["a"])._repr_mimebundle_()
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# What may be given


def test_tensors_of_any_kind_are_taken_and_left_alone(tokenizer):
    values = random_values(2, 2).to(torch.bfloat16).requires_grad_()
    probs = random_probs().double().requires_grad_()
    copies = values.detach().clone(), probs.detach().clone()
    figures = [
        plot_layer_token_heatmap(values, ("a", "b")),
        plot_layer_token_heatmap([[1, 2], [3, 4]], ["a", "b"]),
        plot_layer_token_heatmap(np.ones((2, 2)), ["a", "b"]),
        plot_next_token(probs, tokenizer),
        plot_distributions({"one": probs}, tokenizer),
        plot_pipeline(["a", "b"], [1, 2], values, probs, tokenizer),
    ]
    np.testing.assert_array_equal(figures[0].axes[0].images[0].get_array(), values.detach().float())
    assert torch.equal(values.detach(), copies[0]) and torch.equal(probs.detach(), copies[1])
    assert values.requires_grad and values.grad is None


@pytest.mark.parametrize("values", [5, [1, 2], [[1, 2, 3]] * 2, [[[1, 2], [3, 4]]], [[]]])
def test_values_of_another_shape_are_refused(tokenizer, values):
    with pytest.raises(ValueError, match=r"must be \(layers, seq\), here \(\d+, 2\), not"):
        plot_layer_token_heatmap(values, ["a", "b"])
    with pytest.raises(ValueError, match=r"must be \(layers, seq\), here"):
        plot_pipeline(["a", "b"], [1, 2], values, random_probs(), tokenizer)


@pytest.mark.parametrize("text", [[["a", "b"]], [["a"], ["b"]], [["a", "b"], ["c"]]])
def test_text_and_layers_of_another_size_are_refused(text):
    values = random_values(2, 2)
    with pytest.raises(ValueError, match=r"values and text must be \(layers, seq\), here \(2, 2\)"):
        plot_layer_token_heatmap(values, ["a", "b"], text=text)
    with pytest.raises(ValueError, match=r"here \(3, 2\), not \{\(2, 2\)\}"):
        plot_layer_token_heatmap(values, ["a", "b"], layers=[0, 1, 2])


def test_tokens_and_ids_belong_together():
    with pytest.raises(ValueError, match="2 tokens and 1 ids"):
        plot_tokens(["a", "b"], [1])
    with pytest.raises(ValueError, match="a list of at least one string"):
        plot_tokens([])
    with pytest.raises(ValueError, match="a list of at least one string"):
        plot_tokens("a prompt")
    with pytest.raises(ValueError, match=r"\(layers, seq\)"):
        plot_layer_token_heatmap(torch.zeros(0, 0), [])


def test_what_are_no_probabilities_are_refused(tokenizer):
    with pytest.raises(ValueError, match="are these logits"):
        plot_next_token(torch.randn(VOCAB), tokenizer)
    with pytest.raises(ValueError, match="are these logits"):
        plot_next_token(random_probs().log(), tokenizer)
    with pytest.raises(ValueError, match="are these logits"):
        plot_next_token(torch.full((VOCAB,), torch.nan), tokenizer)
    with pytest.raises(ValueError, match=r"use probs\[0\]"):
        plot_next_token(random_probs()[None], tokenizer)
    with pytest.raises(ValueError, match="k is 399"):
        plot_next_token(random_probs(), tokenizer, k=399)
    with pytest.raises(ValueError, match="at least one"):
        plot_distributions({}, tokenizer)
    with pytest.raises(ValueError, match=r"of shapes \[\(398,\), \(397,\)\]"):
        plot_distributions({"a": random_probs(), "b": random_probs()[1:]}, tokenizer)

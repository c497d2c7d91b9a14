"""What the figures of patching and steering show, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from figure_checks import STRICT, TOKENS, words
from tutorial_utils.draw.html import OKABE_ITO
from tutorial_utils.lessons.patching import plot_share_lines, plot_shares, plot_steering

pytestmark = STRICT


def drawn(figure):
    FigureCanvasAgg(figure).draw()
    return figure


def test_shares_are_a_heatmap_from_red_to_blue():
    share = torch.linspace(-0.5, 1, 28).view(4, 7)
    figure = drawn(plot_shares(share, TOKENS, [0, 4, 8, 10], title="Sony for Nike"))
    axes, bar = figure.axes
    (image,) = axes.images
    assert np.allclose(image.get_array(), share) and image.get_clim() == (-1, 1)
    assert image.origin == "lower" and image.get_cmap().name == "RdBu"
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["0", "4", "8", "10"]
    assert axes.get_xticklabels()[2].get_text() == "␣works"
    assert {"Sony for Nike", "layer", "token (␣ is a space)"} <= set(words(figure))
    assert bar.get_ylabel() == "share that comes back"
    said = 'from -0.5 (layer 0, "<|begin_of_text|>") to 1 (layer 10, ".").'
    assert figure.description.endswith(said)


def test_a_share_that_is_not_finite_is_left_grey():
    share = torch.full((2, 7), torch.nan)
    (image,) = drawn(plot_shares(share, TOKENS)).axes[0].images
    assert image.get_array().mask.all()


def test_shares_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"must be \(layers, seq\), here \(2, 7\), not \(3, 7\)"):
        plot_shares(torch.zeros(3, 7), TOKENS, [0, 1])
    with pytest.raises(ValueError, match="share is empty"):
        plot_shares(torch.zeros(0, 7), TOKENS)


def test_lines_are_means_with_standard_errors():
    clean = torch.tensor([[0.0, 0.5, 1.0], [0.2, 0.7, 1.0]])  # (pairs, layers)
    lines = {"clean run": clean, "one row": torch.tensor([0.1, 0.2, 0.3])}
    figure = drawn(plot_share_lines(lines, [0, 4, 8], level=0.5))
    axes = figure.axes[0]
    first, second = axes.containers
    assert first[0].get_xdata().tolist() == [0, 4, 8]
    assert first[0].get_ydata() == pytest.approx([0.1, 0.6, 1.0])
    (ends,) = first[2]
    low, high = ends.get_segments()[0][:, 1]
    assert (high - low) / 2 == pytest.approx((0.1**2 + 0.1**2) ** 0.5 / 2**0.5)
    assert second[0].get_ydata() == pytest.approx([0.1, 0.2, 0.3]) and not second[2]
    assert first[0].get_marker() != second[0].get_marker()
    assert {"clean run", "one row", "logit difference 0"} <= set(words(figure))
    said = (
        "Shares from layer 0 to layer 8: clean run goes from 0.1 to 1, and is highest at layer 8 "
        "(1); one row goes from 0.1 to 0.3, and is highest at layer 8 (0.3)."
    )
    assert figure.description.endswith(said)


def test_lines_of_another_length_are_refused():
    with pytest.raises(ValueError, match="a: one share for each of 2 layers, not 3"):
        plot_share_lines({"a": torch.zeros(3)}, [0, 1])
    with pytest.raises(ValueError, match=f"give 1 to {len(OKABE_ITO)} lines, not 0"):
        plot_share_lines({}, [0])


def test_shares_that_are_not_finite_are_told():
    """Both answers can begin with the same token: then nothing is measured."""
    lines = {"a": torch.tensor([torch.nan, 1.0]), "b": torch.tensor([0.0, 1.0])}
    figure = drawn(plot_share_lines(lines, [0, 1], level=float("nan")))
    assert [word for word in words(figure) if "finite" in word] == ["a: not all shares are finite"]
    assert "logit difference 0" not in words(figure)


def test_each_kind_of_direction_is_a_column_of_points():
    moods = {"towards happy": [2.0, 3.0], "random halves": torch.tensor([0.5])}
    losses = {"towards happy": [1.1, 1.3], "random halves": [1.0]}
    figure = drawn(plot_steering(moods, losses))
    left, right = figure.axes
    said = "towards happy 2.5 at 1.2 times the loss; random halves 0.5 at 1 times the loss."
    assert figure.description.endswith(said)
    none, points, mean, one, _ = left.lines
    assert none.get_ydata() == [0, 0] and right.lines[0].get_ydata() == [1, 1]
    assert list(points.get_ydata()) == [2, 3] and list(mean.get_ydata()) == [2.5, 2.5]
    assert list(one.get_ydata()) == [0.5]
    assert right.lines[1].get_ydata() == pytest.approx([1.1, 1.3]) and right.get_ylim()[0] == 0
    assert [tick.get_text() for tick in left.get_xticklabels()] == [
        "towards\nhappy",
        "random\nhalves",
    ]


def test_kinds_must_agree():
    with pytest.raises(ValueError, match="must have the same kinds"):
        plot_steering({"a": [1.0]}, {"b": [1.0]})

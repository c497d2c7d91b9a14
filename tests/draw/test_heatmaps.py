"""What the heatmaps of layers show, and what they refuse."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib.colors import LogNorm, to_rgb

from figure_checks import STRICT, TOKENS, drawn, labels, looks_right, random_values, words
from tutorial_utils.draw.heatmaps import plot_layer_token_heatmap, plot_similarity
from tutorial_utils.draw.html import GREY

pytestmark = STRICT
BROKEN = [[1.0, np.nan], [np.inf, 2.0]]


def texts(figure) -> dict:
    return {text.get_position(): text.get_text() for text in figure.axes[0].texts}


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
    assert looks_right(figure)
    for value in (values.min(), values.max()):
        ((layer, column),) = (values == value).nonzero().tolist()
        assert f'{value:.3g} (layer {layer}, "{TOKENS[column]}")' in figure.description
    assert "token. Norm for 7 tokens at layers 0 to 8, from" in figure.description
    one = plot_layer_token_heatmap(values[:1, :1], ["a"], layers=[4]).description
    assert "Value for 1 token at layer 4, from" in one


def test_rows_can_be_chosen_layers():
    figure = plot_layer_token_heatmap(random_values(3, 2), ["a", "b"], layers=range(0, 9, 4))
    assert labels(figure.axes[0].yaxis) == ["0", "4", "8"]


@pytest.mark.parametrize(("layers", "seq"), [(2, 1), (33, 40), (81, 120)])
def test_names_do_not_run_into_each_other(layers, seq):
    figure = plot_layer_token_heatmap(random_values(layers, seq), (TOKENS * 20)[:seq])
    assert looks_right(figure)
    renderer = drawn(figure)
    for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis):
        boxes = [label.get_window_extent(renderer) for label in axis.get_ticklabels()]
        assert not any(a.overlaps(b) for a, b in pairwise(boxes))
    named = len(figure.axes[0].get_xticks())
    assert named == seq or "is named" in figure.axes[0].get_xlabel()


def test_text_is_written_into_the_cells_and_can_be_read():
    values = torch.tensor([[0.0, 1.0], [0.5, 0.2]])
    figure = plot_layer_token_heatmap(values, ["a", "b"], text=[["$", " it"], [0.5, 12345.678]])
    assert texts(figure) == {(0, 0): "$", (1, 0): "␣it", (0, 1): "0.5", (1, 1): "12346"}
    assert [text.get_color() for text in figure.axes[0].texts][:2] == ["white", "black"]
    assert figure.description.endswith(
        ' to 1 (layer 0, "b"); the top row, token by token: "0.5", "12,346".'
    )
    assert looks_right(figure)
    grey = plot_layer_token_heatmap(values, ["a", "b"], text=[["0", ""], ["", ""]], log=True)
    assert grey.axes[0].texts[0].get_color() == "black"  # 0 has no place on a log scale
    values[0, 0] = torch.nan
    nothing = plot_layer_token_heatmap(values, ["a", "b"], text=[["$", ""], ["", ""]])
    assert texts(nothing)[0, 0] == "nan"  # and no token
    wide = plot_layer_token_heatmap(random_values(2, 40), ["a"] * 40, text=[["abcdefgh"] * 40] * 2)
    assert {text.get_text() for text in wide.axes[0].texts} == {"abcd…"}


def test_a_log_scale_is_for_values_far_apart():
    values = random_values(3, 4)
    values[:, 0] *= 1000
    values[0, 1] = 0
    figure = plot_layer_token_heatmap(values, list("abcd"), log=True)
    image = figure.axes[0].images[0]
    assert isinstance(image.norm, LogNorm)
    assert image.get_array().mask.sum() == 1 and not texts(figure)  # 0 is grey, and a number
    assert looks_right(figure)
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
    assert words(figure) and looks_right(figure)
    said = " For neighbouring layers the similarity is 0.5; "
    assert figure.description.endswith(f"{said}the lowest of all is 0.5, between layers 0 and 4.")
    assert plot_similarity(torch.ones(1, 1), [3]).description.endswith(" There is only layer 3.")
    assert looks_right(plot_similarity(torch.eye(33)))
    for wrong in (torch.ones(2, 3), torch.ones(3), torch.zeros(0, 0)):
        with pytest.raises(ValueError, match=r"similarity must be \(layers, layers\)"):
            plot_similarity(wrong)


@pytest.mark.parametrize("log", [False, True])
def test_a_cell_without_a_finite_number_is_grey_and_says_so(log):
    figure = plot_layer_token_heatmap(BROKEN, ["a", "b"], log=log)
    assert texts(figure) == {(1, 0): "nan", (0, 1): "inf"}
    assert figure.description.endswith(
        'from 1 (layer 0, "a") to 2 (layer 1, "b"); 2 values are not finite.'
    )
    assert figure.axes[0].get_facecolor()[:3] == to_rgb(GREY)
    image = figure.axes[0].images[0]
    assert image.get_array().mask.tolist() == [[False, True], [True, False]]
    assert image.get_clim() == (1, 2)  # the scale is of the others
    for values in (np.full((2, 2), np.nan), np.zeros((2, 2)), BROKEN):
        assert looks_right(plot_layer_token_heatmap(values, ["a", "b"], log=log))
    crowded = plot_layer_token_heatmap(np.full((2, 99), np.nan), ["a"] * 99, log=log)
    assert not texts(crowded) and looks_right(crowded)  # grey alone, where no word fits


def test_a_similarity_that_is_not_finite_is_grey_and_says_so():
    figure = plot_similarity([[1, -0.5], [np.nan, 1]])
    assert texts(figure) == {(0, 1): "nan"}
    assert figure.axes[0].images[0].get_clim() == (-0.5, 1)
    assert looks_right(figure) and looks_right(plot_similarity(np.full((2, 2), np.nan)))


def test_values_of_any_kind_are_taken_and_left_alone():
    values = random_values(2, 2).to(torch.bfloat16).requires_grad_()
    copy = values.detach().clone()
    figure = plot_layer_token_heatmap(values, ("a", "b"))
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), copy.float())
    assert torch.equal(values.detach(), copy) and values.requires_grad and values.grad is None
    for kind in ([[1, 2], [3, 4]], np.ones((2, 2))):
        assert plot_layer_token_heatmap(kind, ["a", "b"])


@pytest.mark.parametrize("values", [5, [1, 2], [[1, 2, 3]] * 2, [[[1, 2], [3, 4]]], [[]]])
def test_values_of_another_shape_are_refused(values):
    with pytest.raises(ValueError, match=r"must be \(layers, seq\), here \(\d+, 2\), not"):
        plot_layer_token_heatmap(values, ["a", "b"])


@pytest.mark.parametrize("text", [[["a", "b"]], [["a"], ["b"]], [["a", "b"], ["c"]]])
def test_text_and_layers_of_another_size_are_refused(text):
    values = random_values(2, 2)
    with pytest.raises(ValueError, match=r"values and text must be \(layers, seq\), here \(2, 2\)"):
        plot_layer_token_heatmap(values, ["a", "b"], text=text)
    with pytest.raises(ValueError, match=r"here \(3, 2\), not \{\(2, 2\)\}"):
        plot_layer_token_heatmap(values, ["a", "b"], layers=[0, 1, 2])
    with pytest.raises(ValueError, match="values are empty: give at least one layer"):
        plot_layer_token_heatmap(torch.zeros(0, 0), [])

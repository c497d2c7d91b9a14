"""What the figures of the logit lens show, and what they refuse."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from figure_checks import STRICT
from tutorial_utils.lessons.lens.figures import (
    plot_answer_layers,
    plot_answers_by_layer,
    plot_spread_by_layer,
)

pytestmark = STRICT


NAN = torch.tensor([[1.0, 1.0], [1.0, torch.nan], [1.0, 1.0]])


def drawn(figure):
    FigureCanvasAgg(figure).draw()
    return figure


def test_answers_have_a_line_each_for_probability_and_rank():
    probs = torch.tensor([[0.1, 0.2], [0.3, 0.9], [0.8, 1.0]])  # (layers, prompts)
    ranks = torch.tensor([[900, 20], [3, 1], [1, 1]])
    figure = drawn(plot_answers_by_layer(probs, ranks, ["_first $x$", "second"]))
    left, right = figure.axes
    for i in range(2):
        assert left.lines[i].get_ydata() == pytest.approx(probs[:, i].numpy())
        assert right.lines[i].get_ydata().tolist() == ranks[:, i].tolist()
    markers = [line.get_marker() for line in left.lines]
    assert len(set(markers)) == 2 and markers == [line.get_marker() for line in right.lines]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["_first $x$", "second"]
    bottom, top = right.get_ylim()
    assert bottom > 900 and top < 1  # rank 1 at the top
    assert left.get_ylim()[1] > 1
    assert figure.description == (
        "The right answer at each layer. At layer 2, the last: _first $x$ has probability 0.8 and "
        "rank 1 (rank 1 first at layer 2); second has probability 1 and rank 1 "
        "(rank 1 first at layer 1)."
    )
    never = plot_answers_by_layer(probs, ranks + 1, ["a", "b"]).description
    assert never.endswith("b has probability 1 and rank 2 (never rank 1).")


def test_layers_are_counted_by_kind_with_never_at_the_end():
    layers = {"a": torch.tensor([2, 2, -1]), "b": torch.tensor([0, 2])}
    figure = drawn(plot_answer_layers(layers, last=3))
    (axes,) = figure.axes
    first, second = axes.containers
    assert [bar.get_height() for bar in first] == [0, 0, 2, 0, 1]
    assert [bar.get_height() for bar in second] == [1, 0, 1, 0, 0]
    assert second[2].get_y() == 2
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "2", "3", "never"]
    assert first[0].get_hatch() != second[0].get_hatch()
    said = "layers 0 to 3: a, layer 2 for 2 of 3 prompts; b, layers 0 to 2 for 2 prompts."
    assert figure.description.endswith(said)
    none = plot_answer_layers({"c": torch.tensor([-1]), "d": torch.tensor([3])}, last=3)
    said = "The first layer, of layers 0 to 3: c, never (1 prompt); d, layer 3 for 1 prompt."
    assert none.description.endswith(said)


@pytest.mark.parametrize("last", [1, 8, 32, 80])
def test_the_layers_of_a_large_model_can_be_told_apart(last):
    figure = drawn(plot_answer_layers({"all": torch.tensor([last, -1])}, last=last))
    names = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert names[-1] == "never" and len(names) <= 22
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert all(a.x1 < b.x0 for a, b in pairwise(boxes))


def test_the_spread_is_the_median_and_the_quartiles():
    values = torch.tensor([[1.0, 2.0, 3.0, 4.0, 100.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    figure = drawn(plot_spread_by_layer({"bits": values, "others": values.bfloat16()}))
    assert [axes.get_ylabel() for axes in figure.axes] == ["bits", "others"]
    for axes in figure.axes:
        assert axes.lines[0].get_ydata().tolist() == [3, 0]
        corners = axes.collections[0].get_paths()[0].vertices
        assert set(np.round(corners[corners[:, 0] == 0][:, 1], 3)) == {2, 4}
    assert figure.description.endswith("last of 2 layers: bits from 3 to 0; others from 3 to 0.")


def test_labels_lie_beside_each_other():
    probs, ranks = torch.rand(33, 5), torch.randint(1, 128000, (33, 5))
    names = ["capital", "opposite", "young", "day", "recall"]
    figure = drawn(plot_answers_by_layer(probs, ranks, names, title="A title"))
    legend = figure.legends[0].get_window_extent()
    for axes in figure.axes:
        assert legend.y1 <= axes.get_tightbbox().y0
    assert legend.x0 >= 0 and legend.x1 <= figure.bbox.x1


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda: plot_answers_by_layer(torch.rand(3, 2), torch.ones(3, 2), ["a"]), "1 prompt, one"),
        (lambda: plot_answers_by_layer(torch.rand(3), torch.ones(3), ["a"]), r"\(3,\)"),
        (
            lambda: plot_answers_by_layer(torch.rand(3, 7), torch.ones(3, 7), list("abcdefg")),
            "too many",
        ),
        (lambda: plot_answer_layers({}, last=3), "1 to . kinds, not 0"),
        (lambda: plot_answer_layers({"a": torch.tensor([4])}, last=3), "layer 4 of 'a'"),
        (lambda: plot_spread_by_layer({"a": torch.rand(3)}), r"\(layers, prompts\)"),
        (lambda: plot_spread_by_layer({"a": torch.rand(3, 0)}), r"\(3, 0\)"),
        (lambda: plot_spread_by_layer({}), "nothing to draw"),
        (lambda: plot_spread_by_layer({"a": NAN}), "finite, but there is nan: in float16"),
        (lambda: plot_answers_by_layer(NAN, torch.ones(3, 2), ["a", "b"]), "there is nan"),
        (
            lambda: plot_answers_by_layer(torch.ones(3, 2), 1 / (NAN - 1), ["a", "b"]),
            "there is inf",
        ),
        (lambda: plot_answer_layers({"a": torch.tensor([torch.nan])}, last=3), "layer nan of 'a'"),
    ],
)
def test_values_of_another_shape_are_refused(draw, said):
    with pytest.raises(ValueError, match=said):
        draw()

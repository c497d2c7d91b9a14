"""What the figures of attention heads show, and what they refuse."""

from __future__ import annotations

import pytest
import torch

from figure_checks import STRICT, labels, looks_right, words
from tutorial_utils.lessons.heads import (
    plot_attribution,
    plot_effects,
    plot_head_maps,
    plot_patterns,
    plot_repeats,
)

pytestmark = STRICT


def test_repeats_are_marked_where_the_words_are_repeated():
    losses = torch.cat([torch.full((4, 6), 5.0), torch.full((4, 6), 0.5)], dim=1)
    figure = plot_repeats(losses, 6)
    assert looks_right(figure)
    (axes,) = figure.axes
    assert axes.lines[0].get_ydata().tolist() == [5.0] * 6 + [0.5] * 6
    assert axes.lines[1].get_xdata()[0] == 6.5
    assert "5 nats before the words are repeated, and 0.5 nats from the" in figure.description


def test_patterns_name_tokens_on_both_axes():
    tokens = ["<s>", " _a", " $b$"]
    figure = plot_patterns({"L1H0": torch.eye(3), "L2H1": torch.eye(3).flip(1)}, tokens)
    assert looks_right(figure)
    first = figure.axes[0]
    assert labels(first.yaxis) == labels(first.xaxis) == ["<s>", "␣_a", "␣$b$"]
    assert first.images[0].get_array().tolist() == torch.eye(3).tolist()
    assert 'L2H1 gives 1 of its attention to "<s>"' in figure.description


@pytest.mark.parametrize("shape", [(1, 1), (8, 4), (30, 9), (80, 64)])
def test_maps_of_small_and_large_models_can_be_read(shape):
    maps = {kind: torch.rand(shape) for kind in ("previous", "induction", "first")}
    figure = plot_head_maps(maps)
    assert looks_right(figure)
    numbers = [word for word in words(figure) if word.startswith("0.") and len(word) == 4]
    assert (len(numbers) > 90) == (shape == (8, 4))


def test_a_map_counts_layers_from_1_and_heads_from_0():
    figure = plot_head_maps({"x": torch.tensor([[0.0, 0.1], [0.9, 0.0]])}, signed=True)
    assert looks_right(figure)
    axes = figure.axes[0]
    assert labels(axes.yaxis) == ["1", "2"] and labels(axes.xaxis) == ["0", "1"]
    assert axes.images[0].get_clim() == pytest.approx((-0.9, 0.9))
    said = 'The heads of 2 layers with the score farthest from 0: in "x", L2H0 0.9, L1H1 0.1, '
    assert said in figure.description
    two = plot_head_maps({"x": [[0.0, -0.9]], "y": [[0.3, 0.1]]}, label="attention").description
    said = 'attention: in "x", L1H0 0, L1H1 -0.9; in "y", L1H0 0.3, L1H1 0.1.'
    assert two.endswith(f" The heads of 1 layer with the highest {said}")


def test_attribution_has_two_bars_for_each_layer_and_a_map_of_heads():
    attention, mlp = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    figure = plot_attribution(attention, mlp, torch.tensor([[0.5, 0.5], [-2.0, 0.0]]))
    assert looks_right(figure)
    first, second = figure.axes[0].containers
    assert [bar.get_width() for bar in first] == [1, -2]
    assert [bar.get_width() for bar in second] == [0.5, 3]
    said = "attention part is 1 (layer 1) and the highest MLP part is 3 (layer 2); the heads "
    assert f"{said}farthest from 0 are L2H0 -2, L1H0 0.5, L1H1 0.5, " in figure.description


def test_effects_are_means_with_a_deviation_over_rows():
    effects = {"0": torch.tensor([[1.0, 3.0], [0.0, 0.0]]), "mean": [[1.0, 1.0], [0.5, 0.7]]}
    figure = plot_effects(effects, ["L1H0", "L2H0"])
    assert looks_right(figure)
    points, others = (container.lines[0] for container in figure.axes[0].containers)
    assert points.get_ydata().tolist() == [2, 0] and others.get_ydata() == pytest.approx([1, 0.6])
    assert points.get_marker() != others.get_marker()
    assert figure.description == (
        "What each edit does. The mean increase in loss (nats), where it is farthest from 0: "
        'for "0", L1H0 (2); for "mean", L1H0 (1).'
    )


def test_what_can_not_be_drawn_is_refused():
    with pytest.raises(ValueError, match="must be finite"):
        plot_head_maps({"x": [[torch.nan]]})
    with pytest.raises(ValueError, match=r"0 must be \(2, rows\), not \(1, 3\)"):
        plot_effects({"0": torch.ones(1, 3)}, ["L1H0", "L2H0"])
    for count in (0, 7):
        with pytest.raises(ValueError, match=f"give 1 to 6 ways, not {count}"):
            plot_effects({str(i): torch.ones(1, 3) for i in range(count)}, ["L1H0"])

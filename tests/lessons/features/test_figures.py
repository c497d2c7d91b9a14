"""Figures of sparse features show what they are given."""

from __future__ import annotations

import pytest
import torch

from tutorial_utils.lessons.features.figures import plot_fired, plot_judged, plot_switched


def test_rates_are_counted_and_those_of_nothing_told():
    figure = plot_fired(torch.tensor([0.0, 0.0, 0.1, 0.01, 0.001]))
    (axes,) = figure.axes
    assert sum(patch.get_height() for patch in axes.patches) == 3
    assert axes.texts[0].get_text() == "2 of 5 never fire"
    assert "5 features, the median one on 0.001 of the tokens, 2 on none" in figure.description
    assert plot_fired(torch.zeros(3)).axes[0].texts[0].get_text() == "3 of 3 never fire"
    with pytest.raises(ValueError, match="rates"):
        plot_fired(torch.tensor([0.1, torch.nan]))


def test_a_mark_for_each_way_and_a_line_for_its_seeds():
    names = ["a name", "a home"]
    figure = plot_judged({"feature": [[0.2, 0.4], [0.4, 0.8]], "probe": [0.9, 0.7]}, names)
    (axes,) = figure.axes
    marks = [line for line in axes.lines if line.get_marker() in ("o", "s")]
    assert marks[0].get_xdata() == pytest.approx([0.3, 0.6])
    assert marks[1].get_xdata() == pytest.approx([0.9, 0.7])
    (spread, none) = axes.collections
    ends = [x for (a, _), (b, _) in spread.get_segments() for x in (a, b)]
    assert ends == pytest.approx([0.2, 0.4, 0.4, 0.8])
    assert all(a[0] == b[0] for a, b in none.get_segments())
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a home", "a name"]
    assert "a name: feature 0.3, probe 0.9; a home: feature 0.6" in figure.description


def test_f1_that_cannot_be_drawn():
    with pytest.raises(ValueError, match="one F1 for each of 2"):
        plot_judged({"feature": [0.1]}, ["a", "b"])
    with pytest.raises(ValueError, match="cannot be told apart"):
        plot_judged({}, ["a"])
    with pytest.raises(ValueError, match="probe"):
        plot_judged({"probe": [torch.nan]}, ["a"])


def test_points_and_bars_of_what_was_switched():
    figure = plot_switched({"sad, on": [-1.0, -3.0], "random, on": [0.5]})
    (axes,) = figure.axes
    assert axes.lines[1].get_ydata().tolist() == [-1, -3]
    assert axes.lines[2].get_ydata().tolist() == [-2, -2]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["sad\non", "random\non"]
    assert "sad, on -2, random, on 0.5" in figure.description
    with pytest.raises(ValueError, match="sad"):
        plot_switched({"sad": [torch.inf]})

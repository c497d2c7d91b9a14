"""Figures of sparse features show what they are given."""

from __future__ import annotations

import pytest
import torch

from tutorial_utils.draw.html import OKABE_ITO
from tutorial_utils.lessons.features.figures import plot_fired, plot_judged, plot_switched


def test_rates_are_counted_and_those_of_nothing_told():
    figure = plot_fired(torch.tensor([0.0, 0.0, 0.1, 0.01, 0.001]))
    (axes,) = figure.axes
    assert sum(patch.get_height() for patch in axes.patches) == 3
    assert axes.texts[0].get_text() == "2 of 5 never fire"
    assert (
        "Of 5 features, the median feature fires on 0.10% of the tokens, and 2 never fire"
        in figure.description
    )
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
    assert figure.description == (
        "How well each way finds the attributes. F1 of feature (mean of 2 seeds) for each "
        "attribute, and in brackets that of each better way: a name 0.3 (probe 0.9); "
        "a home 0.6 (probe 0.7)."
    )


def test_the_better_ways_of_an_attribute_are_told_best_first():
    f1 = {"feature": [0.5, 0.5], "random": [0.6, 0.5], "shuffled": [0.1, 0.2], "probe": [0.9, 0.4]}
    said = plot_judged(f1, ["a name", "a home"], title="One seed").description
    assert said == (
        "One seed. F1 of feature for each attribute, and in brackets that of each better way: "
        "a name 0.5 (probe 0.9, random 0.6); a home 0.5 (none)."
    )
    one = plot_judged({"probe": [0.9]}, ["a name"], title="One way").description
    assert one == "One way. F1 of probe for each attribute: a name 0.9."


def test_f1_that_cannot_be_drawn():
    with pytest.raises(ValueError, match="one F1 for each of 2 attributes, not 1"):
        plot_judged({"feature": [0.1]}, ["a", "b"])
    with pytest.raises(ValueError, match=f"give 1 to {len(OKABE_ITO)} ways, not 0"):
        plot_judged({}, ["a"])
    with pytest.raises(ValueError, match="probe"):
        plot_judged({"probe": [torch.nan]}, ["a"])


def test_points_and_bars_of_what_was_switched():
    figure = plot_switched({"sad, on": [-1.0, -3.0], "other, on": [0.5]})
    (axes,) = figure.axes
    assert axes.lines[1].get_ydata().tolist() == [-1, -3]
    assert axes.lines[2].get_ydata().tolist() == [-2, -2]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["sad\non", "other\non"]
    assert "sad on -2, other on 0.5" in figure.description
    with pytest.raises(ValueError, match="sad"):
        plot_switched({"sad": [torch.inf]})

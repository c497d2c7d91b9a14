"""What the figures of contrasted layers show, and what they refuse."""

from __future__ import annotations

import pytest
import torch

from figure_checks import STRICT, count_sentences
from tutorial_utils.draw.described import quoted
from tutorial_utils.draw.figures import MARKERS
from tutorial_utils.lessons.contrast import plot_before_after, plot_contrast

pytestmark = STRICT


def some_probs(*indices: int) -> torch.Tensor:
    probs = torch.zeros(400)
    probs[list(indices)] = 1 / len(indices)
    return probs


def test_plot_contrast_says_what_it_was_given(tokenizer):
    figure = plot_contrast(
        {0: 0.9, 1: 0.4, 2: 0.5},
        2,
        some_probs(40, 41),
        some_probs(41, 42),
        tokenizer,
        candidates=[0, 2],
        k=3,
    )
    left, right = figure.axes
    assert [bar.get_width() for bar in left.patches] == [0.9, 0.4, 0.5]
    assert [bool(bar.get_hatch()) for bar in left.patches] == [False, True, False]
    assert [(text.get_text(), text.get_position()[1]) for text in left.texts] == [(" picked", 2)]
    shown = [bar.get_width() for bar in right.patches]
    assert sorted(shown[:3]) == [0, 0.5, 0.5] and sorted(shown[3:]) == [0, 0.5, 0.5]
    assert [text.get_text() for text in right.get_legend().get_texts()] == [
        "last layer",
        "contrasted",
    ]
    name = quoted(tokenizer.decode([41]))
    assert count_sentences(figure.description) == 2
    assert "Layer 2 is picked, 0.5 bits from the last layer; with the" in figure.description
    assert f"{name} goes from 0.5 to 0.5" in figure.description


@pytest.mark.parametrize(
    ("divergence", "picked", "candidates", "after", "message"),
    [
        ({0: 1.0, 2: 0.5}, 1, None, some_probs(1), "one of the candidates"),
        ({0: 1.0, 2: 0.5}, 4, [0, 4], some_probs(1), "layers with a divergence"),
        ({0: 1.0}, 0, None, torch.zeros(5), r"\(vocab,\)"),
        ({0: 1.0}, 0, None, torch.zeros(2, 400), r"\(vocab,\)"),
    ],
)
def test_plot_contrast_refuses(tokenizer, divergence, picked, candidates, after, message):
    with pytest.raises(ValueError, match=message):
        plot_contrast(divergence, picked, some_probs(3), after, tokenizer, candidates=candidates)


def test_plot_contrast_keeps_its_size_and_place(tokenizer):
    """Figures of several tokens stand under each other: labels must not move the axes."""
    bits = {0: 0.9, 1: 0.4}
    figures = [
        plot_contrast(bits, 0, some_probs(i, i + 1), some_probs(i), tokenizer) for i in (40, 90)
    ]
    assert len({tuple(f.get_size_inches()) for f in figures}) == 1
    assert len({axes.get_position().bounds for f in figures for axes in f.axes}) == 2


def test_plot_before_after_places_each_prompt():
    before, after = torch.tensor([0.1, 0.9]), torch.tensor([0.3, 0.2])
    figure = plot_before_after(
        {"facts": (before, {"low": after, "high": before}), "b": (before[:1], {})}
    )
    first, second = figure.axes
    assert torch.allclose(
        torch.tensor(first.collections[0].get_offsets()).float(), torch.stack([before, after], 1)
    )
    assert len(first.collections) == 2 and len(second.collections) == 0
    assert (first.get_title(), second.get_title()) == ("facts, 2 prompts", "b, 1 prompt")
    low = "facts, low, 1 of 2 prompts, mean 0.5 before, 0.25 after"
    assert low in figure.description and count_sentences(figure.description) == 2
    assert "facts, high, 0 of 2 prompts, mean 0.5 before and after" in figure.description


@pytest.mark.parametrize("groups", [{}, {"facts": (torch.zeros(0), {})}])
def test_plot_before_after_with_nothing(groups):
    with pytest.raises(ValueError, match="nothing to draw"):
        plot_before_after(groups)


def test_a_divergence_that_is_not_finite_has_a_word_and_no_bar(tokenizer):
    bits = {0: torch.nan, 1: 0.4, 2: torch.inf}
    figure = plot_contrast(bits, 0, some_probs(1), some_probs(2), tokenizer)
    figure.draw_without_rendering()
    left = figure.axes[0]
    assert [bar.get_width() for bar in left.patches] == [0.4]
    words = {text.get_position()[1]: text.get_text() for text in left.texts}
    assert words == {0: " nan picked", 2: " inf"}
    nothing = plot_contrast({0: torch.nan}, 0, some_probs(1), some_probs(2), tokenizer)
    nothing.draw_without_rendering()


def test_values_that_are_not_finite_are_refused(tokenizer):
    broken = torch.full((400,), torch.nan)
    for pair in ((broken, some_probs(1)), (some_probs(1), broken)):
        with pytest.raises(ValueError, match="probs must be finite, but there is nan"):
            plot_contrast({0: 0.9}, 0, *pair, tokenizer)
    for before, after in ((0.1, torch.nan), (torch.inf, 0.1)):
        group = torch.tensor([before]), {"low": torch.tensor([after])}
        with pytest.raises(ValueError, match=r"facts, (before|low), must be finite, but there is"):
            plot_before_after({"facts": group})


def test_more_labels_than_markers_are_refused():
    rows = {str(i): torch.ones(1) for i in range(len(MARKERS) + 1)}
    with pytest.raises(ValueError, match="a group can have 6 labels"):
        plot_before_after({"facts": (torch.ones(1), rows)})

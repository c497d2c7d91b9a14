"""What the figures of a decoder layer show, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from figure_checks import STRICT, TOKENS, looks_right, words
from tutorial_utils.draw.described import counted, in_words
from tutorial_utils.lessons.layer import plot_gate, plot_looks, plot_patterns, plot_rotary

pytestmark = STRICT


def patterns(heads: int, seq: int) -> torch.Tensor:
    scores = torch.randn(heads, seq, seq, generator=torch.Generator().manual_seed(0))
    return scores.masked_fill(torch.ones(seq, seq).triu(1).bool(), -torch.inf).softmax(-1)


def test_the_angles_and_the_scores_are_drawn():
    scores = {f"query at {m}": (range(m), torch.linspace(1, -1, 63)[:m]) for m in (63, 40, 20)}
    scores["query at 40"][1][7] += 0.25
    figure = plot_rotary(1e4 ** (-torch.arange(16) / 16), scores)
    left, right = figure.axes
    assert left.get_yscale() == "log" and len(left.lines[0].get_ydata()) == 16
    assert [len(line.get_ydata()) for line in right.lines] == [63, 40, 20]
    assert len({line.get_marker() for line in right.lines}) == 3
    assert set(scores) <= set(words(figure)) and looks_right(figure)
    for said in (
        "in radians falls from 1 for the first pair to 0.00018 for the last; right, the score",
        "goes from 1 at distance 0 to -1 at distance 62 (query at 63), that of query at 40 differs",
        " by up to 0.25, that of query at 20 differs by 0.",
    ):
        assert said in figure.description


@pytest.mark.parametrize("heads", [1, 3, 4, 9, 32])
def test_a_square_for_each_of_eight_heads(heads):
    pattern = patterns(heads, len(TOKENS))
    figure = plot_patterns(pattern, TOKENS)
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert len(images) == min(heads, 8) and looks_right(figure)
    assert np.allclose(images[-1].get_array(), pattern[min(heads, 8) - 1])
    assert "␣works" in words(figure)
    best = TOKENS[pattern[0, -1].argmax()]
    assert f"head 0 looks most at {best!r}" in figure.description


@pytest.mark.parametrize("tokens", [["$x$"], ["a b c d e f g h i j k l"] * 70])
def test_one_token_and_many(tokens):
    assert looks_right(plot_patterns(patterns(2, len(tokens)), tokens))


def test_a_pattern_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(head, query, key\) of 7 tokens, not \(2, 7, 6\)"):
        plot_patterns(torch.zeros(2, 7, 6), TOKENS)


@pytest.mark.parametrize(("layers", "heads"), [(1, 1), (8, 4), (30, 9), (32, 32), (80, 64)])
def test_the_largest_weights_are_named_where_there_is_room(layers, heads):
    weights = torch.rand(layers, heads, generator=torch.Generator().manual_seed(0))
    numbers = torch.arange(layers * heads).view(layers, heads)
    places = numbers % 2 * (numbers % len(TOKENS))  # half of them look at the first token
    figure = plot_looks(weights, places, TOKENS, title="Where the last token looks")
    (image,) = figure.axes[0].images
    assert np.allclose(image.get_array(), weights) and image.origin == "lower"
    written = [text.get_text() for text in figure.axes[0].texts]
    assert len(written) == (int((places > 0).sum()) if heads < 16 else 0) and looks_right(figure)
    layer, head = divmod(int(weights.argmax()), heads)
    where = f"(layer {layer + 1}, head {head}, on {TOKENS[places[layer, head]]!r})."
    said = f"; the largest weight is {in_words(float(weights.max()))} {where}"
    assert figure.description.endswith(said)
    first = f"{int((places == 0).sum())} of {layers * heads} heads look most at the first token"
    assert f"{counted(heads, 'head')} each, {first}, {TOKENS[0]!r}; " in figure.description


def test_a_layer_without_a_pattern_is_left_empty():
    weights = torch.tensor([[0.5, 0.2], [torch.nan, torch.nan]])
    figure = plot_looks(weights, torch.ones(2, 2, dtype=torch.long), TOKENS, title="Looks")
    assert len(figure.axes[0].texts) == 2 and looks_right(figure)
    said = "In 2 layers with 2 heads each, 0 of 2 heads look most at the first token"
    assert said in figure.description
    with pytest.raises(ValueError, match=r"must be \(layers, heads\)"):
        plot_looks(weights, torch.zeros(2, 3, dtype=torch.long), TOKENS, title="Looks")


def test_the_gate_is_a_line_over_the_numbers_that_it_was_given():
    given = torch.randn(1, 7, 48, generator=torch.Generator().manual_seed(0))
    figure = plot_gate(given, torch.nn.functional.silu, title="The gate")
    below, above = figure.axes
    assert sum(bar.get_height() for bar in below.patches) == given.numel()
    x, y = (torch.tensor(each) for each in above.lines[0].get_data())
    assert torch.allclose(y, torch.nn.functional.silu(x)) and looks_right(figure)
    low, high, below_0 = given.min().item(), given.max().item(), (given < 0).float().mean()
    assert f"from {in_words(low)} to {in_words(high)}, and {below_0:.0%} of" in figure.description
    with pytest.raises(ValueError, match="finite"):
        plot_gate(given / 0, torch.nn.functional.silu, title="The gate")

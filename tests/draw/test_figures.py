"""What the figures of tokens and probabilities show, and that they leave nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from matplotlib.colors import to_hex, to_rgb

from figure_checks import IDS, STRICT, TOKENS, VOCAB, labels, looks_right, random_probs, words
from tutorial_utils.draw.described import probability_in_words
from tutorial_utils.draw.figures import plot_distributions, plot_next_token, plot_tokens
from tutorial_utils.draw.html import OKABE_ITO

pytestmark = STRICT
# Mathematics, line ends, spaces, marks, half a surrogate pair, and what the font does not have.
ODD = {
    **{text: text for text in ("$x^2$", "$", "é", "<0xE2>", "\\frac", "_a")},
    "\n": "\\n",
    "\t": "\\t",
    "    ": "␣␣␣␣",
    "😀": "\\U0001f600",
    "你好": "\\u4f60\\u597d",
    "\u200b": "\\u200b",
    "\u0301": "\\u0301",
    "\ud800": "\\ud800",
}


def test_each_token_has_a_coloured_box_and_its_id():
    figure = plot_tokens(TOKENS, torch.tensor(IDS), title="The prompt")
    boxes = figure.axes[0].patches
    assert len(boxes) == len(TOKENS)
    lighter = [to_hex([1 - 0.4 * (1 - part) for part in to_rgb(c)]) for c in OKABE_ITO]
    assert [to_hex(box.get_facecolor()) for box in boxes[:6]] == lighter
    shown = words(figure)
    assert [shown.count(name) for name in ("␣works", "␣McDonald", "322", "0")] == [1, 1, 1, 1]
    assert figure.get_suptitle() == "The prompt"
    assert looks_right(figure)
    said = 'The prompt. 7 tokens with their ids: "<|begin_of_text|>" 0, "Trump" 322, " works" 315, '
    assert figure.description.startswith(said)
    assert figure.description.endswith('"." 15.')


def test_many_tokens_go_on_over_several_lines_and_stay_inside():
    figure = plot_tokens(TOKENS * 9, IDS * 9)
    boxes, right = figure.axes[0].patches, figure.axes[0].get_xlim()[1]
    assert len(boxes) == 63 and len({box.get_y() for box in boxes}) > 4
    assert all(box.get_x() + box.get_width() <= right for box in boxes)
    assert looks_right(figure)
    assert figure.description.endswith(" and 51 more.")


def test_odd_tokens_are_shown_as_they_are_or_as_escapes():
    figure = plot_tokens([*ODD])
    assert [name for name in words(figure) if name != figure.get_suptitle()] == [*ODD.values()]
    assert looks_right(figure)
    assert "=" * 39 + "…" in words(plot_tokens(["=" * 80]))


def test_next_token_bars_are_the_best_ones_in_order(tokenizer):
    probs = random_probs()
    figure = plot_next_token(probs, tokenizer, k=6, title="Next")
    axes = figure.axes[0]
    best = probs.sort(descending=True)
    assert [bar.get_width() for bar in axes.patches] == best.values[:6].tolist()
    shown = [tokenizer.decode([token_id]) for token_id in best.indices[:6].tolist()]
    readable = [name for name in shown if "\ufffd" not in name]
    assert readable
    assert {name.replace(" ", "␣") for name in readable} <= set(labels(axes.yaxis))
    assert f"{best.values[0]:.3f}" in words(figure)
    said = [f"{json.dumps(n)} {p:.3g}" for n, p in zip(shown, best.values.tolist(), strict=False)]
    assert figure.description == f"Next. The three most probable tokens: {', '.join(said[:3])}."
    one = plot_next_token(probs, tokenizer, k=1, title="Next?").description
    assert one == f"Next? The most probable token: {said[0]}."
    assert axes.yaxis_inverted()
    assert axes.get_xlabel() == "probability"
    assert {to_hex(bar.get_facecolor()) for bar in axes.patches} == {OKABE_ITO[4].lower()}
    assert looks_right(figure)


@pytest.mark.parametrize("k", [1, 20])
def test_certain_and_flat_distributions_can_be_drawn(tokenizer, k):
    certain = torch.zeros(VOCAB)
    certain[300] = 1
    assert looks_right(plot_next_token(certain, tokenizer, k=k))
    assert looks_right(plot_next_token(torch.full((VOCAB,), 1 / VOCAB), tokenizer, k=k))


def test_distributions_are_grouped_over_the_first_ones_tokens(tokenizer):
    rows = {"$T$ 0.5": random_probs(0), 1.0: random_probs(1), "_2": random_probs(2)}
    figure = plot_distributions(rows, tokenizer, k=5)
    axes = figure.axes[0]
    best = random_probs(0).topk(5).indices
    for group, probs in zip(axes.containers, rows.values(), strict=True):
        np.testing.assert_array_equal([bar.get_height() for bar in group], probs[best])
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["$T$ 0.5", "1.0", "_2"]
    colors = [to_hex(group[0].get_facecolor()) for group in axes.containers]
    assert colors == [to_hex(color) for color in colormaps["viridis"]([0, 0.45, 0.9])]
    for place, *bars in zip(axes.get_xticks(), *axes.containers, strict=True):
        middle = (bars[0].get_x() + bars[-1].get_x() + bars[-1].get_width()) / 2
        assert middle == pytest.approx(place, abs=1e-6)
    assert words(figure) and looks_right(figure)
    for name, probs in rows.items():
        i = best[probs[best].argmax()]
        prob = probability_in_words(float(probs[i]))
        assert f"{json.dumps(tokenizer.decode([i]))} {prob} ({name})" in figure.description
    start = f"Bars for 5 tokens, beginning with {json.dumps(tokenizer.decode([best[0]]))}; the high"
    assert f" {start}est bar of each distribution: " in figure.description
    one = plot_distributions({"a": random_probs(0)}, tokenizer, k=1, title="Next?").description
    assert one.startswith("Next? Bars for 1 token, beginning with ")
    assert "; the highest bar: " in one


def test_a_long_title_is_broken_into_lines():
    figure = plot_tokens(["a"], title="A long title " * 12 + "about $5 and 你")
    assert figure.get_suptitle().count("\n") >= 2
    assert figure.get_suptitle().endswith("about $5 and \\u4f60")
    assert words(figure) and looks_right(figure)


def test_pyplot_is_not_imported_and_matplotlib_only_when_a_figure_is_asked_for():
    code = """
import sys, tutorial_utils
assert "matplotlib" not in sys.modules
from tutorial_utils import plot_tokens
plot_tokens(["a"])._ipython_display_()
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_probabilities_of_any_dtype_are_taken_and_left_alone(tokenizer):
    probs = random_probs().double().requires_grad_()
    copy = probs.detach().clone()
    plot_next_token(probs, tokenizer)
    plot_distributions({"one": probs}, tokenizer)
    assert torch.equal(probs.detach(), copy) and probs.requires_grad and probs.grad is None


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda _: plot_tokens(["a", "b"], [1]), "2 tokens and 1 id$"),
        (lambda _: plot_tokens([]), "a list of at least one string"),
        (lambda _: plot_tokens("a prompt"), "a list of at least one string"),
        (lambda t: plot_next_token(torch.randn(VOCAB), t), "if these are logits"),
        (lambda t: plot_next_token(-random_probs(), t), "if these are logits"),
        (lambda t: plot_next_token(random_probs()[None], t), r"use probs\[0\]"),
        (lambda t: plot_next_token(random_probs(), t, k=399), "k is 399"),
        (lambda t: plot_distributions({}, t), "at least one"),
        (
            lambda t: plot_distributions({"a": random_probs(), "b": random_probs()[1:]}, t),
            r"shapes are \[\(398,\), \(397,\)\]",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(tokenizer, draw, said):
    with pytest.raises(ValueError, match=said):
        draw(tokenizer)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_probabilities_that_are_not_finite_are_refused_and_name_the_dtype(tokenizer, value):
    probs = random_probs()
    probs[3] = value
    for draw in (plot_next_token, lambda row, t: plot_distributions({"a": row}, t)):
        with pytest.raises(ValueError, match=f'there is {value}: in float16 .*dtype="float32"'):
            draw(probs, tokenizer)

"""What a notebook keeps of a figure for readers who do not see it."""

from __future__ import annotations

import base64

import matplotlib.pyplot as plt
import pytest
from IPython.core.formatters import DisplayFormatter

from figure_checks import STRICT, count_sentences, in_a_notebook
from tutorial_utils.draw.described import (
    counted,
    describe_figure,
    from_to,
    in_words,
    layers_in_words,
    listed,
    opening,
    probability_in_words,
    quoted,
    sentence,
)

pytestmark = STRICT


def test_a_figure_of_the_reader_is_shown_with_its_description():
    figure, axes = plt.subplots()
    axes.plot([1, 4, 9])
    assert describe_figure(figure, 'From 1,\n  "up" to 9 & <more>.') is figure
    shown = in_a_notebook(figure)
    alt, _, picture = shown["text/html"].partition('" src="data:image/png;base64,')
    assert alt == '<img alt="From 1, &quot;up&quot; to 9 &amp; &lt;more&gt;.'
    assert base64.b64decode(picture.removesuffix('">'))[:4] == b"\x89PNG"
    assert shown["text/plain"] == 'From 1, "up" to 9 & <more>.'
    plt.close(figure)


def test_a_figure_is_shown_once(monkeypatch):
    """IPython asks for no other form of it, also where pyplot has made it draw all figures."""
    shown = []
    monkeypatch.setattr("IPython.display.publish_display_data", shown.append)
    formatter = DisplayFormatter()
    formatter.ipython_display_formatter.enabled = True
    figure = describe_figure(plt.figure(), "Nothing is drawn.")
    assert formatter.format(figure) == ({}, {})
    assert len(shown) == 1
    plt.close(figure)


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0"), (0.12345, "0.123"), (-2.5, "-2.5"), (12345.6, "12,346"), (2e-9, "less than 0.001")],
)
def test_numbers_can_be_read_out(value, words):
    assert in_words(value) == words


def test_only_a_small_probability_is_one_in_so_many():
    assert probability_in_words(1 / 5000) == "less than 0.001 (1 in 5,000)"
    assert [probability_in_words(p) for p in (0, 0.25, 1)] == ["0", "0.25", "1"]
    assert in_words(-1e-9) == "just below 0"


def test_a_range_with_equal_ends_is_one_number():
    assert from_to(0.5, 2) == "0.5 to 2"
    assert from_to(0.99999, 1) == "1"
    assert layers_in_words(range(9)) == "layers 0 to 8"
    assert layers_in_words([3]) == "layer 3"
    assert layers_in_words([0, 4, 8]) == "layers 0, 4, 8"
    assert layers_in_words([2, 3]) == "layers 2, 3"


def test_one_of_a_thing_has_no_s():
    assert [counted(n, "token") for n in (0, 1, 1234)] == ["0 tokens", "1 token", "1,234 tokens"]


def test_a_title_that_ends_a_sentence_gets_no_second_full_stop():
    assert [sentence(t) for t in ("A", "A.", "A?", 'After "a b."')] == [
        "A.",
        "A.",
        "A?",
        'After "a b."',
    ]
    assert sentence('After "a"') == 'After "a".'
    assert [opening(t) for t in ("A", "A.", "A?")] == ["A:", "A:", "A:"]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("From 0.5 to 1.5 (Vaswani et al. 2017)", 1),
        ('A title. Tokens: "." 15, "a. B" 3, "\\"? " 4.', 2),
        ("Next? The best: ' at' 0.5.", 2),
        ('After "a. B." Bars for 8 tokens. The highest: 1.', 3),
    ],
)
def test_sentences_are_counted_outside_quotation_marks(text, count):
    assert count_sentences(text) == count


def test_what_is_left_out_is_counted():
    assert listed(["a", "b"], 2) == "a, b"
    assert listed("abcde", 2) == "a, b and 3 more"
    assert quoted(" the\n") == '" the\\n"'

"""What a notebook keeps of a figure for readers who do not see it."""

from __future__ import annotations

import base64

import matplotlib.pyplot as plt
import pytest
from IPython.core.formatters import DisplayFormatter

from figure_checks import STRICT, in_a_notebook
from tutorial_utils.draw.described import describe_figure, in_words, listed, quoted

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
    assert in_words(value).startswith(words)
    assert "e-" not in in_words(value)


def test_what_is_left_out_is_counted():
    assert listed(["a", "b"], 2) == "a, b"
    assert listed("abcde", 2) == "a, b and 3 more"
    assert quoted(" the\n") == '" the\\n"'

"""The explorers' drawings: what they say in words, and that no text can break out of them."""

from __future__ import annotations

import re
from html import unescape
from xml.etree import ElementTree

import pytest
import torch

from tutorial_utils.draw.html import heatmap_html, number, visible
from tutorial_utils.lessons.softmax.explorer import choice_html, filtered_choice
from tutorial_utils.lessons.tokens.explorer import TokenRow, tokens_html

NASTY = '<script>alert("x")</script> & \n\t'


def parse(html: str) -> ElementTree.Element:
    """Fails where a tag is left open or a text is not escaped."""
    return ElementTree.fromstring(f"<div>{html}</div>")


def words(element: ElementTree.Element) -> list[str]:
    return [text for text in element.itertext() if text.strip()]


def test_every_token_shows_text_id_and_bytes():
    rows = [
        TokenRow("<|start|>", 0, b"", True),
        TokenRow(" caf", 300, b" caf", False),
        TokenRow("<0xC3>", 128, b"\xc3", False),
    ]
    boxes = parse(tokens_html(rows)).findall(".//div[@data-token]")
    assert [words(box) for box in boxes] == [
        ["<|start|>", "0", "special"],
        ["␣caf", "300", "20 63 61 66"],
        ["<0xC3>", "128", "C3"],
    ]
    assert ["dashed" in box.get("style") for box in boxes] == [True, False, False]


def test_a_long_text_is_cut_and_says_so():
    html = tokens_html([TokenRow("a", 1, b"a", False)] * 1500)
    assert html.count("data-token") == 400
    assert "… and 1,100 tokens more" in html


def test_no_text_no_boxes():
    assert words(parse(tokens_html([]))) == []


def test_nothing_that_is_typed_becomes_html():
    row = TokenRow(NASTY, 1, NASTY.encode(), False)
    choice = filtered_choice(torch.tensor([2.0, 1.0]))
    bars = choice_html(choice.probs, choice, [NASTY, NASTY], torch.tensor([0, 1]))
    heat = heatmap_html(torch.ones(1, 1), ["layer 0"], [NASTY], title=NASTY)
    for html in (tokens_html([row]), bars, heat):
        assert "<script" not in html
        parse(html)


def test_visible_shows_spaces_and_what_has_no_picture():
    assert visible(" a b\n") == "␣a␣b\\n"
    assert visible("\u200b") == "\\u200b"
    assert visible("東🙂é") == "東🙂é"
    assert visible("a" * 30, 10) == "a" * 9 + "…"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.12345, "0.123"), (-1.5, "-1.5"), (12345.6, "12,346"), (1e-9, "1.0e-09")],
)
def test_numbers(value, text):
    assert number(value) == text


def test_bars_say_both_probabilities_and_what_is_dropped():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    choice = filtered_choice(logits, top_k=2)
    best = torch.tensor([0, 1, 2])
    table = parse(choice_html(logits.softmax(-1), choice, [" a", "b", "c"], best))
    rows = [words(row) for row in table.findall(".//tbody/tr")]
    assert rows == [
        ["␣a", "0.500", "0.625"],
        ["b", "0.300", "0.375"],
        ["c", "0.150", "dropped"],
        ["the other 1", "0.050", "dropped"],
    ]
    widths = re.findall(
        r"width:([\d.]+)%;background", choice_html(choice.probs, choice, ["a"], best[:1])
    )
    assert widths[:2] == ["62.50", "62.50"]


def test_a_kept_token_whose_probability_is_tiny_is_not_dropped():
    choice = filtered_choice(torch.tensor([0.0, -200.0, -300.0]))
    html = choice_html(choice.probs, choice, ["a", "b"], torch.tensor([0, 1]))
    assert "dropped" not in html
    assert html.count("&lt; 0.001") == 4


def test_heatmap_writes_every_value_layer_0_at_the_bottom():
    values = torch.tensor([[1.0, 2.0], [1000.0, 0.5]])
    html = heatmap_html(values, ["layer 0", "layer 1"], ["␣a", "b"], title="T", log=True, marked=1)
    rows = [words(row) for row in parse(html).findall(".//tbody/tr")]
    assert rows == [["layer 1", "1,000", "0.5"], ["layer 0", "1", "2"]]
    assert words(parse(html).find(".//tfoot")) == ["␣a", "b ◂"]
    colors = re.findall(r"<td style=\"background:(#\w+)", html)
    assert colors[0] == "#fde725" and colors[1] == "#440154"  # viridis' ends


def test_heatmap_text_stands_in_place_of_numbers():
    html = heatmap_html(torch.ones(1, 2), ["layer 3"], ["x", "y"], title="T", text=[["12: 3", "<"]])
    assert words(parse(html).find(".//tbody")) == ["layer 3", "12: 3", "<"]
    assert unescape("&lt;") in words(parse(html).find(".//tbody"))


def test_equal_values_zeros_and_a_wrong_shape():
    for log in (False, True):
        assert "nan" not in heatmap_html(torch.zeros(1, 2), ["a"], ["x", "y"], title="T", log=log)
    with pytest.raises(ValueError, match=r"values must be \(2, 1\), not \(1, 1\)"):
        heatmap_html(torch.ones(1, 1), ["a", "b"], ["x"], title="T")
    with pytest.raises(ValueError, match="values must be"):
        heatmap_html(torch.ones(0, 1), [], ["x"], title="T")

"""The HTML drawings: what they say in words and colours, and that no text can break out of them."""

from __future__ import annotations

import re

import pytest
import torch
from matplotlib import colormaps
from matplotlib.colors import to_hex, to_rgb

from explorer_parts import parse, rows_of, words
from tutorial_utils.draw.html import (
    GREY,
    OKABE_ITO,
    PALE,
    BarRow,
    bar_table,
    heat_cell,
    heatmap_html,
    ink_on,
    number,
    probability,
    visible,
)

NASTY = '<script>alert("x")</script> & \n\t'


def colors_of(html: str) -> list[str]:
    return re.findall(r"<td style=\"background:(#\w+)", html)


def contrast(one: str, other: str) -> float:
    """The contrast of two colours by the formula of WCAG 2.1."""

    def luminance(color: str) -> float:
        srgb = torch.tensor(to_rgb(color))
        linear = torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
        return float(linear @ torch.tensor([0.2126, 0.7152, 0.0722]))

    dark, bright = sorted([luminance(one), luminance(other)])
    return (bright + 0.05) / (dark + 0.05)


def test_every_text_on_a_colour_has_a_contrast_of_at_least_4_5():
    assert contrast("black", "white") == pytest.approx(21)
    cells = [heat_cell("x", i / 1000) for i in range(1001)] + [heat_cell("nan", torch.nan)]
    pairs = re.findall(r"background:(#\w+);.*?color:(\w+)\"", "".join(cells))
    shades = {to_hex(colormaps["viridis"](i)) for i in range(256)}
    assert {color for color, _ in pairs} == {*shades, GREY}
    assert min(contrast(*pair) for pair in pairs) >= 4.5
    assert min(contrast("black", color) for color in PALE) >= 4.5
    others = [*OKABE_ITO, *map(colormaps["cividis"], range(256)), "#767676", "#777777"]
    assert min(contrast(color, ink_on(color)) for color in others) >= 4.5


def test_visible_shows_spaces_and_what_has_no_picture():
    assert visible(" a b\n") == "␣a␣b\\n"
    assert visible("\u200b\ud800\u202e\0") == "\\u200b\\ud800\\u202e\\x00"
    assert visible("東🙂é") == "東🙂é"
    assert visible("a" * 30, 10) == "a" * 9 + "…"


@pytest.mark.parametrize(
    ("value", "text", "share"),
    [
        (0, "0", "&lt; 0.001"),
        (0.12345, "0.123", "0.123"),
        (-1.5, "-1.5", None),
        (12345.6, "12,346", None),
        (1e-9, "1.0e-09", "&lt; 0.001"),
        (torch.nan, "nan", "nan"),
        (torch.inf, "inf", "inf"),
        (-torch.inf, "-inf", None),
    ],
)
def test_numbers_and_probabilities(value, text, share):
    assert number(value) == text
    assert share is None or probability(value) == share


def test_a_bar_is_as_long_as_its_share_and_what_is_not_finite_has_none():
    shares = [0.625, torch.nan, torch.inf]
    rows = [BarRow("a", [(share, "background:red")], [probability(share)]) for share in shares]
    html = bar_table(["token", "bar", "words"], rows)
    assert re.findall(r"width:([\d.a-z]+)%;background", html) == ["62.50", "0.00", "0.00"]
    assert rows_of(html) == [["a", "0.625"], ["a", "nan"], ["a", "inf"]]


def test_heatmap_writes_every_value_layer_0_at_the_bottom():
    values = torch.tensor([[1.0, 2.0], [1000.0, 0.5]])
    html = heatmap_html(values, ["layer 0", "layer 1"], ["␣a", "b"], title="T", log=True, marked=1)
    assert rows_of(html) == [["layer 1", "1,000", "0.5"], ["layer 0", "1", "2"]]
    assert words(parse(html).find(".//tfoot")) == ["␣a", "b ◂"]
    assert colors_of(html)[:2] == ["#fde725", "#440154"]  # viridis' ends


def test_heatmap_text_stands_in_place_of_numbers_and_nothing_becomes_html():
    html = heatmap_html(torch.ones(1, 2), [NASTY], ["x", NASTY], title=NASTY, text=[["12: 3", "<"]])
    assert "<script" not in html + heat_cell(NASTY, 0.5, tooltip=NASTY)
    assert rows_of(html) == [[NASTY, "12: 3", "<"]]
    assert words(parse(html).find(".//caption")) == [NASTY]
    cell = parse(heat_cell("<", 0.5, tooltip='a "b"\nc')).find("td")
    assert cell.get("title").split() == ["a", '"b"', "c"] and words(cell) == ["<"]


@pytest.mark.parametrize("log", [False, True])
def test_a_cell_that_is_not_finite_is_grey_and_the_others_keep_their_colours(log):
    values = torch.tensor([[1.0, 10.0, 100.0, torch.nan, torch.inf, -torch.inf]])
    html = heatmap_html(values, ["a"], list("uvwxyz"), title="T", log=log)
    assert rows_of(html) == [["a", "1", "10", "100", "nan", "inf", "-inf"]]
    finite = heatmap_html(values[:, :3], ["a"], list("uvw"), title="T", log=log)
    assert colors_of(html) == colors_of(finite) + [GREY] * 3
    nothing = heatmap_html(torch.full((1, 2), torch.nan), ["a"], ["x", "y"], title="T", log=log)
    assert colors_of(nothing) == [GREY] * 2
    zeros = heatmap_html(torch.zeros(1, 2), ["a"], ["x", "y"], title="T", log=log)
    assert colors_of(zeros) == ["#440154"] * 2 and "nan" not in zeros


def test_values_of_a_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"values must be \(2, 1\), not \(1, 1\)"):
        heatmap_html(torch.ones(1, 1), ["a", "b"], ["x"], title="T")
    with pytest.raises(ValueError, match="values must be"):
        heatmap_html(torch.ones(0, 1), [], ["x"], title="T")
